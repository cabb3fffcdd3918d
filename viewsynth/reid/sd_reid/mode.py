# SPDX-License-Identifier: Apache-2.0
"""Modes of SD-ReID's second stage: our corrected version, or the behaviour of the release.

Each difference is a field of `Mode`: all False in the mode `fixed`, all True in `faithful`, which
exists for comparison, as the published results were obtained that way. The optimizer is ours in
both (AdamW, cosine schedule, moving average); the release uses Adam with steps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Mode:
    """Differences between the release and our version; True = as in the release.

    Args:
        across_batch: Self-attention of the condition learner runs over the images of a batch, one
            token position at a time (a sequence-first layer with batch-first input), so a feature
            depends on the other images: up to 1,024 in the release, --model.batch (at most 256) in
            our `evaluate`. False: over the tokens of an image.
        lost_residuals: The view's feature maps never reach the decoder of the UNet, and all those
            for its encoder only in the first sampling step: each step drops half of the remaining
            ones. False: both get all maps in every step.
        zero_null: The unconditional branch of classifier-free guidance uses tokens of zeros. False:
            the learned null tokens.
        moving_prototypes: Prototypes are the memory bank at the end of the first stage. False: the
            exact means over the training images.
        running_noise: One random generator is shared by all images, in their order, and restarts
            when evaluation is resumed. False: fixed initial noise for each view, equal for all
            images.
        two_views: Features are sampled for the first two views only. False: for all views.
        own_target: The training target is the feature of the conditioning image, with the prototype
            of its view; it can be copied from the condition, so the view is ignored. False: in
            half of the cases, that of a random image of the person, with the prototype of its view.
        dropped_paths: Training features are computed with stochastic depth (0 to 0.1). False: in
            evaluation mode. Ours drops a whole block, where the release drops attention and MLP
            separately, and samples once for each cached image.
        own_view: In training the feature maps are computed from the view feature of the target
            image, in sampling from the prototype. False: in training from either, at random.
        leading: Ancestral sampling (DDPM) with "leading" timesteps, so the first timestep assumes
            less noise than there is. False: deterministic sampling (DDIM) with "trailing" ones.
        raw: Features, conditions and view features are used without standardisation. False: they
            are standardised over the training set, because their variation can be much smaller
            than their mean.
        one_norm: A descriptor is [neck(f), samples], L2-normalised as a whole. False: the samples
            also pass the neck, and each part is L2-normalised.
    """

    across_batch: bool = False
    lost_residuals: bool = False
    zero_null: bool = False
    moving_prototypes: bool = False
    running_noise: bool = False
    two_views: bool = False
    own_target: bool = False
    dropped_paths: bool = False
    own_view: bool = False
    leading: bool = False
    raw: bool = False
    one_norm: bool = False


FIXED = Mode()
FAITHFUL = Mode(**{field.name: True for field in fields(Mode)})
MODES = {"fixed": FIXED, "faithful": FAITHFUL}
