# SPDX-License-Identifier: Apache-2.0
"""The refiner: which pixels it changes, exactness, conditions, and models that are refused."""

from __future__ import annotations

import dataclasses
import inspect
import shutil

import numpy as np
import pytest
import tiny_views
import torch
from figures import people
from scipy import ndimage

from viewsynth.diffusion import refine
from viewsynth.diffusion.options import Refine
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline
from viewsynth.records import Person
from viewsynth.render.options import CHIP, LENS, Sensor
from viewsynth.render.views import Shot, render_views
from viewsynth.runtime import images

SENSOR = Sensor(pixels=80, margin=0.3)
CLEAN = dataclasses.replace(SENSOR, **LENS, **CHIP)
SHOTS = [
    Shot(k % 2, e, a, str(k))
    for k, (e, a) in enumerate([(20.0, 0.0), (50.0, 170.0), (70.0, 300.0), (90.0, 45.0)])
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A pipeline with random weights, saved as by `train-diffusion`."""
    return tiny_views.saved(tmp_path_factory.mktemp("model") / "pipeline")


def refined(model, options: Refine, which=range(4), sensor: Sensor = SENSOR):
    """Views of two simple people, as rendered and as repaired, and what the refiner was given."""
    meshes, pids = people(2)
    sources = [{"file": f"{k}", "elevation": 8.0, "azimuth": 180.0 * k} for k in range(2)]
    empty = np.zeros(1)
    cast = [
        Person(
            pid=pid,
            body="figure",
            shape=empty,
            pose=empty,
            offsets=empty,
            scale=1.0,
            texture=mesh.texture.numpy(),
            seen=mesh.seen.numpy(),
            sources=sources,
        )
        for pid, mesh in zip(pids, meshes, strict=True)
    ]
    some = [SHOTS[k] for k in which]
    drawn = render_views(meshes, pids, some, sensor.without_chip(), 3)
    refiner = refine.load(model, options, "cpu")
    rng = np.random.default_rng(0)
    photos = [
        [refiner.fitted(rng.integers(30, 220, (90, 40, 3), np.uint8)) for _ in sources]
        for _ in cast
    ]
    mesh = [shot.person for shot in some]
    made = refiner(drawn, mesh, [10 + k for k in which], cast, photos, meshes, sensor)
    return drawn, made, (refiner, cast, photos, meshes, mesh)


# ---- images --------------------------------------------------------------------------------------


def test_the_ground_is_kept_and_the_person_is_generated(model):
    drawn, made, _ = refined(model, Refine(steps=2), sensor=CLEAN)
    for before, after in zip(drawn, made, strict=True):
        ours = refine.blend_mask(before, CLEAN).numpy()
        assert (ours[before.mask] == 1).all() and (ours == 0).mean() > 0.1
        far = ours == 0
        assert (after.image[far] == before.image[far]).all()
        assert np.abs(after.image[before.mask].astype(int) - before.image[before.mask]).mean() > 5
        assert (after.seen == before.seen).all() and (after.mask == before.mask).all()
        assert after.box == before.box and after.image.shape == before.image.shape


def test_generated_images_are_aligned_with_the_view(model):
    """With all seen pixels restored, the image of a random model shows the rendered person."""
    drawn, made, _ = refined(model, Refine(steps=1, keep_seen=1.0), sensor=CLEAN)
    for before, after in zip(drawn, made, strict=True):
        inner = ndimage.binary_erosion(before.mask, iterations=4)
        flipped = [after.image, after.image[:, ::-1], after.image[::-1]]
        alike = [
            np.corrcoef(before.image[inner].ravel(), image[inner].ravel())[0, 1]
            for image in flipped
        ]
        assert alike[0] > 0.7 and max(alike[1:]) < alike[0] - 0.2


def test_the_background_may_be_generated(model):
    drawn, made, _ = refined(model, Refine(steps=1, background="generated"), [0], CLEAN)
    far = refine.blend_mask(drawn[0], CLEAN).numpy() == 0
    assert np.abs(made[0].image[far].astype(int) - drawn[0].image[far]).mean() > 5


def test_a_view_has_the_same_bytes_alone(model):
    options = Refine(steps=2, guidance=2.0)
    _, together, _ = refined(model, options)
    for k in (3, 1):
        _, alone, _ = refined(model, options, [k])
        assert (alone[0].image == together[k].image).all()
    _, others, _ = refined(model, Refine(steps=3, guidance=2.0), [3])
    assert (others[0].image != together[3].image).any()


def test_the_conditions_hold_the_nearest_photo_and_the_camera(model):
    drawn, _, (refiner, cast, photos, meshes, mesh) = refined(model, Refine(steps=1))
    given = refiner.conditions(drawn, mesh, cast, photos, meshes, SENSOR)
    given.check(refiner.pipeline.size)
    nearest = [0, 1, 0, 0]
    for k, view in enumerate(drawn):
        assert torch.equal(given.source[given.person[k]], photos[mesh[k]][nearest[k]])
        height, width = view.image.shape[:2]
        turn = (view.azimuth - 180 * nearest[k] + 180) % 360 - 180
        expected = [view.elevation, 8.0, turn, view.distance, width / height]
        assert given.camera[k].tolist() == pytest.approx(expected, abs=1e-4)
    cast[0].sources[0]["used"] = False
    only = refiner.conditions(drawn[:1], [0], cast, [photos[0][1:], []], meshes, SENSOR)
    assert torch.equal(only.source[0], photos[0][1])
    assert only.camera[0, 2] == -180


def test_the_sensor_model_is_applied_once(model):
    """Noise on the whole image, but no second blur on the ground."""
    drawn, clean, _ = refined(model, Refine(steps=1), [0], CLEAN)
    _, noisy, _ = refined(model, Refine(steps=1), [0], dataclasses.replace(CLEAN, noise=0.05))
    for where in (drawn[0].mask, refine.blend_mask(drawn[0], CLEAN).numpy() == 0):
        assert 4 < (noisy[0].image[where].astype(float) - clean[0].image[where]).std() < 20
    with pytest.raises(ValueError, match="steps must be in"):
        Refine(steps=0)
    default = inspect.signature(ViewDiffusionPipeline.sample).parameters["keep_seen"].default
    assert Refine().keep_seen == default


def test_sampling_starts_from_the_rendered_view(model, monkeypatch):
    """Person and ground, with the noise of the given strength."""
    calls, sample = [], ViewDiffusionPipeline.sample

    def note(*given, **named):
        calls.append(named)
        return sample(*given, **named)

    monkeypatch.setattr(ViewDiffusionPipeline, "sample", note)
    drawn, _, (refiner, *_) = refined(model, Refine(steps=1, strength=0.7), sensor=CLEAN)
    expected = torch.stack([refiner.fitted(view.image) for view in drawn])
    assert torch.equal(calls[0]["start"], expected) and calls[0]["strength"] == 0.7


def test_half_precision_hardly_changes_an_image(model):
    """A GPU runs in half precision."""
    _, whole, kit = refined(model, Refine(steps=2, background="generated"), [0], CLEAN)
    refiner, cast, photos, meshes, mesh = kit
    refiner.pipeline.to(torch.float16)
    given = refiner.conditions(whole, mesh, cast, photos, meshes, CLEAN)
    draws = [torch.Generator().manual_seed(10)]
    half = refiner.pipeline.sample(given, 2, 1.0, draws)
    full = refiner.pipeline.to(torch.float32).sample(given, 2, 1.0, draws)
    assert half.isfinite().all() and (half - full).abs().mean() < 0.01


# ---- models of users -----------------------------------------------------------------------------


def test_models_are_checked_before_they_are_loaded(model, tmp_path, monkeypatch):
    assert refine.find(Refine(engine="none")) is None
    found = refine.find(Refine(engine=str(model)))
    assert (found.size, found.licence) == (tiny_views.SIZE, "CC0-1.0")
    monkeypatch.setattr(refine, "BUNDLED", tmp_path / "bundled")
    for engine, kind, said in (
        ("bundled", ValueError, "comes without a refiner; give the folder or hub id"),
        ("./nowhere", FileNotFoundError, "there is no folder ./nowhere"),
        (str(tmp_path), FileNotFoundError, "there is no model_index.json"),
    ):
        with pytest.raises(kind, match=said):
            refine.find(Refine(engine=engine), whole=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="hf download"):
        refine.find(Refine(engine="nobody/no-such-model"), whole=False)
    other = shutil.copytree(model, tmp_path / "other")
    file = other / "scheduler" / "scheduler_config.json"
    before = file.read_text()
    file.write_text('{"_class_name": "LCMScheduler", "original_inference_steps": 30}')
    refine.find(Refine(engine=str(other), steps=30, strength=1))
    with pytest.raises(ValueError, match="refine.steps must be at most 30"):
        refine.find(Refine(engine=str(other), steps=31, strength=1), whole=False)
    with pytest.raises(ValueError, match="refine.steps must be at most 12 at a strength of 0.4"):
        refine.find(Refine(engine=str(other), steps=13), whole=False)
    with pytest.raises(ValueError, match=r"steps must be in \[1, 400\]"):
        Refine(steps=401)
    file.write_text(before)
    (other / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="unet contains no safetensors"):
        refine.find(Refine(engine=str(other)), whole=False)
    (other / "conditioner" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not say the size"):
        refine.find(Refine(engine=str(other)))
    (other / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match=r"holds a StableDiffusionPipeline.*train-diffusion"):
        refine.find(Refine(engine=str(other)))
    bundled = shutil.copytree(model, tmp_path / "bundled")
    assert refine.find(Refine(engine="bundled")).folder == bundled


def test_a_revision_depends_on_weights_and_settings(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    asked = Refine(engine=str(model))
    one = refine.revision(refine.find(Refine(engine=str(model))), asked)
    assert one == refine.revision(refine.find(Refine(engine=str(other))), Refine(engine=str(other)))
    assert set(one) == {"weights", "steps", "guidance", "strength", "keep_seen", "background"}
    (other / "README.md").write_text("another card")
    assert one == refine.revision(refine.find(Refine(engine=str(other))), asked)
    pipeline = ViewDiffusionPipeline.from_pretrained(other)
    with torch.no_grad():
        pipeline.unet.conv_out.bias += 1e-3
    pipeline.save_pretrained(other)
    assert (
        one["weights"] != refine.revision(refine.find(Refine(engine=str(other))), asked)["weights"]
    )


def test_digital_source_types():
    assert refine.digital_source_type(Refine()) == "compositeWithTrainedAlgorithmicMedia"
    assert (
        refine.digital_source_type(Refine(background="generated"))
        == "compositeWithTrainedAlgorithmicMedia"
    )
    alone = Refine(background="generated", keep_seen=0, strength=1)
    assert refine.digital_source_type(alone) == "trainedAlgorithmicMedia" == images.BY_MODEL


def test_a_damaged_model_is_an_error(model, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    shutil.copy(
        other / "vae" / "diffusion_pytorch_model.safetensors",
        other / "unet" / "diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(ValueError, match="weights of another architecture"):
        refine.load(other, Refine(), "cpu")
