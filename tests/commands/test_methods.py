# SPDX-License-Identifier: Apache-2.0
"""`viewsynth methods`: every method is listed, with costs where it fits the backbone."""

from __future__ import annotations

import pytest
import tiny_people

from viewsynth import config
from viewsynth.commands import evaluate, methods, train
from viewsynth.reid import methods as known


def listed(capsys, *argv: str) -> tuple[list[str], dict[str, list[str]]]:
    """Head of the printed table, and its rows by method."""
    assert methods.run(config.parse(methods.Config, list(argv), "methods")) == 0
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    )
    return head, {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("backbone", ["small", "small_vit", "small_clip"])
def test_costs(capsys, tmp_path, backbone):
    file = tmp_path / "table.md"
    argv = ["--backbone", backbone, "--size", "32", "16", "--batch", "16", "--rounds", "0"]
    head, rows = listed(capsys, *argv, "--output", str(file))
    assert list(rows) == known.names() and head[-1] == "GFLOPs"
    assert file.read_text().count("\n") == len(rows) + 2
    flops = float(rows["baseline"][-1])
    for name, row in rows.items():
        needs = known.needs(name)
        assert row[:3] == [known.known(name), ", ".join(needs) or "-", known.told(name) or "-"]
        if row[-1] == "-":  # only methods that need tokens or a text side do not fit
            assert backbone == "small" or ("text" in needs and backbone == "small_vit")
        else:
            assert 0.9 * flops <= float(row[-1]) and 1 < float(row[-2]) < 20
    assert rows["visa"][2] == "view"


def test_times_are_over_the_baseline(capsys):
    argv = ["--names", "secap", "--size", "32", "16", "--batch", "16", "--rounds", "1"]
    head, rows = listed(capsys, *argv)
    assert head[-5:] == list(methods.TIMES) and list(rows) == ["secap"]
    assert all(float(cell) > 0 for cell in rows["secap"][-5:])


def test_published_figures(capsys):
    head, rows = listed(capsys, "--published", "cargo")
    assert rows["vdt"][head.index("ALL") - 1] == "64.10 / 55.20" and "agid" not in rows
    with pytest.raises(ValueError, match="no figures are known of 'mine'; there are some of ag_"):
        listed(capsys, "--published", "mine")
    with pytest.raises(ValueError, match="method must be one of"):
        listed(capsys, "--names", "none")


def test_what_a_model_is_told_stands_in_its_results(tmp_path, capsys):
    root = tiny_people.cargo(tmp_path / "CARGO", 6)
    data = ["--data.name", "cargo", "--data.root", str(root), "--device", "cpu"]
    argv = ["--model.method", "visa", "--model.backbone", "small_vit", "--model.size", "32", "16"]
    argv += ["--people", "3", "--pictures", "2", "--steps", "2", "--data.validation", "0.4"]
    argv += ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "run")]
    assert train.run(config.parse(train.Config, [*data, *argv], "train")) == 0
    argv = ["--model.path", str(tmp_path / "run/model"), "--output", str(tmp_path / "found")]
    assert evaluate.run(config.parse(evaluate.Config, [*data, *argv], "evaluate")) == 0
    assert "told the view of every image: ground, aerial" in capsys.readouterr().out
    assert '"told": "view"' in (tmp_path / "found/results.json").read_text()
