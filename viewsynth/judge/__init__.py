# SPDX-License-Identifier: Apache-2.0
"""Judge: decides whether a person or a view is kept, with which weight, or rejected and why.

Reconstruction measures and flags; only `rules` decides, by the quality of the fitted body and the
share of it that was observed. The weight of a view scales its loss in training.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {"rules": ["FLAG_TEXT", "judge_person", "judge_view", "rejection_reason", "resolution"]},
)
