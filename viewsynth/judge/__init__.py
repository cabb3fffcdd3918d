# SPDX-License-Identifier: Apache-2.0
"""Judge: the only place that decides keep, weight or reject, with reasons.

Reconstruction measures and flags; `rules` reads its measurements. The weight of a view says how far
training may trust it.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "rules": ["FLAG_TEXT", "judge_person", "judge_view", "refusal", "resolution"],
    },
)
