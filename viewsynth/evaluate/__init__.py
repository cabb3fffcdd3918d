# SPDX-License-Identifier: Apache-2.0
"""Evaluate: features and protocols in, results out.

- `features`: features of a data set, extracted by an encoder or read from a file.
- `protocols`: which retrieval tasks a data set offers.
- `scoring`: results of a protocol, tables and leaderboard rows.
- `submission`: the answers of the AG-ReID 2023 challenge.
- `probe`: a linear probe that tries to distinguish synthetic from real images.
- `compare`: training arms against each other over seeds, with intervals.
- `fidelity`: synthetic views against the true ones of a world.
"""

from __future__ import annotations

from viewsynth.runtime.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "features": ["Features"],
        "protocols": ["select"],
        "scoring": ["rank", "result", "table"],
    },
)
