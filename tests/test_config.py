# SPDX-License-Identifier: Apache-2.0
"""Dataclass, YAML and flags: one grammar, errors of one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viewsynth import commands, config
from viewsynth.commands import generate, train
from viewsynth.reid import methods

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Group:
    """A group."""

    numbers: tuple[float, ...] | None = None
    pair: tuple[float, float] = (25.0, 90.0)
    crops: Literal["auto", "yes", "no"] = "auto"
    on: bool = False

    def __post_init__(self):
        config.check_range("group.pair", self.pair[0], 0, 90, "degrees")


@dataclass(frozen=True)
class Example:
    """An example."""

    group: Group = field(default_factory=Group)
    root: Path | None = None
    text: str = ""
    seed: int = 0
    on: bool = False


def refused(capsys, *argv, cls=Example) -> str:
    """The one-line error of a refused command line."""
    with pytest.raises(SystemExit) as ended:
        config.parse(cls, [*map(str, argv)], "prog")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("prog: error: ") and said.count("\n") == 1
    return said


def preset(folder: Path, text: str, name: str = "preset.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_later_wins(tmp_path):
    one = preset(tmp_path, "seed: 1\ngroup: {numbers: [1, 2], on: true}\n", "one.yaml")
    two = preset(tmp_path, "seed: 2\ngroup:\n  crops: no\n", "two.yml")
    got = config.parse(Example, [str(one), str(two), "--group.numbers", "-5", "1e-3"], "prog")
    assert got == Example(Group(numbers=(-5.0, 0.001), crops="no", on=True), seed=2)
    assert config.parse(Example, [str(one), "--no-on", "--group.no-on"]).group.on is False


def test_defaults_and_empty_presets(tmp_path):
    assert config.parse(Example, []) == Example()
    assert config.parse(Example, [str(preset(tmp_path, "# nothing\n"))]) == Example()
    assert config.parse(Example, [str(preset(tmp_path, "group:\n"))]) == Example()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--group.number", "1"], ["--group.number", "did you mean --group.numbers"]),
        (["--pair", "1", "2"], ["did you mean --group.pair"]),
        (["--xyzzy"], ["--xyzzy", "there are --group.numbers"]),
        (["--seed", "1.5"], ["--seed must be a whole number; got 1.5"]),
        (["--group.crops", "maybe"], ["one of auto, yes, no; got maybe"]),
        (["--group.pair", "1"], ["--group.pair must be 2 numbers; got 1"]),
        (["--group.pair", "100", "2"], ["group.pair must be in [0, 90] degrees, got 100"]),
        (["--group.pair", "nan", "2"], ["group.pair must be in [0, 90] degrees, got nan"]),
        (["--root"], ["--root must be a path or None; got nothing"]),
        (["stray"], ["stray"]),
        (["--group.numbers", "3", "late.yaml"], ["presets come before the options"]),
    ],
)
def test_refusals_of_flags(capsys, argv, words):
    said = refused(capsys, *argv)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("group: {number: 1}", ["preset.yaml", "group.number", "did you mean group.numbers"]),
        ("seeds: 1", ["did you mean seed"]),
        ("seed: [1, 2]", ["--seed must be a whole number; got 1 2"]),
        ("seed: {a: 1}", ["seed must be a value or a list"]),
        ("seed: 1\nseed: 2", ["given twice"]),
        ("a: &x [1]\nb: *x", ["aliases are not allowed"]),
        ("seed: !!python/object/apply:os.system [ls]", ["not plain YAML"]),
        ("- 1\n- 2", ["must be `key: value` lines, got a list"]),
        ("[" * 5000, ["not plain YAML"]),
        ("x" * (1 << 21), ["must have at most 1048576 bytes"]),
        ("group: 5", ["group"]),
    ],
)
def test_refusals_of_presets(capsys, tmp_path, text, words):
    said = refused(capsys, preset(tmp_path, text))
    assert all(word in said for word in words), said


def test_missing_preset(capsys, tmp_path):
    assert "does not exist" in refused(capsys, tmp_path / "none.yaml")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: text not in ("None", "none")
)
numbers = st.floats(0, 90, allow_subnormal=False)


@settings(deadline=None, max_examples=60)
@given(
    group=st.builds(
        Group,
        numbers=st.none() | st.lists(st.floats(-1e9, 1e9), max_size=4).map(tuple),
        pair=st.tuples(numbers, numbers),
        crops=st.sampled_from(["auto", "yes", "no"]),
        on=st.booleans(),
    ),
    text=texts,
    seed=st.integers(-(2**62), 2**62),
    on=st.booleans(),
)
def test_round_trip(tmp_path_factory, group, text, seed, on):
    before = Example(group=group, text=text, seed=seed, on=on, root=Path("a b/ä"))
    path = preset(tmp_path_factory.mktemp("preset"), config.dump(before))
    assert config.parse(Example, [str(path)], "prog") == before


def test_differences():
    a = config.to_dict(Example(seed=1))
    b = config.to_dict(Example(Group(crops="no"), seed=2))
    assert config.differences(a, a) == []
    assert config.differences(a, b) == [("group.crops", "auto", "no"), ("seed", 1, 2)]
    assert config.differences({}, {"new": 1}) == [("new", None, 1)]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--views.sample", "4", "--views.elevations", "30"],
            ["give either it or views."],
        ),
        (["--views.sample", "0"], ["views.sample must be in [1, 10000], got 0"]),
        (["--views.elevations", "91"], ["views.elevations must be in [0, 90] degrees, got 91"]),
        (["--views.elevations"], ["views.elevations must have at least one value"]),
        (["--views.range", "60", "30"], ["views.range must go from low to high"]),
        (["--chunk", "0"], ["chunk must be in [1, 10000], got 0"]),
        (["--pose.mode", "run"], ["one of fitted, relaxed, walk; got run"]),
        (["--data.crop", "yes"], ["did you mean --data.crops"]),
    ],
)
def test_refusals_of_generate(capsys, argv, words):
    said = refused(capsys, *argv, cls=generate.Config)
    assert all(word in said for word in words), said


def test_example_of_the_readme(tmp_path):
    got = config.parse(
        generate.Config,
        [
            "--data.root",
            "x",
            "--data.crops",
            "yes",
            "--views.elevations",
            "30",
            "60",
            "90",
            "--views.azimuths",
            "0",
            "180",
            "--output",
            "out",
            "--seed",
            "0",
            "--retry-failed",
        ],
    )
    assert got.views.elevations == (30, 60, 90) and got.data.crops == "yes" and got.retry_failed
    assert len(got.views.names()) == 6


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_preset_parses(path):
    config.parse(generate.Config, [str(path)], "prog")


RECIPES = sorted((ROOT / "configs/methods").glob("*/*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_recipe_is_that_of_its_method(path):
    asked = config.parse(train.Config, [str(path)], "prog")
    assert (asked.model.method, asked.data.name) == (path.parent.name, path.stem)
    text, figures = path.read_text("utf-8"), methods.published(path.parent.name)[path.stem]
    for protocol, values in figures.items():
        assert f"{protocol} {values[0]:.2f} / {values[1]:.2f}" in text


@pytest.mark.parametrize("name", commands.names())
def test_every_command_has_a_summary_and_help(name, capsys):
    assert commands.summary(name).endswith(".")
    with pytest.raises(SystemExit) as ended:
        commands.main(name, ["--help"])
    assert ended.value.code == 0 and f"viewsynth {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (
            train,
            "--data.root a/b --data.synthetic x y --model.size 64 32 --cache None --seed 3 "
            "--optim.rate 1e-3 --data.per-person 3 --data.weight none",
        ),
        (generate, "--views.azimuths -30 0 --retry-failed --views.range 10 20 --report no"),
    ],
)
def test_flags_are_read_back(command, asked):
    one = config.parse(command.Config, asked.split(), "prog")
    assert config.flags(command.Config()) == []
    assert config.parse(command.Config, config.flags(one), "prog") == one
    assert len(config.flags(one)) == len(asked.split())
