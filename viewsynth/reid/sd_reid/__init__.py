# SPDX-License-Identifier: Apache-2.0
"""Generation: the second stage of SD-ReID, a diffusion of features instead of pictures.

trained `methods.sd_reid` -> `cache` (features of the training pictures, once) -> `training` (a
`model.Generator` learns to denoise them) -> `fused` (identity feature + one sampled feature a view,
what `evaluate` takes). `latents`, `conditions`, `denoisers` and `sampling` are the generator's
parts, `mode` says where it behaves as the release of the method does, `cost` what it costs.

Source: Wang et al., SD-ReID, IEEE TIP 2026 (arXiv 2504.09549).
"""
