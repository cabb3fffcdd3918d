# SPDX-License-Identifier: Apache-2.0
"""Which images are matched to, and what is said of bad ones."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from viewsynth.data import Reading
from viewsynth.match import crops
from viewsynth.match.crops import Crop, NotAerialError
from viewsynth.records import Sample

FRAMING = {"height": 140.0, "width": 80.0, "tall": 120.0, "wide": 60.0}


def some(count: int = 40, seed: int = 0, **values) -> list[Crop]:
    """Crops of one camera with varied lightness, chroma and height."""
    rng, empty = np.random.default_rng(seed), np.zeros((2, 2))
    made = []
    for number in range(count):
        figures = {"look.lightness": rng.normal(50, 8), "look.chroma": rng.uniform(4, 12)}
        framing = FRAMING | {"height": rng.uniform(90, 180)}
        crop = Crop(f"{number}", empty, empty, framing, figures, (80, "4:2:0"))
        made.append(dataclasses.replace(crop, **values))
    return made


def with_look(one: Crop, **look) -> Crop:
    return dataclasses.replace(one, figures=one.figures | {f"look.{k}": v for k, v in look.items()})


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_said_of_one_camera(seed):
    assert crops.remarks(some(seed=seed)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda one: dataclasses.replace(one, compression=(45, "4:2:0")), "JPEG qualities are"),
        (lambda one: dataclasses.replace(one, framing=FRAMING | {"height": 700.0}), "heights"),
        (lambda one: with_look(one, lightness=120.0), "lightness are around"),
    ],
)
def test_mixed_cameras_are_told(change, said):
    rows = some()
    rows = [*rows[:25], *map(change, rows[25:])]
    [remark] = crops.remarks(rows)
    assert said in remark and "--cameras" in remark


def test_few_grey_and_upright_images_are_told():
    assert "only 19 usable images" in crops.remarks(some(19))[0]
    grey = [with_look(one, chroma=0.5) for one in some()]
    assert crops.remarks(grey) == ["40 of 40 images are grey"]
    upright = some(lean=5.0, framing=FRAMING | {"wide": 40.0})
    assert "are these ground images?" in crops.remarks(upright)[0]
    with pytest.raises(NotAerialError, match="median elevation of the cameras is 8 degrees"):
        crops.remarks(some(elevation=8.0))


@pytest.mark.parametrize("count", [20, 50, 200])
def test_two_groups_are_separate_ones(count):
    rng = np.random.default_rng(count)
    for values in (rng.normal(size=count), rng.uniform(size=count), np.ones(count)):
        assert crops.two_groups(values, 1e-3) is None
    apart = np.r_[rng.normal(0, 1, count), rng.normal(9, 1, count)]
    low, high = crops.two_groups(rng.permutation(apart), 1e-3)
    assert abs(low) < 1 and abs(high - 9) < 1


# ---- which images --------------------------------------------------------------------------------


def put(path, side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, 2 * side), (90, 100, 110)).save(path)


def test_a_folder_without_labels_is_aerial(tmp_path):
    for name in ("b.jpg", "a.jpg", "c.jpg"):
        put(tmp_path / name)
    found = crops.samples("folder", tmp_path, Reading())
    assert [one.paths[0].name for one in found] == ["a.jpg", "b.jpg", "c.jpg"]
    assert crops.choose(found, 2, 0) == crops.choose(found[::-1], 2, 0) != found[:2] + found[2:]


def test_ground_images_by_their_labels_are_refused(tmp_path):
    put(tmp_path / "a.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,pid,platform\na.jpg,1,cctv\n")
    with pytest.raises(NotAerialError, match="are ground images"):
        crops.samples("folder", tmp_path, Reading())


def test_test_images_are_refused(tmp_path):
    for split in ("train", "query", "gallery"):
        for number in range(2):
            put(tmp_path / "CARGO" / split / "Cam1" / f"Cam1_day_000{number}_1.jpg")
    for part in ("query", "gallery/Cam1"):
        with pytest.raises(
            NotAerialError, match=r"query and gallery images of cargo .*--data.name"
        ):
            crops.samples("folder", tmp_path / "CARGO" / part, Reading())
    found = crops.samples("cargo", tmp_path / "CARGO", Reading())
    assert {one.split for one in found} == {"train"} and {one.view for one in found} == {"aerial"}
    with pytest.raises(FileNotFoundError, match="there is no"):
        crops.samples("folder", tmp_path / "none", Reading())


def test_cameras_are_told_by_label_or_folder(tmp_path):
    def sample(name, camid="0"):
        return Sample(paths=(tmp_path / name,), pid="1", name=name, camid=camid)

    folders = [sample("x/1.jpg"), sample("y/2.jpg"), sample("x/3.jpg")]
    assert {k: len(v) for k, v in crops.by_camera(folders, tmp_path).items()} == {"x": 2, "y": 1}
    labels = [sample("x/1.jpg", "7"), sample("y/2.jpg", "8"), sample("x/3.jpg", "8")]
    assert {k: len(v) for k, v in crops.by_camera(labels, tmp_path).items()} == {"7": 1, "8": 2}
