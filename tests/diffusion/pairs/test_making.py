# SPDX-License-Identifier: Apache-2.0
"""Pairs of one person of a world: exact and identity pairs, interruptions, bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from viewsynth import data, reconstruct
from viewsynth.data import world as world_layout
from viewsynth.data.layout import looks_like
from viewsynth.diffusion.conditions import relative_azimuth
from viewsynth.diffusion.pairs import exact, identity, making, stored
from viewsynth.diffusion.pairs.pair import camera, nearest
from viewsynth.diffusion.pairs.stored import Pairs
from viewsynth.runtime.fingerprint import RECORD
from viewsynth.runtime.images import resized
from viewsynth.world import truth

SIZE = (64, 32)


@pytest.fixture(scope="module")
def world(instant, tmp_path_factory):
    """One person at one instant, as two training people and a test person."""
    images, person, rows = instant
    folder = shutil.copytree(images, tmp_path_factory.mktemp("pairs") / "world")
    splits = {"0001": "train", "0003": "train", "0005": "test"}
    people = [{**person, "pid": pid, "split": split} for pid, split in splits.items()]
    every = [{**row, "pid": pid} for pid in splits for row in rows]
    for name, some in (("people.jsonl", people), ("truth.jsonl", every)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    return folder


@pytest.fixture(scope="module")
def one_by_one():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "CHUNK", 1)
        yield


@pytest.fixture(scope="module")
def undisturbed(world, tools, one_by_one, tmp_path_factory):
    """Both training people, in this process, the second one first."""
    job = making.claim_output(world, tmp_path_factory.mktemp("pairs") / "whole", SIZE, "train", 0)
    every = making.chunks(exact.plan(world, None, 0, "train"))
    assert [chunk.name for chunk in every] == ["0001", "0003"]
    for chunk in reversed(every):
        making.do(chunk, job, tools)
    making._finish(job, every)
    return job.output


def test_the_person_is_rendered_where_the_target_shows_it(undisturbed):
    found = Pairs.open(undisturbed)
    assert len(found) == 6 and {row["kind"] for row in found.rows} == {"exact"}
    conditions, target, mask = found.batch(range(6))
    conditions.check(SIZE)
    body = conditions.normals.norm(dim=1, keepdim=True) > 0.4
    true = mask > 0.5
    iou = (body & true).sum((1, 2, 3)) / (body | true).sum((1, 2, 3))
    assert float(iou.mean()) > 0.65 and float(iou.min()) > 0.5
    assert (conditions.seen[~(conditions.normals.abs().sum(1, keepdim=True) > 0)] == 0).all()
    apart = (conditions.render - target).abs().mean(1, keepdim=True)
    assert float(apart[true].mean()) < 0.2


@pytest.mark.slow
def test_rows_hold_the_cameras(world, undisturbed, tools):
    """The true camera of the target, and the fitted one of the photo, as in `generate`."""
    rows = {row["file_name"]: row for row in map(json.loads, (world / "truth.jsonl").open())}
    for row in Pairs.open(undisturbed).rows:
        true, photo = rows[row["target"]], rows[row["photo"]]
        ground = [r for r in rows.values() if r["view"] == "ground"]
        chosen = [photo] if row["photos"] == 1 else ground
        images = [truth.read(world, r).image for r in chosen]
        (outcome,) = reconstruct.reconstruct(
            [[truth.sample(world, r) for r in chosen]], [images], tools
        )
        sources = {one["file"]: one for one in outcome.person.sources}
        gaps = {
            k: abs(relative_azimuth(true["azimuth"], one["azimuth"])) for k, one in sources.items()
        }
        assert gaps[row["photo"]] == min(gaps.values())
        fitted = sources[row["photo"]]
        expected = [
            true["elevation"],
            fitted["elevation"],
            relative_azimuth(true["azimuth"], fitted["azimuth"]),
            true["distance"],
            true["width"] / true["height"],
        ]
        assert row["camera"] == pytest.approx(expected, abs=0.1)  # the fit, in another batch
        assert row["elevation"] == row["camera"][0] and row["split"] == "train"
        assert photo["view"] == "ground" and true["view"] == "aerial"


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_bytes(world, one_by_one, undisturbed, tmp_path):
    """An interruption leaves a part, a shard without its part, a half-written file, no index."""
    output = tmp_path / "killed"
    job = making.claim_output(world, output, SIZE, "train", 0)
    chunk = making.chunks(exact.plan(world, None, 0, "train"))[0]
    copied(chunk, undisturbed, job)
    (output / stored.SHARDS / "0003.safetensors").write_bytes(b"half")
    (output / stored.SHARDS / ".tmp-1").write_bytes(b"half")
    with pytest.raises(ValueError, match="incomplete"):
        Pairs.open(output)
    part = output / making.PARTS / "0001.json"
    before = part.stat().st_mtime_ns
    found = making.make(world, output, SIZE, workers=2)
    assert part.stat().st_mtime_ns == before, "finished chunks are not made again"
    assert content(output) == content(undisturbed)
    assert found.fingerprint == Pairs.open(undisturbed).fingerprint


def copied(chunk, folder, job):
    """A chunk as another folder has it; returns the path of its part."""
    files = making._paths(job, chunk)
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((folder / path.relative_to(job.output)).read_bytes())
    return files[0]


def content(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_other_pairs_in_the_folder_are_refused(world, undisturbed, tmp_path):
    for change, told in (
        ({"size": (32, 16)}, r"another size: \[64, 32\] there, \[32, 16\] now"),
        ({"seed": 1}, "another seed"),
        ({"split": "test"}, "another split"),
    ):
        with pytest.raises(ValueError, match=told):
            making.make(world, undisturbed, **({"size": SIZE} | change))
    other = tmp_path / "other"
    other.mkdir()
    for name in ("people.jsonl", "truth.jsonl"):
        (other / name).write_text((world / name).read_text() + "\n" * (name == "truth.jsonl"))
    (other / "truth.jsonl").write_text((world / "truth.jsonl").read_text()[:-1] + " \n")
    with pytest.raises(ValueError, match="another source"):
        making.make(other, undisturbed, SIZE)
    made = undisturbed / making.MADE
    whole = made.read_text()
    made.write_text(json.dumps(json.loads(whole) | {"code": "old"}))
    with pytest.raises(ValueError, match="another code"):
        making.make(world, undisturbed, SIZE)
    made.write_text(whole)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds other things"):
        making.make(world, tmp_path / "full", SIZE)


def test_bad_arguments(world, tmp_path):
    for change, told in (
        ({"size": (8, 8)}, "size must be in"),
        ({"workers": 0}, "workers must be in"),
        ({"people": 9}, "2 train people"),
        ({"split": "query"}, "split must be train or test"),
    ):
        with pytest.raises(ValueError, match=told):
            making.make(world, tmp_path / "out", **({"size": SIZE} | change))
    with pytest.raises(FileNotFoundError, match="no world"):
        making.make(tmp_path, tmp_path / "out", SIZE)
    assert not (tmp_path / "out").exists()


def test_too_many_faults_fail_and_their_chunks_are_made_again(
    world, undisturbed, tmp_path, one_by_one
):
    job = making.claim_output(world, tmp_path / "out", SIZE, "train", 0)
    every = making.chunks(exact.plan(world, None, 0, "train"))
    for chunk in every:
        path = copied(chunk, undisturbed, job)
    making._finish(job, every)
    told = json.loads(path.read_text())
    told["rejects"] = [{"pid": "0003", "name": "a.jpg", "reason": "broken", "kind": "quality"}]
    path.write_text(json.dumps(told))
    making._finish(job, every)
    assert "broken" in (job.output / making.REJECTS).read_text()
    told["rejects"][0]["kind"] = "fault"
    path.write_text(json.dumps(told))
    with pytest.raises(ValueError, match="1 of 7 images failed, .*a.jpg: broken"):
        making._finish(job, every)
    assert not path.exists() and making.part(job, every[0]), "only that chunk is made again"


# ---- choice of photos and targets ----------------------------------------------------------------


def test_training_people_have_all_drone_images_and_test_people_paired_ones(world, tmp_path):
    rows = [json.loads(line) for line in (world / "truth.jsonl").open()]
    more = [
        {**row, "split": split, "instant": "", "file_name": f"{split}/{row['pid']}_{k}.jpg"}
        for k, row in enumerate(rows)
        if row["view"] == "aerial"
        for split in ("train" if row["pid"] != "0005" else "gallery",)
    ]
    (tmp_path / "people.jsonl").write_text((world / "people.jsonl").read_text())
    (tmp_path / "truth.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + more))
    train, test = (exact.plan(tmp_path, None, 0, split) for split in ("train", "test"))
    assert [(m.pid, len(m.drone)) for m in train] == [("0001", 6), ("0003", 6)]
    assert [(m.pid, len(m.drone)) for m in test] == [("0005", 3)]
    assert exact.plan(tmp_path, 1, 1, "train")[0].pid == "0003"


def test_training_people_have_one_photo_or_all_and_test_people_all(world):
    (moment,) = exact.plan(world, 1, 0, "train")
    first = truth.read(world, moment.drone[0])
    many = [dataclasses.replace(first, row={"file_name": str(k)}) for k in range(400)]
    choices = [exact._choose_photos(one, 2, "train", 0) for one in many]
    share = np.mean([len(photos) == 1 for photos in choices])
    assert 0.4 < share < 0.6 and {(0,), (1,), (0, 1)} == set(choices)
    assert {exact._choose_photos(one, 2, "test", 0) for one in many} == {(0, 1)}


def test_hidden_and_broken_images_are_rejected(world, tools):
    (moment,) = truth.instants(world, 1, split="test")
    first, *_ = moment.drone
    hidden, broken = {**first, "occlusion": 0.6}, {**first, "file_name": "paired/none.jpg"}
    made = exact.make(
        [dataclasses.replace(moment, drone=(hidden, broken))], world, "test", SIZE, tools, 0
    )
    assert not made.pairs
    told = [(reject["kind"], reject["reason"]) for reject in made.rejects]
    assert told[0] == ("quality", "60% of the person is hidden")
    assert told[1][0] == "fault" and "paired/none.jpg" in told[1][1]
    blind = dataclasses.replace(moment, ground=({**moment.ground[0], "file_name": "none.jpg"},))
    made = exact.make([blind], world, "test", SIZE, tools, 0)
    assert not made.pairs and [reject["kind"] for reject in made.rejects] == ["fault"]


def test_angles_and_sizes():
    assert relative_azimuth(10, 350) == 20 and relative_azimuth(350, 10) == -20
    assert nearest(5, [90, 350, 200]) == 1
    picture = np.zeros((40, 20, 3), np.uint8)
    assert camera(60, 10, 25, picture, (5, 350)) == [60, 5, 20, 25, 0.5]
    mask = np.zeros((40, 20), bool)
    mask[:20] = True
    small = resized(mask, (10, 10))
    assert small.shape == (10, 10) and small[:4].min() == 255 and small[6:].max() == 0


# ---- identity pairs ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """The same images as a data set of a user."""
    root = tmp_path_factory.mktemp("folder")
    rows = [json.loads(line) for line in (world / "truth.jsonl").open()]
    with (root / "metadata.jsonl").open("w") as file:
        for row in (row for row in rows if row["pid"] == "0001"):
            name = row["file_name"].replace("/", "_")
            (root / name).write_bytes((world / row["file_name"]).read_bytes())
            told = {"file_name": name, "pid": "p", "view": row["view"], "platform": row["platform"]}
            if row["view"] == "aerial":
                told["elevation"] = row["elevation"]
            file.write(json.dumps(told) + "\n")
    assert not looks_like(root, world_layout.PARTS, world_layout.NAME, 0)
    return data.load("folder", root)


def test_identity_pairs_of_a_users_images(folder, tools, tmp_path):
    """Three images, and one that cannot be read."""
    (subject,) = identity.plan(folder, None, 0, 0)
    assert (len(subject.ground), len(subject.aerial)) == (2, 3)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    broken = dataclasses.replace(
        subject.aerial[0], paths=(tmp_path / "broken.jpg",), name="broken.jpg", elevation=None
    )
    four = dataclasses.replace(subject, aerial=(*subject.aerial, broken))
    made = identity.make([four], SIZE, tools)
    assert len(made.pairs) + len(made.rejects) == 4 and made.pairs
    faults = [reject["name"] for reject in made.rejects if reject["kind"] == "fault"]
    assert faults == ["broken.jpg"]
    arrays, rows = making._rendered(made, "p", SIZE)
    assert "mask" not in arrays and arrays["render"].shape == (len(rows), *SIZE, 3)
    high = {sample.name: sample.elevation for sample in subject.aerial}
    for row, pair in zip(rows, made.pairs, strict=True):
        assert row["kind"] == "identity" and row["split"] == "train"
        assert row["elevation"] == pytest.approx(high[row["target"]], abs=1e-3)
        assert row["photo"] in {sample.name for sample in subject.ground}
        target = pair.target.shape[1] / pair.target.shape[0]
        width, height = 1 / pair.window.intrinsics[0, 0, 0], 1 / pair.window.intrinsics[0, 1, 1]
        assert float(width * SIZE[1] / (height * SIZE[0])) == pytest.approx(target, rel=1e-3)
        share = (arrays["render"][row["place"]] != 128).any(-1).mean()
        assert 0.1 < share < 0.9, "the whole person, with a margin"
        assert math.isfinite(pair.row["misfit"])


def test_the_misfit_finds_the_same_image_in_any_exposure():
    torch.manual_seed(0)
    share = torch.zeros(3, 1, 20, 10)
    share[..., 4:16, 2:8] = 1
    drawn = torch.cat([torch.rand(3, 3, 20, 10) * share, share], 1)
    wanted = torch.rand(20, 10) * (1 - share) + share * (0.3 + 0.4 * drawn[1:2, :3])
    error = identity.misfit(drawn, wanted)
    assert float(error[1]) < 1e-4 and float(error[0]) > 0.5 and float(error[2]) > 0.5


def test_only_training_people_give_identity_pairs(folder, tmp_path):
    with pytest.raises(ValueError, match="query and gallery must not be trained on"):
        making.make(folder, tmp_path / "out", SIZE, split="test")
    held = [dataclasses.replace(sample, split="gallery") for sample in folder.samples]
    with pytest.raises(ValueError, match="0 training people"):
        making.make(dataclasses.replace(folder, samples=held), tmp_path / "out", SIZE)
