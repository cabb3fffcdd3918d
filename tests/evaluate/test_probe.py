# SPDX-License-Identifier: Apache-2.0
"""The linear probe: accuracy with and without a signal, and which people are used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from viewsynth import config
from viewsynth.commands import probe as command
from viewsynth.evaluate.probe import probe
from viewsynth.reid import backbones, methods, saved
from viewsynth.runtime.files import sha256, to_jsonl

PEOPLE = 60


def generated(shift: float, width: int = 16, each: int = 4):
    """Features with one cluster per person; those of synthetic images are shifted."""
    rng = np.random.default_rng(0)
    pids = np.repeat([f"p{n}" for n in range(PEOPLE)], 2 * each)
    kinds = np.tile(np.arange(2 * each) < each, PEOPLE)
    rows = np.repeat(rng.normal(0, 2, (PEOPLE, width)), 2 * each, 0)
    rows += rng.normal(0, 1, rows.shape)
    rows[kinds, 0] += shift
    return rows, kinds, pids.tolist()


def test_accuracy_without_a_signal_is_chance():
    found = probe(*generated(0.0))
    assert found.accuracy[1] < 0.5 < found.accuracy[2] and found.chance == 0.5
    assert (found.people, found.pictures) == (PEOPLE, 480)


def test_accuracy_grows_with_the_signal():
    assert probe(*generated(20.0)).accuracy[0] > 0.99
    weak = probe(*generated(3.0))
    assert 0.6 < weak.accuracy[1] < weak.accuracy[0] < weak.accuracy[2] < 0.95


def test_identity_does_not_predict_the_kind():
    """Features identify the person, and all but one image of a person are of one kind."""
    rng = np.random.default_rng(1)
    rows, pids = np.repeat(np.eye(PEOPLE), 4, 0), np.repeat(np.arange(PEOPLE), 4)
    kinds = np.repeat(rng.random(PEOPLE) < 0.5, 4)
    kinds[::4] = ~kinds[::4]
    found = probe(rows + rng.normal(0, 0.01, rows.shape), kinds, [str(p) for p in pids])
    assert abs(found.accuracy[0] - 0.5) < 0.1


def test_a_rare_kind_has_equal_weight():
    rows, kinds, pids = generated(0.0)
    first = np.array([not kind or n % 8 == 0 for n, kind in enumerate(kinds)])
    found = probe(rows[first], kinds[first], np.array(pids)[first].tolist())
    assert found.accuracy[1] < 0.5 < found.accuracy[2]  # always "real" would be right in 80 %


def test_order_is_irrelevant_and_people_of_one_kind_are_left_out():
    rows, kinds, pids = generated(3.0)
    order = np.random.default_rng(2).permutation(len(pids))
    again = probe(rows[order], kinds[order], [pids[n] for n in order])
    assert again.accuracy == pytest.approx(probe(rows, kinds, pids).accuracy, abs=0.01)
    more = probe(np.vstack([rows, rows[:1]]), np.append(kinds, True), [*pids, "alone"])
    assert more == probe(rows, kinds, pids)
    with pytest.raises(ValueError, match="needs 5 people or more .* both kinds, got 3"):
        probe(rows[:24], kinds[:24], pids[:24])


@pytest.fixture
def trained(tmp_path):
    body = backbones.load("small", (32, 16))
    saved.save(methods.build("baseline", body, 6), tmp_path / "model", {})
    return tmp_path / "model"


def test_the_command(tmp_path, trained, capsys):
    """Real images are dark and synthetic ones bright, which features of any network show."""
    rng, rows = np.random.default_rng(0), []

    def draw(path, level):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 60, (40, 20, 3)) + level
        Image.fromarray(noise.astype(np.uint8)).save(path)

    for who in range(6):
        for camera in (1, 6):  # Cam1 is the drone
            for n in range(2):
                name = f"Cam{camera}_day_{who:04d}_{n}.jpg"
                draw(tmp_path / f"CARGO/train/Cam{camera}/{name}", 20)
        for n in range(6):
            name = f"images/{who}/s_{n}.png"
            draw(tmp_path / "run" / name, 180)
            source = f"train/Cam6/Cam6_day_{who:04d}_0.jpg"
            rows.append(
                {
                    "file_name": name,
                    "pid": f"cargo/{who}",
                    "camid": "6:e30",
                    "platform": "drone",
                    "view": "aerial",
                    "split": "train",
                    "source": "synthetic",
                    "outfit": "",
                    "seen_ratio": 0.5,
                    "weight": 0.4,
                    "sources": [{"file": source, "sha256": sha256(tmp_path / "CARGO" / source)}],
                }
            )
    for split in ("query", "gallery"):
        draw(tmp_path / f"CARGO/{split}/Cam6/Cam6_day_0100_{len(split)}.jpg", 20)
    (tmp_path / "run/metadata.jsonl").write_bytes(to_jsonl(rows))
    argv = ["--data.name", "cargo", "--data.root", tmp_path / "CARGO", "--data.synthetic"]
    argv += [tmp_path / "run", "--model", trained, "--output", tmp_path / "out"]
    argv += ["--cache", tmp_path / "cache", "--device", "cpu"]
    assert command.run(config.parse(command.Config, list(map(str, argv)), "probe")) == 0
    found = json.loads((tmp_path / "out/probe.json").read_text())["rows"]
    assert [(row["apart"], row["people"], row["pictures"]) for row in found] == [
        ("synthetic from real aerial", 6, 36),
        ("synthetic from real ground", 6, 36),
        ("real aerial from real ground", 6, 24),
    ]
    assert found[0]["accuracy"][0] == 1.0 and found[2]["accuracy"][0] < 0.9
    assert "synthetic from real aerial: 100.0 %" in capsys.readouterr().out
    with pytest.raises(ValueError, match="give --model, --data.root and --data.synthetic"):
        command.run(command.Config())
