# SPDX-License-Identifier: Apache-2.0
"""`accelerate launch evaluate.py [preset.yaml] [--options]`: a model in, a table out."""

from viewsynth.commands import main

if __name__ == "__main__":
    main("evaluate", prog="evaluate.py")
