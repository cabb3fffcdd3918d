# SPDX-License-Identifier: Apache-2.0
"""`accelerate launch generate.py [preset.yaml] [--options]`: ground photos in, aerial views out."""

from viewsynth.commands import main

if __name__ == "__main__":
    main("generate", prog="generate.py")
