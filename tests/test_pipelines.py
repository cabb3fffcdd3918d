# SPDX-License-Identifier: Apache-2.0
"""Plans of the pipelines: their commands accept every line, and arms differ in their data only."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from viewsynth import commands, config
from viewsynth.reid import methods

ROOT = Path(__file__).parents[1]
SCORES = {"real": 0.20, "views": 0.23, "single": 0.18}
PRESETS = sorted((ROOT / "configs" / "benchmark").glob("*.yaml"))
SD_REID = sorted((ROOT / "configs" / "sd_reid").glob("*.yaml"))


@pytest.fixture(scope="module")
def benchmark():
    """Pipelines are programs, not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "pipelines"))
        yield importlib.import_module("benchmark")


@pytest.fixture(scope="module")
def of_methods():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "pipelines"))
        yield importlib.import_module("methods")


def planned(benchmark, *argv: str):
    return benchmark.plan(config.parse(benchmark.Config, [*map(str, argv)], "benchmark.py"))


def parsed(line: list[str]):
    """The configuration that a command line gives."""
    return parsed_once(*line)


@functools.cache
def parsed_once(name: str, *options: str):
    assert name in commands.names()
    command = importlib.import_module(f"viewsynth.commands.{name.replace('-', '_')}")
    if options and options[0].endswith("drone.yaml"):  # written by a command before
        options = options[1:]
    return config.parse(command.Config, [*options], name)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_commands_accept_every_line(benchmark, preset):
    first, chains, last = planned(benchmark, preset)
    assert [line[0] for line in first][:2] == ["world", "generate"]
    for line in [*first, *(line for chain in chains for line in chain), last]:
        parsed(line)
    for made, *lines in chains:  # the trained model is evaluated and probed
        model = parsed(made).output / "model"
        assert [Path(parsed(line).model.path) for line in lines if line[0] == "evaluate"] == [model]
        assert {parsed(line).model for line in lines if line[0] == "probe"} <= {str(model)}
    tested = {parsed(chain[1]).output for chain in chains}
    asked = parsed(last)
    seeds = config.parse(benchmark.Config, [str(preset)]).seeds
    assert tested == {asked.results / arm / f"seed{seed}" for arm in asked.arms for seed in seeds}
    assert {asked.floor, asked.ceiling, asked.treated} <= set(asked.arms)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_arms_differ_in_their_data_only(benchmark, preset):
    first, chains, _ = planned(benchmark, preset)
    trained = [parsed(chain[0]) for chain in chains]
    own = {"views", "synthetic", "weight", "per_person", "repeat", "share", "added"}
    for one in trained:
        allowed = {f"data.{key}" for key in own} | {"output", "seed"}
        allowed |= {"augment.degrade", "augment.perspective", "pictures"}
        if preset.stem == "small_osnet":
            allowed.add("optim.rate")  # of the untouched network
        found = config.differences(config.to_dict(trained[0]), config.to_dict(one))
        assert {key for key, _, _ in found} <= allowed
        assert one.data.validation == 0 and one.data.root == parsed(first[0]).output
    said = [str(config.to_dict(one) | {"output": None}) for one in trained]
    assert len(set(said)) == len(trained)  # no two arms are equal
    runs = {parsed(line).output: parsed(line) for line in first if line[0] == "generate"}
    used = {run for one in trained for run in one.data.synthetic}
    assert used == set(runs)
    assert all(run.data.root == parsed(first[0]).output for run in runs.values())


def test_the_small_benchmark_is_as_described(benchmark):
    first, chains, last = planned(benchmark, ROOT / "configs/benchmark/small.yaml")
    assert parsed(last).arms == ("a", "c", "e", "f", "g") and len(chains) == 15
    arms = {chain[1][chain[1].index("--method") + 1]: parsed(chain[0]) for chain in chains}
    assert arms["a"].data.views == "ground" and not arms["a"].data.synthetic
    assert arms["c"].augment.degrade == 0.5 and arms["e"].data.synthetic
    assert arms["f"].data.views == "both" and arms["f"].model.size == (128, 64)
    assert arms["g"].data.views == "both" and arms["g"].data.synthetic
    assert [[line[0] for line in chain] for chain in chains[:2]] == [
        ["train", "evaluate", "probe"],
        ["train", "evaluate"],
    ]


def test_all_small_arms_reuse_the_runs_of_small(benchmark):
    first, chains, _ = planned(benchmark, ROOT / "configs/benchmark/small.yaml")
    more, arms, _ = planned(benchmark, ROOT / "configs/benchmark/small_all.yaml")
    assert all(line in more for line in first) and all(chain in arms for chain in chains)
    _, full, _ = planned(benchmark, ROOT / "configs/benchmark/full.yaml")
    assert [chain[1][-1] for chain in arms] == [chain[1][-1] for chain in full]


def test_added_images_have_a_control_of_equal_batches(benchmark):
    _, small, _ = planned(benchmark, ROOT / "configs/benchmark/small.yaml")
    for name in ("small_added", "small_vit"):
        _, chains, _ = planned(benchmark, ROOT / f"configs/benchmark/{name}.yaml")
        arms = {chain[1][chain[1].index("--method") + 1]: parsed(chain[0]) for chain in chains}
        added, control = arms["g-six"], arms["f-six"]
        assert added.pictures + added.data.added == control.pictures and added.data.share == 0
        shared = [chain for chain in chains if chain in small]
        assert len(shared) == (12 if name == "small_added" else 0)


def test_the_repair_arms_reuse_the_runs_of_small(benchmark):
    first, chains, _ = planned(benchmark, ROOT / "configs/benchmark/small.yaml")
    more, arms, _ = planned(benchmark, ROOT / "configs/benchmark/small_repair.yaml")
    assert more[:2] == first and len(more) == 3 and len(arms) == 12
    plain, repaired = parsed(first[1]), parsed(more[2])
    assert repaired.refine.engine == "bundled" and plain.output != repaired.output
    assert replace(repaired, refine=plain.refine, output=plain.output) == plain
    assert [chain for chain in arms if "e-repaired" not in chain[1]] == [
        chain for chain in chains if chain[1][chain[1].index("--method") + 1] in "aef"
    ]
    learns = [parsed(chain[0]) for chain in arms if "e-repaired" in chain[1]]
    assert [made.data.synthetic for made in learns] == [(repaired.output,)] * 3


def test_the_matched_arm_reuses_the_runs_of_small(benchmark):
    first, chains, _ = planned(benchmark, ROOT / "configs/benchmark/small.yaml")
    more, arms, _ = planned(benchmark, ROOT / "configs/benchmark/small_look.yaml")
    assert more[:2] == first and [line[0] for line in more[2:]] == ["match", "generate"]
    match, made = parsed(more[2]), more[3]
    assert match.aerial == parsed(first[0]).output and match.data.name == "world"
    assert Path(made[1]) == match.output  # the preset comes first
    matched, plain = parsed(made), parsed(first[1])
    assert replace(matched, output=plain.output) == plain != matched
    learns = [parsed(chain[0]) for chain in arms if "e-matched" in chain[1]]
    assert [one.data.synthetic for one in learns] == [(matched.output,)] * 3
    assert [chain for chain in arms if "e-matched" not in chain[1]] == [
        chain for chain in chains if chain[1][chain[1].index("--method") + 1] in "aef"
    ]


def test_the_arm_of_rules_differs_in_completion_only(benchmark):
    first, chains, _ = planned(benchmark, ROOT / "configs/benchmark/small.yaml")
    more, arms, _ = planned(benchmark, ROOT / "configs/benchmark/small_complete.yaml")
    assert more[:2] == first and len(more) == 3
    plain, rules = parsed(first[1]), parsed(more[2])
    assert rules.reconstruct.complete == "rules" != plain.reconstruct.complete
    assert replace(rules, reconstruct=plain.reconstruct, output=plain.output) == plain
    assert [chain for chain in arms if "e-rules" not in chain[1]] == [
        chain for chain in chains if chain[1][chain[1].index("--method") + 1] in "aef"
    ]


def test_options_and_data_of_the_user(benchmark, tmp_path):
    preset = ROOT / "configs/benchmark/full.yaml"
    root, out = tmp_path / "my data", tmp_path / "my runs"
    options = ("--train.data.name", "cargo", "--train.data.root", root, "--output", out)
    first, chains, _ = planned(benchmark, preset, *options, "--train.steps", 7, "--seeds", 5)
    assert [line[0] for line in first] == ["generate", "generate"]
    single = parsed(first[1])
    assert (single.data.per_person, single.data.name, single.data.root) == (1, "cargo", root)
    for chain in chains:
        made = parsed(chain[0])
        assert (made.steps, made.seed, made.data.root) == (7, 5, root)
        assert made.output.is_relative_to(out)
        assert all(run.is_relative_to(out) for run in made.data.synthetic)


def test_all_commands_read_the_data_alike(benchmark, tmp_path):
    preset = ROOT / "configs/benchmark/full.yaml"
    options = ("--train.data.root", tmp_path, "--train.data.box", "xywh")
    first, chains, _ = planned(benchmark, preset, *options, "--train.data.elevation", "pitch")
    for line in [*first, *(line for chain in chains for line in chain)]:
        read = parsed(line).data
        assert (read.form, read.box, read.elevation) == ("auto", "xywh", "pitch")


@pytest.mark.parametrize(
    "options", [("--arms", "a: x: y"), ("--arms", "a", "e", "f"), ("--seeds",), ("--jobs", "0")]
)
def test_invalid_benchmarks_are_refused(benchmark, capsys, options):
    with pytest.raises(SystemExit) as ended:
        planned(benchmark, ROOT / "configs/benchmark/small.yaml", *options)
    assert ended.value.code == 2 and capsys.readouterr().err.startswith("benchmark.py: error: ")


def test_a_command_that_fails_ends_the_chain(benchmark, tmp_path, capfd):
    nothing = ["report", str(tmp_path)]
    assert benchmark.follow([nothing, nothing]) == 2
    said = capfd.readouterr().err
    assert said.count("$ viewsynth report") == 1 and "viewsynth report: error" in said
    assert sys.modules["benchmark"] is benchmark


# ---- SD-ReID -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sd_reid(benchmark):
    return importlib.import_module("sd_reid")


@pytest.mark.parametrize("preset", SD_REID, ids=lambda path: path.stem)
def test_stages_follow_each_other(sd_reid, preset):
    own = preset.stem in ("small", "full")
    root = [] if own else ["--train.data.root", "DIR"]
    asked = config.parse(sd_reid.Config, [str(preset), *root], "sd_reid.py")
    before, chains, last = sd_reid.plan(asked)
    assert [line[0] for line in before] == (["world", "generate"] if own else [])
    assert len(chains) == len(asked.seeds) * len(asked.data)
    for chain in chains:
        lines = [(line[0], parsed(line)) for line in chain]
        trained = [one.output for name, one in lines if name == "train"]
        assert lines[0][1].model.method == "sd_reid"
        for name, one in lines:
            if name == "train-sd-reid":
                assert one.stage1 == trained[0] and one.seed == lines[0][1].seed
                assert one.generator.times >= one.sampler.steps
        tests = [one for name, one in lines if name == "evaluate"]
        models = {one.output / "model" for name, one in lines if name.startswith("train")}
        assert models == {Path(one.model.path) for one in tests if one.model.path}
        made = [one for one in tests if one.features]
        assert {one.part for one in made} == {"generated"} and len(made) == len(asked.stages)
        fused = {one.output for one in tests if one.model.path}
        assert {one.features.parent for one in made} <= fused
    told = parsed(last)
    tested = {parsed(line).output for chain in chains for line in chain if line[0] == "evaluate"}
    assert tested == {told.results / a / f"seed{s}" for a in told.arms for s in asked.seeds}
    assert told.floor.startswith("stage1") and told.ceiling == ""


def test_invalid_comparisons_are_refused(sd_reid, capsys):
    for options in (["--first"], ["--data", "real"], ["--seeds"], ["--train.data.name", "cargo"]):
        with pytest.raises(SystemExit) as ended:
            config.parse(sd_reid.Config, options, "sd_reid.py")
        assert ended.value.code == 2 and "sd_reid.py: error: " in capsys.readouterr().err


def test_methods_differ_in_nothing_else(of_methods, tmp_path):
    preset = ROOT / "configs/methods/small.yaml"
    first, chains, last = planned(of_methods, preset, "--output", tmp_path)
    assert [line[0] for line in first] == ["world", "generate"]
    assert len(chains) == 3 * 3 * len(methods.names()) and len(last) == len(methods.names())
    for line in [*first, *(line for chain in chains for line in chain), *last]:
        parsed(line)
    trained = [parsed(chain[0]) for chain in chains]
    allowed = {"model.method", "model.backbone", "data.views", "data.synthetic", "output", "seed"}
    for one in trained:
        found = config.differences(config.to_dict(trained[0]), config.to_dict(one))
        assert {key for key, _, _ in found} <= allowed
        text = "text" in methods.needs(one.model.method)
        assert one.model.backbone == ("small_clip" if text else "small_vit")
    views = [one for one in trained if one.data.synthetic]
    assert {one.data.synthetic for one in views} == {(parsed(first[1]).output,)}
    assert len({one.output for one in trained}) == len(trained)


def test_methods_on_a_pretrained_backbone(of_methods, tmp_path):
    preset = ROOT / "configs/methods/small_osnet.yaml"
    _, chains, _ = planned(of_methods, preset, "--train.model.backbone", "osnet")
    trained = [parsed(chain[0]) for chain in chains]
    assert len(trained) == 2 * len({one.model.method for one in trained})
    assert {one.model.backbone for one in trained} == {"osnet"}
    assert all("text" not in methods.needs(one.model.method) for one in trained)


def test_the_table_of_methods(of_methods, tmp_path):
    asked = config.parse(of_methods.Config, ["--methods", "vdt", "--output", str(tmp_path)], "m")
    arms = [{"arm": name, "mAP": [v, v - 0.01, v + 0.01]} for name, v in SCORES.items()]
    gains = [
        {"one": one, "other": other, "mAP": [SCORES[one] - SCORES[other], -0.01, 0.02]}
        for one in SCORES
        for other in SCORES
        if one != other
    ]
    tasks = [{"protocol": "A->G", "arms": [], "differences": []}]
    tasks += [{"protocol": "A<->G", "arms": arms, "differences": gains}]
    (tmp_path / "compare/vdt").mkdir(parents=True)
    told = json.dumps({"tasks": tasks, "seeds": [0, 1]})
    (tmp_path / "compare/vdt/table.json").write_text(told)
    every = of_methods.found(asked)
    assert of_methods.plots.rows(every, asked.settings).startswith(b"\x89PNG")
    head, rule, row = of_methods.table(asked, every).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|")
    assert row.startswith(
        "| vdt | released code | 2 | 20.0 [19.0, 21.0] | 23.0 [22.0, 24.0] | 3.0 [-1.0"
    )
    assert "| 18.0 [17.0, 19.0] | -2.0 [-1.0, 2.0] |" in row
