# SPDX-License-Identifier: Apache-2.0
"""The benchmark of memory banks, with few images, in this process."""

from __future__ import annotations


def test_what_is_measured(benchmarks):
    module = benchmarks("memory_banks")
    for name in ("pdpa", "uagrpg"):
        kept, growth, seconds = module.measure(name, 400, 32)
        assert 0 < kept < 10 and growth >= 0 and seconds > 0
