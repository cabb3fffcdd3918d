# SPDX-License-Identifier: Apache-2.0
"""Revisions of the world: old ones keep their images, unknown ones are refused."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from viewsynth import config
from viewsynth.commands import train, world
from viewsynth.world import people, revisions, rig, sensor, shots
from viewsynth.world.rows import person_row

# Mean colour of shots of revision 1, as it was rendered when it was the newest, seed 0.
FIRST = {
    0: (0, (103.15, 104.94, 105.5)),
    1: (2, (126.54, 110.46, 93.24)),
    5: (3, (112.83, 112.57, 120.25)),
}
PEOPLE = "76ebf823f74aa6c0d0b4084a2df3632c20f8740cf2da85e545ffb6bf9b84c20a"


def test_an_unknown_revision_is_refused_before_any_work(tmp_path):
    for number in (0, revisions.NEWEST + 1):
        with pytest.raises(ValueError, match=f"revision must be one of 1, 2; got {number}"):
            world.Config(revision=number, output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_revision_is_refused_in_the_folder_of_a_world(tmp_path):
    one = {"people": 1, "images_per_person": 1, "instants": 0, "workers": 1, "chunk": 1}
    assert world.run(world.Config(**one, revision=1, output=tmp_path)) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    with pytest.raises(ValueError, match="revision: 1 there, 2 now"):
        world.run(world.Config(**one, output=tmp_path))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.jpg")}
    assert json.loads((tmp_path / "world.json").read_text())["settings"]["revision"] == 1


def test_a_world_of_another_revision_is_refused_by_a_run_that_was_begun(tmp_path):
    size = {"people": 4, "images_per_person": 4, "instants": 0, "workers": 1}
    root, output = tmp_path / "world", tmp_path / "run"
    argv = ["--data.name", "world", "--data.root", root, "--model.backbone", "small"]
    argv += ["--model.size", 32, 16, "--people", 2, "--pictures", 2, "--steps", 2, "--every", 1]
    argv += ["--data.validation", 0, "--device", "cpu", "--output", output]
    argv += ["--cache", tmp_path / "cache"]
    asked = config.parse(train.Config, [str(token) for token in argv], "train")
    world.run(world.Config(**size, revision=1, output=root))
    assert train.run(asked) == 0
    shutil.rmtree(root)
    world.run(world.Config(**size, output=root))
    with pytest.raises(ValueError, match="changed .*Cam"):
        train.run(asked)


def test_revision_1_renders_what_it_always_did():
    for number, (index, mean) in FIRST.items():
        shot = rig.plan(0, number, index + 1, revision=1)[index]
        image = shots.render_shot(0, number, shot).image
        np.testing.assert_allclose(image.mean((0, 1)), mean, atol=0.6)


def test_revision_1_has_the_same_people():
    neutral = ("seams", "crease", "quilt")

    def plain(row):
        if isinstance(row, dict):
            return {key: plain(item) for key, item in row.items() if key not in neutral}
        return [plain(item) for item in row] if isinstance(row, list) else row

    rows = [plain(person_row(people.identity(0, number, 1))) for number in range(40)]
    assert hashlib.sha256(json.dumps(rows).encode()).hexdigest() == PEOPLE


def test_each_rig_has_cameras_of_all_kinds():
    for seed in range(4):
        lenses = [rig.lens(seed, number) for number in range(6, 11)]
        (low, high), bright = sensor.RANGES[2]["sharp"][1], [np.mean(one.gain) for one in lenses]
        fifths = {int(5 * (one.sharp - low) / (high - low)) for one in lenses}
        assert fifths == set(range(5)) and max(bright) > 1.6 * min(bright)
    assert rig.lens(0, 7) == rig.lens(0, 7) != rig.lens(1, 7)
    assert rig.lens(0, 7, 1).room == 0 != rig.lens(0, 7).room


def test_both_revisions_show_the_same_moments():
    first, second = (rig.plan(3, 1, 4, revision) for revision in (1, 2))
    assert [shot.name for shot in first] == [shot.name for shot in second]
    assert [shot.revision for shot in first + second] == [1] * 4 + [2] * 4
