# SPDX-License-Identifier: Apache-2.0
"""Match: crops of a user's own drone in, a preset of `generate` with that look out.

- `crops`: reading, masks, cameras, and what is refused.
- `measures`: figures of one crop: size, tone, sharpness, noise, compression.
- `estimate`: from the figures of many crops to the ranges of `Sensor`, by simulated moments.
- `preset`: framing, compression, shadows and comments of the preset.
- `grounds`: textures of the ground by image quilting.
- `report`: filmed and made images side by side, and histograms.
"""
