# SPDX-License-Identifier: Apache-2.0
"""Numbers of photos and of target cameras are matched."""

from __future__ import annotations

import pytest

from viewsynth.diffusion.photo import broadcast


def test_photos_and_cameras_are_broadcast():
    assert broadcast(1, [10, 20], 90) == ([0, 0], [10, 20], [90, 90])
    assert broadcast(2, 10, [0, 90]) == ([0, 1], [10, 10], [0, 90])
    assert broadcast(1, 10, 0, 3) == ([0, 0, 0], [10] * 3, [0] * 3)
    with pytest.raises(ValueError, match="2 photos, 3 elevations"):
        broadcast(2, [1, 2, 3], 0)
