# SPDX-License-Identifier: Apache-2.0
"""Training pairs of the diffusion model: conditions and the true image of a view.

`stored` defines the format on disk, `making` writes it. `exact` makes the pairs of a rendered
world, whose truth gives camera and pose; `identity` those of any data set with aerial images.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "making": ["make"],
        "stored": ["Pairs"],
    },
)
