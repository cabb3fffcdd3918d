# SPDX-License-Identifier: Apache-2.0
"""`Synthesizer`: three lines in a notebook give what `generate` writes."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_views
import torch
from PIL import Image

from viewsynth import data, manifest
from viewsynth.commands import generate
from viewsynth.diffusion.options import Refine
from viewsynth.generate import chunk, inputs
from viewsynth.generate.options import Pose
from viewsynth.generate.synthesizer import Synthesizer
from viewsynth.generate.worker import Job
from viewsynth.records import Person
from viewsynth.render.options import Sensor
from viewsynth.world import shots

ARRAYS = ("shape", "pose", "offsets", "texture", "seen")


@pytest.fixture(scope="module")
def synthesizer(pose_model, detector) -> Synthesizer:
    return Synthesizer(device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two people, a front and a back image each, as PNG so that every form has the same pixels."""
    root = tmp_path_factory.mktemp("people")
    for picture in shots.render(2, seed=3):
        (root / picture.pid).mkdir(exist_ok=True)
        Image.fromarray(picture.image).save(root / picture.pid / f"{picture.shot.name}.png")
    return root


@pytest.fixture(scope="module")
def person(synthesizer, folder) -> Person:
    return synthesizer.reconstruct([folder / "0000/back.png", folder / "0000/front.png"])


def same(one: Person, other: Person) -> bool:
    return all(np.array_equal(getattr(one, k), getattr(other, k)) for k in ARRAYS)


def same_view(one, other) -> bool:
    return (
        one.image == other.image
        and one.seen == other.seen
        and one.mask == other.mask
        and (one.elevation, one.azimuth, one.distance)
        == (other.elevation, other.azimuth, other.distance)
        and torch.equal(one.camera.intrinsics, other.camera.intrinsics)
    )


# ---- reconstruct ---------------------------------------------------------------------------------


def test_paths_pil_images_and_arrays_are_the_same(synthesizer, folder, person):
    paths = [folder / "0000/back.png", folder / "0000/front.png"]
    opened = [Image.open(path) for path in paths]
    arrays = [np.asarray(image) for image in opened]
    for images in ([str(paths[0]), opened[1]], [arrays[0], paths[1]], arrays):
        again = synthesizer.reconstruct(images)
        assert same(again, person) and again.pid == person.pid == "person"
    assert [source["file"] for source in person.sources] == [path.as_posix() for path in paths]
    assert [source["file"] for source in again.sources] == ["image 0", "image 1"]
    assert all(len(source["sha256"]) == 64 for source in again.sources)


def test_orientation_and_profile_of_a_file_and_of_an_image(synthesizer, folder, tmp_path):
    upright = Image.open(folder / "0000/front.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    path = tmp_path / "turned.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    expected = synthesizer.reconstruct(upright)
    for image in (path, [Image.open(path)]):
        assert same(synthesizer.reconstruct(image, pid="anna"), expected)


@pytest.mark.slow
def test_several_people_are_computed_as_generate_does(synthesizer, folder):
    """The same bytes as a chunk of both, but for what the sources are called."""
    made, _ = through_generate(folder, synthesizer, chunk_of=2)
    images = [[folder / pid / name for name in ("back.png", "front.png")] for pid in made]
    people = synthesizer.reconstruct(images, pid=list(made))
    assert [one.pid for one in people] == list(made) == ["0000", "0001"]
    for one in people:
        assert same(one, made[one.pid]) and one.quality == made[one.pid].quality
    asked, several = inputs.requests(images, [5, [12, None]], None)
    assert several and [one.pid for one in asked] == ["person-0", "person-1"]
    assert [one.elevations for one in asked] == [[5, 5], [12, None]]


def test_a_wide_photo_is_searched_for_its_person(synthesizer, folder):
    photo = Image.new("RGB", (640, 480), (150, 150, 150))
    crop = Image.open(folder / "0000/front.png")
    photo.paste(crop, (250, 150))
    found = synthesizer.reconstruct(photo)
    (source,) = found.sources
    assert abs(source["box"][0] - 250) < 60 and source["file"] == "image 0"
    photo.paste(Image.open(folder / "0001/front.png"), (450, 150))
    with pytest.raises(ValueError, match=r"image 0: 2 people in the image, .* crop it"):
        synthesizer.reconstruct(photo)


def test_elevations_are_used(synthesizer, folder):
    images = [folder / "0000/back.png", folder / "0000/front.png"]
    person = synthesizer.reconstruct(images, elevation=[12, None])
    assert abs(person.sources[0]["elevation"] - 12) < 3
    with pytest.raises(ValueError, match=r"elevation must be a list of 2 here, got \[1, 2, 3\]"):
        synthesizer.reconstruct(images, elevation=[1, 2, 3])
    with pytest.raises(ValueError, match=r"in \[-90, 90\]"):
        synthesizer.reconstruct(images, elevation=120)


def test_one_person_who_fails_is_an_error_among_several_a_warning(synthesizer, folder):
    wall = np.random.default_rng(0).integers(0, 255, (160, 80, 3), dtype=np.uint8)
    good = folder / "0000/front.png"
    with pytest.raises(ValueError, match="'person' cannot be reconstructed: image 0: no person"):
        synthesizer.reconstruct(wall)
    with pytest.warns(UserWarning) as told:
        people = synthesizer.reconstruct([[wall], [good], [good, wall]])
    texts = [str(one.message) for one in told]
    assert "'person-0': cannot be reconstructed: image 0: no person" in texts[0]
    assert "'person-2': not all images are used: image 1: no person" in texts[1]
    assert people[0] is None and len(people[2].sources) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(people[1], synthesizer.reconstruct([[good], [good]])[0])
    nothing, *views = synthesizer.render(people, elevation=45)
    assert nothing is None and [view.pid for view in views] == ["person-1", "person-2"]


@pytest.mark.parametrize(
    ("images", "kind", "said"),
    [
        ([], ValueError, "at least one image of each person"),
        ([[], []], ValueError, "at least one image of each person"),
        (7, TypeError, "got int in its place"),
        ([[np.zeros((160, 80, 3), np.uint8), 7]], TypeError, "got int in its place"),
        (["/no/such.jpg"], FileNotFoundError, "there is no file /no/such.jpg"),
        (
            np.zeros((160, 80, 3)),
            ValueError,
            r"uint8 array \[H, W, 3\]; got float64 \[160, 80, 3\]",
        ),
        (np.zeros((160, 80), np.uint8), ValueError, r"got uint8 \[160, 80\]"),
        (np.zeros((160, 8, 3), np.uint8), ValueError, "8x160 pixels, at least 16"),
    ],
)
def test_what_is_no_image_is_refused(synthesizer, images, kind, said):
    with pytest.raises(kind, match=said):
        synthesizer.reconstruct(images)


def test_arguments_that_do_not_match_are_refused(synthesizer, folder):
    path = folder / "0000/front.png"
    with pytest.raises(TypeError, match="got PosixPath in its place"):
        synthesizer.reconstruct([path, [path]])
    with pytest.raises(ValueError, match="pid must be a list of 2"):
        synthesizer.reconstruct([[path], [path]], pid="anna")
    with pytest.raises(ValueError, match="crops must be one of auto, yes, no"):
        synthesizer.reconstruct(path, crops="maybe")


# ---- render --------------------------------------------------------------------------------------


def test_a_view_says_how_it_was_taken(synthesizer, person, tmp_path):
    view = synthesizer.render(person, elevation=60, azimuth=30)
    assert isinstance(view.image, Image.Image) and view.image.mode == "RGB"
    assert (view.elevation, view.azimuth, view.pid) == (60, 30, "person")
    assert view.image.size == view.seen.size == view.mask.size == view.camera.size[::-1]
    inside = np.asarray(view.mask)
    assert inside.any() and not np.asarray(view.seen)[~inside].any()
    top, _ = view.camera.project(torch.tensor([[[0.0, 1.7, 0.0]]]))
    assert inside[int(top[0, 0, 1]), int(top[0, 0, 0])], "the head is where the camera says"
    view.image.save(tmp_path / "view.png")
    view.save(tmp_path / "view.jpg")
    assert b"compositeSynthetic" in (tmp_path / "view.jpg").read_bytes()
    assert view._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="must end in .jpg"):
        view.save(tmp_path / "view.png")


def test_lists_give_the_same_views_one_by_one(synthesizer, person):
    elevations, azimuths = [0, 45.5, 90], [10, -20, 300.25]
    single = [synthesizer.render(person, e, a) for e, a in zip(elevations, azimuths, strict=True)]
    together = synthesizer.render(person, elevations, np.array(azimuths))
    assert all(map(same_view, together, single))
    assert single[1].azimuth == 340
    turns = synthesizer.render(person, 60, [0, 90])
    assert [one.azimuth for one in turns] == [0, 90]
    assert same_view(turns[0], synthesizer.render(person, [60])[0])
    (rows,) = synthesizer.render([person], 60, [0, 90])
    assert all(map(same_view, rows, turns))
    (one,) = synthesizer.render([person], 60, 90)
    assert same_view(one, turns[1])


def test_a_saved_person_gives_the_same_views(synthesizer, person, tmp_path):
    person.save(tmp_path / "person.safetensors")
    again = Person.load(tmp_path / "person.safetensors")
    assert again.to_bytes() == person.to_bytes()
    sensor = Sensor(pixels=90, vfov=30)
    views = [
        synthesizer.render(one, 50, 75, pose="walk", sensor=sensor, seed=4)
        for one in (person, again)
    ]
    assert same_view(*views) and not same_view(views[0], synthesizer.render(person, 50, 75))
    with pytest.raises(FileNotFoundError):
        Person.load(tmp_path / "nobody.safetensors")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"elevation": 91}, r"elevation must be in \[0, 90\] degrees"),
        ({"elevation": -1}, r"elevation must be in \[0, 90\] degrees"),
        ({"azimuth": np.nan}, "azimuth must be a finite number"),
        (
            {"elevation": [30, 60], "azimuth": [0, 90, 180]},
            r"the same length; got the shapes \[2\]",
        ),
        ({"elevation": [[30, 60]]}, "numbers, or lists of the same length"),
        ({"pose": "sit"}, "pose must be one of fitted, relaxed, walk; got 'sit'"),
    ],
)
def test_cameras_that_cannot_be_are_refused(synthesizer, person, asked, said):
    with pytest.raises(ValueError, match=said):
        synthesizer.render(person, **asked)


def test_the_threads_of_the_caller_stay(synthesizer, person):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = synthesizer.render(person)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert same_view(two, synthesizer.render(person))


def test_what_is_no_person_is_refused(synthesizer):
    with pytest.raises(TypeError, match="a Person or a list, got NoneType"):
        synthesizer.render(None)
    with pytest.raises(TypeError, match="a Person or None in the list, got str"):
        synthesizer.render(["person.safetensors"])


def test_a_person_of_another_body_is_refused(synthesizer, person):
    other = dataclasses.replace(person, body="smplx")
    with pytest.raises(ValueError, match="with the body 'smplx', this synthesizer has 'anny'"):
        synthesizer.render(other)


# ---- the same as generate ------------------------------------------------------------------------


def through_generate(root: Path, loaded: Synthesizer, chunk_of: int = 1, **options):
    """People by pid, and the images by file name before they become JPEG, of `make_chunk`."""
    config = generate.Config(data=generate.Data(root=root), pose=Pose("walk"), **options)
    job = Job(root / "run", root, config, "cpu", {}, {}, {})
    entries = manifest.entries(data.load("folder", root).samples)
    people, images, tools = {}, {}, chunk.Tools(loaded)

    def put(name, encode, *args):
        if name.startswith("images/"):
            images[name] = args[0]
        elif name.startswith("people/"):
            people[Path(name).stem] = encode()

    for start in range(0, len(entries), chunk_of):
        some = tuple(entries[start : start + chunk_of])
        task = manifest.Task("0", "0", some, (), ("e60_a0", "e90_a200"))
        _, rows, rejects = chunk.make_chunk(task, job, tools, put)
        assert len(rows) == 2 * chunk_of, rejects
    for pid, content in people.items():
        (root / ".person").write_bytes(content)
        people[pid] = Person.load(root / ".person")
    return people, images


def test_views_equal_those_of_generate(synthesizer, folder):
    people, images = through_generate(folder, synthesizer, seed=5)
    assert len(images) == 4
    for pid, one in people.items():
        views = synthesizer.render(one, [60, 90], [0, 200], pose="walk", seed=5)
        for view, name in zip(views, ("e60_a0", "e90_a200"), strict=True):
            assert np.array_equal(np.asarray(view.image), images[f"images/{pid}/{name}.jpg"])


# ---- with a refiner ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A diffusion pipeline of random weights."""
    path = tmp_path_factory.mktemp("model") / "pipeline"
    tiny_views.pipeline().save_pretrained(path)
    return path


@pytest.mark.slow
def test_refined_views_equal_those_of_generate(synthesizer, folder, model, tmp_path, person):
    options = Refine(engine=str(model), steps=2)
    refining = Synthesizer(device="cpu", refiner=options)
    people, images = through_generate(folder, refining, refine=options)
    paths = [folder / "0000/back.png", folder / "0000/front.png"]
    made = refining.reconstruct(paths, pid="0000")
    assert same(made, people["0000"])
    in_memory = refining.reconstruct([np.asarray(Image.open(path)) for path in paths], pid="0000")
    made.save(tmp_path / "saved.safetensors")
    again = Person.load(tmp_path / "saved.safetensors")
    for one, root in ((made, "."), (in_memory, "."), (again, "."), (people["0000"], folder)):
        view = refining.render(one, 60, 0, pose="walk", root=root)
        assert np.array_equal(np.asarray(view.image), images["images/0000/e60_a0.jpg"])
    assert not np.array_equal(view.image, synthesizer.render(made, 60, 0, pose="walk").image)
    view.save(tmp_path / "view.jpg")
    assert b"/compositeWithTrainedAlgorithmicMedia" in (tmp_path / "view.jpg").read_bytes()
    with pytest.raises(ValueError, match=r"0000/.*png: the refiner needs .* or give `root`"):
        refining.render(people["0000"], 60)
    in_memory.save(tmp_path / "saved.safetensors")
    with pytest.raises(ValueError, match="image 0: the refiner needs"):
        refining.render(Person.load(tmp_path / "saved.safetensors"), 60)


def test_images_are_kept_for_the_refiner_as_long_as_the_person_lives(folder, model):
    refining = Synthesizer(device="cpu", refiner=model)
    one = refining.reconstruct(folder / "0000/front.png")
    assert list(refining._photos) == [id(one)]
    del one
    assert not refining._photos


# ---- the constructor -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ({"body": "mannequin"}, ValueError, "body must be one of anny, smplx; got 'mannequin'"),
        ({"device": "abacus"}, ValueError, "device must be auto, cpu, cuda"),
        ({"device": "cuda:99"}, ValueError, "device cuda:99: torch sees"),
        ({"refiner": "/no/such/model"}, FileNotFoundError, "there is no folder /no/such/model"),
        ({"pose_model": "/no.tflite"}, FileNotFoundError, "there is no file /no.tflite"),
        ({"detector": __file__}, ValueError, "is not a TFLite model"),
        ({"smplx": "/no.npz"}, ValueError, "smplx is the model file of the body 'smplx'"),
        ({"body": "smplx", "smplx": "/no.npz"}, FileNotFoundError, "/no.npz is not a file"),
    ],
)
def test_arguments_are_checked_before_anything_is_loaded(monkeypatch, asked, kind, said):
    monkeypatch.setattr("viewsynth.bodies.load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(kind, match=said):
        Synthesizer(**asked)
