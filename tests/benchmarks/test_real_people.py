# SPDX-License-Identifier: Apache-2.0
"""The benchmark on real people: arms, features and tables, on flat images and tiny networks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_people
import torch
from flat_images import put
from PIL import Image

from viewsynth.reid import backbones, methods, saved

SIZE = (32, 16)
COLOURS = {"x": (220, 30, 40), "y": (30, 200, 60), "z": (40, 50, 210)}


@pytest.fixture(scope="module")
def real_people(benchmarks):
    return benchmarks("real_people")


def images_of(seed: int, count: int = 2) -> dict[str, list[np.ndarray]]:
    """Noisy images of one colour for each person, in several sizes."""
    rng = np.random.default_rng(seed)
    return {
        pid: [
            (rng.normal(0, 30, (50 + 9 * k, 30, 3)) + colour).clip(0, 255).astype(np.uint8)
            for k in range(count)
        ]
        for pid, colour in COLOURS.items()
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A converted backbone, and two trained models on it."""
    root = tmp_path_factory.mktemp("models")
    found = {"plain": tiny_people.vit(root / "vit")}
    for seed in (0, 1):
        body = backbones.load(str(found["plain"]), SIZE)
        method = methods.build("baseline", body, 3, seed=seed)
        method.neck.norm.running_mean += seed
        saved.save(method, root / f"seed{seed}", {})
        found[f"seed{seed}"] = root / f"seed{seed}"
    return found


def test_arms_have_a_name_and_one_model_for_each_seed(real_people, models):
    root = models["seed0"].parent
    found = real_people.parse_arms([f"a={root / 'vit'}", f"b={root}/seed*"])
    assert found == {"a": [root / "vit"], "b": [root / "seed0", root / "seed1"]}
    for wrong in ([f"{root}"], [f"={root}"], ["a="], [f"a={root}", f"a={root}"]):
        with pytest.raises(ValueError, match="--arms .*: expected NAME=FOLDER"):
            real_people.parse_arms(wrong)
    with pytest.raises(ValueError, match="--arms a=.*: there is no such folder"):
        real_people.parse_arms([f"a={root}/run*"])


def test_features_are_those_of_images_and_their_mirror_images(real_people, models):
    embed = real_people.embedder(models["seed1"])
    images = [image for own in images_of(0).values() for image in own]
    rows = embed(images)
    model, _ = saved.load(models["seed1"])
    for image, row in zip(images, rows, strict=True):
        np.testing.assert_allclose(embed([image])[0], row, atol=1e-5)
        np.testing.assert_allclose(embed([image[:, ::-1]])[0], row, atol=1e-4)
        small = Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        pixels = np.stack([np.asarray(small), np.asarray(small)[:, ::-1]]) / 255
        both = model.features(torch.tensor(pixels).permute(0, 3, 1, 2).float())
        wanted = both.detach().numpy().mean(0)
        np.testing.assert_allclose(row, wanted / np.linalg.norm(wanted), atol=1e-4)
    with pytest.raises(ValueError, match="--arms: .*nowhere"):
        real_people.embedder(Path("nowhere"))


def test_the_gallery_is_a_mean_in_which_both_kinds_count_the_same(real_people, scoring):
    air, ground, views = images_of(0, 3), images_of(1, 2), images_of(2, 5)
    views["y"] = images_of(3)["z"] * 3

    def embed(images):
        means = np.stack([image.mean((0, 1)) - 100 for image in images])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    found = list(real_people.results(air, ground, views, embed).values())
    galleries = [], []
    for pid in air:
        both = []
        for images in (ground, views):
            mean = embed(images[pid]).mean(0)
            both.append(mean / np.linalg.norm(mean))
        galleries[0].append(both[0])
        galleries[1].append((both[0] + both[1]) / np.linalg.norm(both[0] + both[1]))
    queries = [embed(own) for own in air.values()]
    for got, gallery in zip(found, galleries, strict=True):
        np.testing.assert_allclose(got, scoring.scores(queries, np.stack(gallery)))
    assert (found[0][:, :2] == 1).all() and found[1][1, 2] < found[0][1, 2]
    alone = real_people.results(air, ground, {}, embed)
    assert list(alone) == ["ground crops"] and (alone["ground crops"] == found[0]).all()


def test_differences_are_paired_over_people(real_people):
    rng = np.random.default_rng(0)
    base = rng.uniform(size=(11, 3))
    arms = {"first": [base], "better": [base + 0.1, base + 0.3], "same": [base]}
    said = real_people.tables({k: [{"all": s} for s in seeds] for k, seeds in arms.items()})
    rows = dict(row.strip("| ").split(" | ", 1) for row in said.splitlines() if " | " in row)
    cell = "0.200 [0.200, 0.200]"
    assert rows["better"] == f"{cell} | {cell} | {cell}"  # of the last table
    assert rows["same"].startswith("0.000 [0.000, 0.000] | ")
    assert f"| first | 1 | {base[:, 0].mean():.3f} [" in said
    assert said.count("| 0.141 | 0.141 | 0.141 |\n") == 1 and said.count("| - | - | - |\n") == 2


def test_the_command(real_people, models, run, tmp_path, monkeypatch, capsys):
    for name, seed in (("air", 0), ("ground", 1)):
        for person, own in enumerate(images_of(seed).values()):
            for number, image in enumerate(own):
                put(tmp_path / name / str(person), image, f"{number}.png")
    words = ["real_people.py", "--air", str(tmp_path / "air"), "--ground", str(tmp_path / "ground")]
    arms = [f"one={models['seed0']}", f"two={models['seed0'].parent}/seed*"]
    monkeypatch.setattr(sys, "argv", [*words, "--arms", *arms])
    real_people.main()
    said = capsys.readouterr().out
    assert said.startswith("3 people, 6 aerial queries, 6 ground crops, 0 views\n")
    assert "| one | 1 | " in said and "| two | 2 | " in said and "| minus one |" in said
    monkeypatch.setattr(sys, "argv", [*words, "--arms", *arms, "--run", str(run)])
    real_people.main()
    more = capsys.readouterr().out
    assert more.startswith("3 people, 6 aerial queries, 6 ground crops, 9 views\n")
    kind = "| gallery: ground crops + our views at 30-60 |"
    assert more.partition(kind)[0].rstrip().endswith(said.partition("\n")[2].rstrip())
    assert more.count(kind) == 1
    monkeypatch.setattr(sys, "argv", [*words, "--arms", "one"])
    with pytest.raises(SystemExit) as ended:
        real_people.main()
    assert ended.value.code == 2 and "expected NAME=FOLDER" in capsys.readouterr().err
