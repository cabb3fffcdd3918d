# SPDX-License-Identifier: Apache-2.0
"""Mode: our reading of SD-ReID, or the behaviour of its release, difference by difference.

`fixed` is every field False. `faithful` is every field True; it is there to compare with, since the
published numbers were made that way. How weights are moved is ours in both (AdamW, a cosine, a
moving average), where the release has Adam and steps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Mode:
    """What is done as in the release. Each field is one difference.

    Args:
        across_batch: Attention of the condition's tokens runs over the pictures of a batch, one
            token slot at a time (a sequence-first layer that gets batch-first input), so that a
            feature depends on its neighbours: at most 256 in `evaluate`, --model.batch of them,
            where the release has up to 1,024. Else over the tokens of a picture.
        lost_residuals: The view's maps reach the decoder of the UNet never, and its encoder whole
            in the first sampling step only: each step halves the list that is left. Else both, in
            every step.
        zero_null: Guidance goes away from a condition of zeros. Else from the learnt null tokens.
        moving_prototypes: A view is what the last batches of the first stage left in `bank`. Else
            the exact mean over the training pictures.
        running_noise: One generator runs through all pictures, in the order in which they come,
            and begins anew after a stop. Else a view has one start, the same for all pictures.
        two_views: Features are sampled for the first two views only. Else for all.
        own_target: What is denoised in training is the feature of the picture that is told, under
            the prototype of its own view; that one can be copied, and the view goes unheard. Else
            half the time that of any picture of the person, under the prototype of its view.
        dropped_paths: Training features are made with stochastic depth (0 to 0.1) active. Else in
            evaluation mode. Ours drops a block whole, where the release drops its halves one by
            one, and draws once for each cached picture.
        own_view: The maps are made of the denoised picture's view feature in training, of the
            prototype in sampling. Else of one or the other at random in training.
        leading: Sampling is ancestral (DDPM), and its steps are spaced from the first on, so that
            the first one is told that less noise is there than there is. Else deterministic (DDIM),
            spaced from the last on.
        raw: Features are denoised, and conditions and views are told, as they are. Else all three
            are standardised by the training set: they may differ far less than they amount to.
        one_norm: A descriptor is [neck(f), samples], brought to unit length as a whole. Else the
            samples go through the neck, too, and each part is of unit length.
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
