# SPDX-License-Identifier: Apache-2.0
"""Fidelity: distance between a synthetic aerial view and the true image of the same instant.

A world (`viewsynth world`) holds, for every person, instants that ground cameras and drones
recorded at once. `world.truth` (ground truth) -> `methods` and `baselines`, and `repair` where a
diffusion engine is given (images at the true camera) -> `measures` and `features` (one row an
image) -> `table` and `sets` (means and intervals) -> `text`. `observer` measures identity and
elevation; a ReID model, if given, measures identity as well. Reconstruction and diffusion see the
ground images only; ground truth enters the camera, the rows whose name says so, and the measures.
"""
