# SPDX-License-Identifier: Apache-2.0
"""`export submission`: from a release of the challenge over `evaluate` to the file to hand in."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from releases import image_of
from safetensors.torch import save_file
from transformers import ResNetConfig, ResNetModel

from viewsynth import config, data
from viewsynth.commands import evaluate, export

NAME = "ag_reid_challenge"
GENDERS = {"P0101T04041A1": 0, "P0102T04041A2": 1, "P0201T04041A1": 2}


@pytest.fixture
def challenge(release):
    return release(NAME)


def evaluated(root, output, *options):
    argv = ["--data.name", NAME, "--data.root", root, "--output", output, *options]
    assert evaluate.run(config.parse(evaluate.Config, [*map(str, argv)], "evaluate")) == 0
    return output


def feature_file(root, path, dimensions=4):
    """Features near one axis per identity; images of the add-on lie nearest to the first."""
    rng, names, rows = np.random.default_rng(0), [], []
    for sample in data.load(NAME, root).samples:
        if sample.split != "train":
            axis = GENDERS.get(sample.pid.rpartition("/")[2], 0)
            axis = 0 if sample.name.startswith("gallery_add_on") else axis
            noise = 0 if "add_on" in sample.name else 0.1
            rows.append(np.eye(dimensions)[axis] + noise * rng.normal(size=dimensions))
            names.append(sample.name)
    rows = torch.tensor(np.stack(rows)).float()
    save_file({"features": rows}, path, {"names": json.dumps(names)})
    return path


def exported(folder, *options):
    argv = ["submission", folder, *options]
    assert export.run(config.parse(export.Config, [*map(str, argv)], "export")) == 0
    place = folder / "export" / "submission"
    text = (place / "submission.csv").read_text()
    return text, [json.loads(line) for line in (place / "sources.jsonl").read_text().splitlines()]


def test_every_query_has_its_identity(challenge, tmp_path, capsys):
    file = feature_file(challenge, tmp_path / "features.safetensors")
    folder = evaluated(challenge, tmp_path / "out", "--features", file)
    text, sources = exported(folder)
    assert "6 answers; the challenge has 8499 queries" in capsys.readouterr().err
    rows = list(csv.DictReader(text.splitlines()))
    assert text.splitlines()[0] == "image_id,person_id" and "\r" not in text
    protocols = data.load(NAME, challenge).protocols
    queries = [sample for name in ("A->G", "G->A") for sample in protocols[name].query]
    assert [row["image_id"] for row in rows] == [s.paths[0].stem for s in queries]
    assert [row["person_id"] for row in rows] == [s.pid.rpartition("/")[2] for s in queries]
    assert [row["protocol"] for row in sources] == ["A->G"] * 2 + ["G->A"] * 4
    for row, source in zip(rows, sources, strict=True):
        assert row["person_id"] in source["gallery"] and row["image_id"] in source["query"]
        assert "/bounding_box_test/" in source["gallery"]  # the add-on is no answer
    assert exported(folder)[0] == text  # an own export is replaced
    evaluated(challenge, tmp_path / "out", "--features", file)  # and does not bar a new evaluation


def test_features_of_a_model(challenge, tmp_path):
    model = tmp_path / "model"
    torch.manual_seed(0)
    small = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ResNetModel(small).save_pretrained(model)
    options = ("--model.path", model, "--model.size", 32, 16, "--device", "cpu")
    for number, path in enumerate((challenge / "exp3_aerial_to_ground" / "query").iterdir()):
        path.write_bytes(image_of(number))
    scored, _ = exported(evaluated(challenge, tmp_path / "scored", *options))
    # the same pictures with hidden identities: features, no scores, the same answers
    for folder in ("exp3_aerial_to_ground", "exp6_ground_to_aerial"):
        for path in (challenge / folder / "query").iterdir():
            tail = path.name.partition("A")[2][1:]
            path.rename(path.with_name(f"P-1T-1A-{int(path.name[4]) + 1}{tail}"))
    folder = evaluated(challenge, tmp_path / "hidden", *options)
    assert not (folder / "results.json").exists() and (folder / "config.yaml").is_file()
    hidden, _ = exported(folder)
    people = [[line.partition(",")[2] for line in text.splitlines()] for text in (scored, hidden)]
    assert sorted(people[0]) == sorted(people[1])


def test_wrong_folders(challenge, release, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished evaluation: it has no config.yaml"):
        exported(tmp_path)
    file = feature_file(challenge, tmp_path / "features.safetensors")
    folder = evaluated(challenge, tmp_path / "out", "--features", file)
    options = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(options.replace(NAME, "cargo"))
    with pytest.raises(ValueError, match=f"for the data set {NAME}; .* evaluated cargo"):
        exported(folder)
    for wrong in ("- 1\n", "data: {}\n", "data: [\n"):
        (folder / "config.yaml").write_text(wrong)
        with pytest.raises(ValueError, match="has no data.name"):
            exported(folder)
    (folder / "config.yaml").write_text(options)
    image = next(challenge.glob("exp3_aerial_to_ground/query/*.jpg"))
    image.rename(image.with_name("P0101T04041A1C0F99.jpg"))
    with pytest.raises(ValueError, match="has changed since"):
        exported(folder)
    for path in challenge.glob("exp6_ground_to_aerial/query/*.jpg"):
        path.unlink()
    (folder / "results.json").unlink()
    with pytest.raises(ValueError, match="needs both directions; .* has no protocol G->A"):
        exported(folder)
