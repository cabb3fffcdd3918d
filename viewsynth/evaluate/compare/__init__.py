# SPDX-License-Identifier: Apache-2.0
"""Compare: arms of training against each other over seeds, with intervals.

`runs` reads the outputs of `evaluate` for every arm and seed, `resampling` resamples seeds and
people, `summary` computes means, differences and gap closures, `table` and `plots` show them.

An arm is a way of training, e.g. "a" (ground images only). Three arms have a role: the *floor* and
the *ceiling*, between which there is something to gain, and the *treated* arm, which is under test.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "runs": ["Runs", "read"],
        "summary": ["Roles"],
        "table": ["markdown"],
    },
)
