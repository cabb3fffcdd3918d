# SPDX-License-Identifier: Apache-2.0
"""Training pairs of the diffusion model: a ground photo, a rendered view and the true aerial image.

- `making`: from a world (`exact`, `true_pose`) or a real data set (`identity`) to files.
- `stored`: reading these files (`Pairs`).
- `parts`: part maps of a pair.
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
