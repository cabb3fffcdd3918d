# SPDX-License-Identifier: Apache-2.0
"""Average query expansion, image by image."""

from __future__ import annotations

import numpy as np
import pytest

from viewsynth import metrics
from viewsynth.metrics import expansion


@pytest.mark.parametrize("count", [1, 3, 99])
def test_expanded_features(monkeypatch, count):
    monkeypatch.setattr(expansion, "BLOCK", 4)
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(5, 8)), rng.normal(size=(9, 8))
    rows = np.concatenate([query, gallery])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = []
    for row in rows:
        cosines = rows @ row
        nearest = sorted(range(len(rows)), key=lambda n: -cosines[n])[:count]
        expected.append(sum(max(cosines[n], 0) ** expansion.POWER * rows[n] for n in nearest))
    found = np.concatenate(metrics.expand(query, gallery, count))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
