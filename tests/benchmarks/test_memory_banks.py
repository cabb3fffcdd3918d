# SPDX-License-Identifier: Apache-2.0
"""The benchmark of memory banks, with few images."""

from __future__ import annotations


def test_table(benchmarks, capsys):
    module = benchmarks("memory_banks")
    assert module.main(["--images", "400", "--width", "32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "400 images, features of 32"
    for line, name in zip(lines[4:], ("pdpa", "uagrpg"), strict=True):
        cells = line.strip("| ").split(" | ")
        assert cells[0] == name and all(float(cell) >= 0 for cell in cells[1:])
