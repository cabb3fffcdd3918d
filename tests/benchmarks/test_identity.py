# SPDX-License-Identifier: Apache-2.0
"""The identity benchmark: layout, cut-outs, rungs and tables, without a ReID network.

A stand-in takes the network's place: the colours of a coarse grid.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from flat_images import flat, put
from PIL import Image
from scipy import ndimage

from viewsynth.metrics.colours import linear, srgb
from viewsynth.reconstruct.parse import parse


def embed(images) -> np.ndarray:
    """The stand-in: colours of a grid of 4 x 2 cells, relative to grey."""
    small = [Image.fromarray(image).resize((2, 4), Image.Resampling.BOX) for image in images]
    found = np.stack([np.asarray(one, np.float32).ravel() - 127.5 for one in small])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


# ---- layout --------------------------------------------------------------------------------------


@pytest.fixture
def crops(tmp_path) -> tuple[Path, Path]:
    """Folders of aerial and of ground crops of three people."""
    roots = tmp_path / "air", tmp_path / "ground"
    for root in roots:
        for pid in ("x", "y", "z"):
            put(root / pid, flat(200, 30, 60))
    put(roots[0] / "x", flat(1, 2, 3), "b.JPG")
    put(roots[1] / "more", flat(9, 9, 9))  # a person without a query
    return roots


def test_crops_are_found_by_person(pictures, crops):
    air, ground = pictures.crop_files(*crops)
    assert list(air) == list(ground) == ["x", "y", "z"]
    assert [path.name for path in air["x"]] == ["a.png", "b.JPG"]
    assert (pictures.read_all(ground)["y"][0] == [200, 30, 60]).all()


def test_layouts_that_cannot_be_used_are_refused(pictures, crops):
    air, ground = crops
    for roots, message in (
        ((air / "none", ground), "--air .*none is not a folder"),
        ((air, ground / "none"), "--ground .*none is not a folder"),
        ((ground, air), "--ground .*air has no folder 'more', which --air has"),
    ):
        with pytest.raises(ValueError, match=message):
            pictures.crop_files(*roots)
    (air / "z" / "a.png").rename(air / "a.png")
    with pytest.raises(ValueError, match="--air: .*z has no .png or .jpg file"):
        pictures.crop_files(air, ground)
    (air / "z").rmdir()
    with pytest.raises(ValueError, match="--air .* has 2 people, expected at least 3"):
        pictures.crop_files(air, ground)


def test_a_broken_file_is_named(pictures, tmp_path):
    broken = tmp_path / "a.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png: "):
        pictures.read_all({"x": [broken]})


# ---- cut-outs ------------------------------------------------------------------------------------


def person_of(colour, backdrop) -> tuple[np.ndarray, np.ndarray]:
    """A crop with a rectangle for a person, and its mask."""
    image, mask = flat(*backdrop), np.zeros((40, 20), np.float32)
    image[10:30, 6:14], mask[10:30, 6:14] = colour, 1
    return image, mask


def test_a_background_shows_nothing_of_its_person(pictures):
    image, mask = person_of((255, 0, 0), (10, 20, 200))
    image[:, :3] = (60, 20, 200)
    found = pictures.background(image, mask).astype(int)
    assert np.abs(found - [10, 20, 200]).max(2)[:, 10:].max() <= 1
    assert found[..., 1].max() <= 20 and found[..., 0].max() <= 60


@pytest.mark.parametrize("people", [3, 4, 9])
def test_cut_outs_stand_before_other_people_s_backgrounds(pictures, people):
    colours = [(10 * k, 200, 0) for k in range(people)]
    made = [person_of((0, 0, 255), colour) for colour in colours]
    names = [str(k) for k in range(people)]
    crops, masks = ({n: [one[i]] for n, one in zip(names, made, strict=True)} for i in (0, 1))
    for number, own in enumerate(pictures.cut_outs(crops, masks).values()):
        assert len(own) == min(people - 1, pictures.BACKDROPS)
        corners = {tuple(image[0, 0].tolist()) for image in own}
        assert len(corners) == len(own) and colours[number] not in corners
        assert corners < set(colours)
        assert all((image[12:28, 8:12] == [0, 0, 255]).all() for image in own)


def test_before_is_a_mean_by_coverage(pictures):
    coverage = np.zeros((4, 2), np.float32)
    coverage[0], coverage[1] = 1, 0.25
    colour = coverage[..., None] * np.array([200.0, 0, 40])
    found = pictures.before(colour, coverage, flat(100, 100, 0))
    np.testing.assert_array_equal(found[0], [[200, 0, 40]] * 2)
    np.testing.assert_array_equal(found[1], [[125, 75, 10]] * 2)
    np.testing.assert_array_equal(found[2:], [[[100, 100, 0]] * 2] * 2)


def test_overlap_is_that_of_sets(pictures):
    mask, drawn = np.zeros((8, 8), np.float32), np.zeros((8, 8), np.float32)
    mask[:, :4], drawn[:, 2:6] = 0.9, 1
    drawing = pictures.Drawing(np.zeros((8, 8, 3)), drawn)
    assert pictures.overlap(drawing, mask) == pytest.approx(2 / 6)


# ---- ladder --------------------------------------------------------------------------------------


def test_rungs_differ_in_one_thing_each(identity, pictures):
    image, mask = person_of((250, 0, 0), (0, 0, 250))
    left, right = np.zeros((2, 40, 20), np.float32)
    left[:, :10], right[:, 10:] = 1, 1
    green = np.array([0, 250, 0])
    alone = pictures.Drawing(left[..., None] * green, left)
    fused = pictures.Drawing(right[..., None] * green, right)
    drawn = pictures.Drawn(image, mask, alone, fused)
    made = list(identity.rungs(drawn, flat(9, 9, 9)).values())
    assert len(made) == 5 and (made[0] == image).all()
    person = mask[..., None] == 1
    wanted = [
        np.where(person, image, 9),
        np.where(person & (left[..., None] == 1), image, 9),
        np.where(left[..., None] == 1, green, 9),
        np.where(right[..., None] == 1, green, 9),
    ]
    for got, one in zip(made[1:], wanted, strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.slow
def test_the_ladder_draws_each_person_at_the_cameras_of_its_crops(identity, tools, ground, capsys):
    made, fits = identity.climb(ground, tools)
    assert list(fits) == list(ground) and min(map(min, fits.values())) > 0.7
    for pid, crops in ground.items():
        photo, *_, alone, fused = (images[pid] for images in made.values())
        for crop, first, *drawn in zip(crops, photo, alone, fused, strict=True):
            assert (crop == first).all()
            mask = parse(crop, tools.pose_model).mask > 0.9
            inner = ndimage.binary_erosion(mask, iterations=5)
            for image in drawn:  # in the colours of the photo but its exposure; in the same place
                light = linear(image[inner])
                toned = srgb(light * linear(crop[inner]).mean() / light.mean())
                assert np.abs(toned - crop[inner]).mean() < 20
                assert np.abs(image[:5].astype(int) - crop[:5]).mean() > 10
    for pid in ("1", "2"):  # nothing is fused
        alone, fused = (images[pid][0] for images in list(made.values())[-2:])
        assert (alone == fused).all()
    identity.ladder({pid: own[:1] for pid, own in ground.items()}, ground, made, fits, embed)
    said = capsys.readouterr().out
    assert said.startswith("3 people, 3 aerial queries, 4 ground crops\n")
    assert said.count("| 1.00 [1.00, 1.00] |\n") == 1  # the photo's share of its own margin
    assert "| 0 | 2 of 2 |" in said and "| mean of the people | | 0." in said


def test_people_without_a_usable_crop_are_left_out(identity, tools, capsys):
    nobody = {str(n): [flat(90, 90, 90)] for n in range(3)}
    made, fits = identity.climb(nobody, tools)
    assert made == fits == {}
    with pytest.raises(ValueError, match="0 of 3 people have a usable ground crop"):
        identity.ladder(nobody, nobody, made, fits, embed)
    assert capsys.readouterr().out == "left out, without a usable ground crop: 0, 1, 2\n"


# ---- views ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("azimuth", "sources", "turn"),
    [(350, [10], 20), (-170, [175], 15), (0, [180], 180), (90, [0, 100, 270], 10), (720, [1], 1)],
)
def test_the_nearest_crop_is_found_around_the_circle(pictures, azimuth, sources, turn):
    assert pictures.nearest_turn(azimuth, sources) == pytest.approx(turn)
    assert pictures.nearest_turn(sources[-1], [azimuth]) <= 180


def test_views_are_read_with_their_angle_to_the_crops_that_were_used(pictures, run):
    found = pictures.read_views(run, ["1", "missing"])
    assert found["missing"] == [] and list(found) == ["1", "missing"]
    seen = [(view.elevation, round(view.turn)) for view in found["1"]]
    assert seen == [(30, 10), (60, 70), (45, 150), (75, 10), (90, 10)]
    assert (found["1"][0].image == flat(80, 90, 30)).all()


def test_folders_that_are_no_run_of_these_people_are_refused(pictures, run, tmp_path):
    with pytest.raises(ValueError, match=r"--run .*none has no metadata\.jsonl"):
        pictures.read_views(tmp_path / "none", ["1"])
    with pytest.raises(ValueError, match="no view of the people of --air; it has 0, 1, 2"):
        pictures.read_views(run, ["x"])


def test_the_tables_of_views(identity, pictures, run, ground, pose_model, capsys):
    air = {pid: [flat(80 * n, 90, 45)] for n, pid in enumerate(ground)}
    made = pictures.read_views(run, list(ground))
    identity.views(air, ground, made, pose_model, embed)
    said = capsys.readouterr().out
    rows = dict(line.strip("| ").split(" | ", 1) for line in said.splitlines() if " | " in line)
    assert said.startswith("3 people, 3 aerial queries, 4 ground crops\n")
    assert rows["ground crops + cut-outs"] != rows["cut-outs"]
    assert rows["our views at 30-60"].startswith("9 | 3 | 1.000")  # 75 and 90 are not among them
    for name, images in (("0 to 30", 3), ("30 to 60", 0), ("60 to 90", 3), ("90 to 180", 3)):
        row = rows[f"... {name} from the nearest crop"]
        assert row.startswith(f"{images} | {images} | " + ("1.000" if images else "-"))
    identity.views(air, ground, made, pose_model, embed)
    assert capsys.readouterr().out == said
    made["2"] = [view for view in made["2"] if view.elevation < 90]
    with pytest.raises(ValueError, match="2 of 3 people have a view at both 30-60 and 90 degrees"):
        identity.views(air, ground, made, pose_model, embed)
    assert capsys.readouterr().out.endswith("degrees: 2\n")


# ---- command -------------------------------------------------------------------------------------


def test_without_openvino_the_message_says_how_to_install_it(identity, crops, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    air, ground = map(str, crops)
    words = ["identity.py", "ladder", "--air", air, "--ground", ground, "--network", "a.xml"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        identity.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "openvino is not installed" in said
    assert 'pip install -c constraints.txt -e ".[openvino]"' in said
