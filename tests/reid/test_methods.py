# SPDX-License-Identifier: Apache-2.0
"""Methods: every file of the folder can be trained, saved, loaded and evaluated."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

from viewsynth.reid import backbones, encoders, losses, methods, saved
from viewsynth.reid.batches import Batch
from viewsynth.reid.methods import uagrpg

SIZE = (64, 32)
CLASSES = 4
ATTRIBUTES = ["order:odd", "order:late", "other:unknown"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ViTModel(ViTConfig(**small, intermediate_size=64, image_size=32)).save_pretrained(
        folder / "vit"
    )
    resnet = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])
    ResNetModel(resnet).save_pretrained(folder / "resnet")
    return folder


@pytest.fixture
def build(models, monkeypatch):
    monkeypatch.setattr(uagrpg, "NEAREST", 2)  # for clusters of two images
    monkeypatch.setattr(uagrpg, "LEAST", 2)

    def build(name: str, kind: str = "vit", seed: int = 0):
        text = "text" in methods.needs(name)
        where = "small_clip" if text and kind == "vit" else str(models / kind)
        backbone = backbones.load(where, SIZE, text=text)
        more = {"attributes": ATTRIBUTES} if methods.wants(name, "attributes") else {}
        # Without identities, every image is a class of its own.
        classes = CLASSES if methods.identities(name) else len(batch().labels)
        return methods.build(name, backbone, classes, 0.1, seed, **more)

    return build


def batch(seed: int = 0, pictures: int = 4) -> Batch:
    """Noisy images, one colour for each person; half of them aerial, one in four synthetic."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(pictures)
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.1]])
    count = len(labels)
    images = colours[labels][:, :, None, None] + 0.1 * torch.randn(count, 3, *SIZE, generator=rng)
    order = torch.arange(count) % pictures
    weights = torch.where(order == 3, 0.5, 1.0)
    views = order % 2
    names = [f"{n}.jpg" for n in range(count)]
    known = torch.stack([labels % 2, labels // 2, torch.full_like(labels, -1)], 1).to(torch.int8)
    own = torch.arange(count)
    texts = [f"person {label}" if label else "" for label in labels.tolist()]
    return Batch(
        images.clamp(0, 1), labels, order, views, order == 3, weights, known, own, texts, names
    )


def of(model, images, views):
    """Features, of a method that is told the views or one that is not."""
    told = (views,) if methods.told(methods.name_of(model)) else ()
    return model.features(images, *told)


def fill_bank(model) -> None:
    """Give a method with a memory bank the features of the images, as at the start of an epoch."""
    if hasattr(model, "rebuild"):
        one, training = batch(), model.training
        with torch.no_grad():
            rows = model.eval().bank_features(one.images)
        model.rebuild(rows, one.labels, one.views, one.weights)
        model.train(training)


def train(model, steps: int = 12) -> list[float]:
    fill_bank(model)
    optimizer = torch.optim.AdamW(methods.groups(model, 1e-4), 3e-3)
    totals = []
    model.train()
    for step in range(steps):
        total = sum(model(batch(step), step > 6).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    return totals


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("name", methods.names())
def test_trained_saved_and_loaded(build, tmp_path, name, kind):
    try:
        model = build(name, kind)
    except ValueError as error:
        assert kind == "resnet" and "needs a" in str(error)
        return
    totals = train(model)
    assert totals[-1] < totals[0] - 0.5 or name == "uagrpg" and totals[-1] < 0.9 * totals[0]
    saved.save(model, tmp_path / "model", {"step": 12})
    again, about = saved.load(tmp_path / "model")
    assert about == {"step": 12} and methods.name_of(again) == name
    images, views = batch(99).images, batch(99).views
    features = of(model.eval(), images, views)
    torch.testing.assert_close(of(again, images, views), features, rtol=0, atol=0)
    each = zip(images[:, None], views[:, None], strict=True)
    alone = torch.cat([of(again, image, view) for image, view in each])
    torch.testing.assert_close(alone, features, rtol=1e-4, atol=1e-4)
    again.train()
    assert again.losses(batch(0)).keys() == model.train().losses(batch(0)).keys()


@pytest.mark.parametrize("name", methods.names())
def test_loaded_as_an_encoder(build, tmp_path, name):
    model = build(name)
    train(model, 2)
    saved.save(model, tmp_path / "mine", {"step": 2})
    encoder = encoders.load(str(tmp_path / "mine"))
    assert (encoder.name, encoder.kind, encoder.size) == ("mine", model.backbone.kind, SIZE)
    images, views = (batch().images * 255).byte(), batch().views
    expected = of(model.eval(), images / 255, views)
    assert encoder.told == (("ground", "aerial") if methods.told(name) else ())
    found = encoder.encode(images.movedim(1, -1), views if encoder.told else None)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    marks = {encoder.fingerprint}
    saved.save(model, tmp_path / "mine", {"step": 3})
    marks.add(encoders.load(str(tmp_path / "mine")).fingerprint)
    assert len(marks) == 1  # `about` does not change the features
    train(model, 1)
    saved.save(model, tmp_path / "mine", {"step": 3})
    marks.add(encoders.load(str(tmp_path / "mine")).fingerprint)
    assert len(marks) == 2
    with pytest.raises(ValueError, match="model.pooling must be auto"):
        encoders.load(str(tmp_path / "mine"), pooling="cls")


@pytest.mark.parametrize("name", methods.names())
def test_gradients_and_groups(build, name):
    model = build(name)
    fill_bank(model)
    sum(model.losses(batch()).values()).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    # Distributed training waits for the gradient of every parameter that requires one.
    assert [n for n, p in trained.items() if p.grad is None] == []
    decayed, free = methods.groups(model, 0.01)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    inside = {id(p) for p in decayed["params"]}
    assert len(inside) + len(free["params"]) == len(trained)
    for n, p in trained.items():
        token = n.endswith(("_token", "_tokens", "first", "places"))
        assert (id(p) in inside) == (p.ndim > 1 and not token), n
    split = methods.groups(model, 0.01, 0.5)
    assert [(g["weight_decay"], g.get("rate")) for g in split[:2]] == [(0.01, None), (0.0, None)]
    ids = {True: set(), False: set()}
    for group in split:
        ids["rate" in group] |= {id(p) for p in group["params"]}
        assert group.get("rate", 0.5) == 0.5
        assert all((id(p) in inside) == (group["weight_decay"] > 0) for p in group["params"])
    assert ids[False] == {id(p) for p in model.backbone.parameters() if p.requires_grad}
    assert ids[True] == {id(p) for p in trained.values()} - ids[False]


@pytest.mark.parametrize("name", methods.names())
def test_weight_and_mining_of_synthetic_images(build, name):
    model = build(name).eval()  # without batch statistics: features are independent
    one, other = batch(), batch()
    one.weights[one.synthetic] = 0
    other.weights[other.synthetic] = 0
    other.images[other.synthetic] = 0.5
    with torch.no_grad():
        assert model.losses(one) == model.losses(other)
        assert model.losses(batch(), True)["identity"] == model.losses(batch(), False)["identity"]
        one.weights[:] = 1
        one.images[one.synthetic] = one.images[one.synthetic].roll(1, 0)  # of another person
        if methods.identities(name):
            far, near = (model.losses(one, mine)["triplet"] for mine in (False, True))
            assert near > far


@pytest.mark.parametrize("name", methods.names())
def test_heads_depend_on_the_seed_only(build, name):
    before = torch.get_rng_state()
    first, again, other = (build(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    key = "neck.classifier.weight"
    assert key not in first or not torch.equal(first[key], other[key])


def test_vdt_step_by_step(build):
    """Compared with the equations of the paper, image by image."""
    model = build("vdt").eval()
    with torch.no_grad():
        model.view_token += torch.randn_like(model.view_token) * 0.1
        body, images = model.backbone, batch().images[:3]
        identity, view = model.decouple(images)
        for n, image in enumerate(images):
            start = body.embed(image[None])[0]
            cls, patches = start[0], start[1:]
            token = model.view_token[0, 0] + body.places[0, 1]
            for block in body.blocks:
                out = block(torch.stack([cls, token, *patches])[None])[0]
                cls, token, patches = out[0] - out[1], out[1], out[2:]
            last = body.norm(token)
            torch.testing.assert_close(identity[n], body.norm(cls) - last, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(view[n], last, rtol=1e-4, atol=1e-5)
        one = batch()
        feature, view = model.decouple(one.images)
        found = model.losses(one)
        cross = losses.classification(model.view_neck(view), one.views, one.weights)
        assert found["view"] == pytest.approx(1e-3 * cross)
        cosine = torch.nn.functional.cosine_similarity(feature, view).abs()
        expected = 1e-3 * (cosine * one.weights).sum() / len(cosine)
        assert found["orthogonality"] == pytest.approx(expected)


def test_vdt_has_small_initial_gradients(build):
    model = build("vdt")
    sum(model.losses(batch()).values()).backward()
    assert (model.view_token == 0).all() and 0 < model.view_token.grad.norm() < 100


def test_methods_that_cannot_be_built(build, models):
    with pytest.raises(ValueError, match="vdt needs a backbone with tokens .* got resnet"):
        build("vdt", "resnet")
    with pytest.raises(ValueError, match="method must be one of agid, .*; got 'nothing'"):
        build("nothing")
    body = backbones.load(str(models / "resnet"), SIZE)
    with pytest.raises(ValueError, match="two or more training identities; got 1"):
        methods.build("baseline", body, 1)
    assert (methods.needs("baseline"), methods.needs("vdt")) == ((), ("views",))


def test_damaged_folders(build, tmp_path):
    folder = tmp_path / "model"
    saved.save(build("baseline", "resnet"), folder, {})
    weights = load_file(folder / saved.WEIGHTS)
    incomplete = {k: v for k, v in weights.items() if k != "neck.norm.weight"}
    save_file(incomplete, folder / saved.WEIGHTS)
    with pytest.raises(ValueError, match="must be of one model, whole"):
        saved.load(folder)
    whole = (folder / saved.WEIGHTS).read_bytes()
    (folder / saved.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="must be of one model, whole"):
        saved.load(folder)
    (folder / saved.WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors in"):
        encoders.load(str(folder))
    (folder / saved.CONFIG).write_text(json.dumps({"model_type": "vit"}))
    save_file(weights, folder / saved.WEIGHTS)
    assert not saved.is_ours(folder)
    with pytest.raises(ValueError, match="train did not write this model"):
        saved.load(folder)
