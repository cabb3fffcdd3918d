# SPDX-License-Identifier: Apache-2.0
"""`accelerate launch train.py [preset.yaml] [--options]`: real and synthetic photos to a model."""

from viewsynth.commands import main

if __name__ == "__main__":
    main("train", prog="train.py")
