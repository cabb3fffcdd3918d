# SPDX-License-Identifier: Apache-2.0
"""Diffusion: a photo and a rendering of the wished-for view in, a finished picture of it out.

conditions (what a view is made from) -> networks (what enters the UNet) -> pipeline (sampling);
`adapt` makes a pipeline of Stable Diffusion's weights or of none, `photo` makes conditions of a
photo alone. pairs -> training -> distillation make the weights.
"""
