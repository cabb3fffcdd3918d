# SPDX-License-Identifier: Apache-2.0
"""Training of the completion network: what one photo does not show, learned from the world.

`examples` renders people, fits bodies to their crops and takes the truth from the world; `making`
writes them to a folder in the format of `stored`; `augment` degrades the crops, `losses` compares,
`training` learns. The network itself is `reconstruct.complete`.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(__name__, {"making": ["make"], "stored": ["Stored"]})
