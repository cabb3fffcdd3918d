# SPDX-License-Identifier: Apache-2.0
"""Fidelity: how near a synthesised drone view comes to the true one of the same instant.

A world (`viewsynth world`) holds for every person an instant that ground cameras and drones filmed
at once. truth (what the world says) -> methods and baselines, and repair where a diffusion was
given (pictures at the true camera) -> measures and features (one row a picture) -> table and sets
(means and intervals) -> text. `viewsynth.observer` judges identity and elevation, a ReID model if
one was given identity once more. Reconstruction and diffusion see the ground pictures only; truth
enters the camera, the rows that say so in their name, and the measures.
"""
