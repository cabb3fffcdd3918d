# SPDX-License-Identifier: Apache-2.0
"""`evaluate --features` end to end, with files as other programs write them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from own_pictures import put, write_csv
from safetensors.torch import save_file

from viewsynth import commands, config, data
from viewsynth.commands import evaluate

FIGURES = ("mAP", "mINP", "rank1", "queries", "valid_queries", "gallery")


def run(root, output, *options) -> list[dict]:
    argv = ["--data.name", "cargo", "--data.root", root, "--output", output, *options]
    parsed = config.parse(evaluate.Config, [*map(str, argv)], "evaluate")
    assert evaluate.run(parsed) == 0
    return json.loads((output / "results.json").read_text())["results"]


@pytest.fixture
def cargo(release):
    """A small release, the names of its test images, and their features."""
    root = release("cargo")
    names = [s.name for s in data.load("cargo", root).samples if s.split != "train"]
    rows = np.random.default_rng(0).normal(size=(len(names), 12)).astype(np.float16)
    return root, names, rows


def test_all_formats_give_the_same_results(cargo, tmp_path, capsys):
    root, names, rows = cargo
    plain, half = tmp_path / "plain.safetensors", tmp_path / "half.safetensors"
    save_file({"features": torch.tensor(rows).float()}, plain, {"names": json.dumps(names)})
    dotted = json.dumps([f"./{name}" for name in names])
    save_file({"features": torch.tensor(rows)}, half, {"names": dotted})
    np.save(tmp_path / "double.npy", rows.astype(np.float64)[:, None])
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(f"{root}/{name}" for name in names))
    vectors = dict(
        zip([name.replace("/", "\\") for name in names], torch.tensor(rows).bfloat16(), strict=True)
    )
    torch.save(vectors, tmp_path / "vectors.pt")
    expected = run(root, tmp_path / "1", "--features", plain)
    assert "converted" not in capsys.readouterr().err
    for number, options in enumerate(
        ((half,), (tmp_path / "double.npy", "--names", tmp_path / "list.csv")), 2
    ):
        found = run(root, tmp_path / str(number), "--features", *options)
        told = capsys.readouterr()
        assert [[one[k] for k in FIGURES] for one in found] == [
            [one[k] for k in FIGURES] for one in expected
        ]
        line = f"cargo: {options[0].name} holds float{16 * 4 ** (number - 2)}: converted to float32"
        assert line in told.err.splitlines() and line[7:] in told.out
    rounded = run(root, tmp_path / "4", "--features", tmp_path / "vectors.pt")
    assert [one["valid_queries"] for one in rounded] == [one["valid_queries"] for one in expected]
    assert "vectors.pt holds bfloat16" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoilt", [{"pid": "nan"}, {"pid": "-1"}, {"file_name": "gone.jpg"}, {"elevation": "60°"}]
)
def test_unusable_rows_are_noted_in_the_table(tmp_path, spoilt, capsys):
    root = put(tmp_path / "set", *(f"{n}.jpg" for n in range(6)))
    rows = [
        {
            "file_name": f"{n}.jpg",
            "pid": f"p{n % 2}",
            "camid": str(n),
            "elevation": "3",
            "split": "gallery" if n > 1 else "query",
            "view": "ground",
        }
        for n in range(6)
    ]
    write_csv(root, *rows[:5], rows[5] | spoilt)
    file = tmp_path / "f.safetensors"
    names = json.dumps([row["file_name"] for row in rows])
    save_file({"features": torch.eye(6)}, file, {"names": names})
    run(root, tmp_path / "out", "--features", file, "--data.name", "folder")
    said = "1 rows, files or folders cannot be used and are left out (rejects.jsonl), e.g. metadata"
    assert said in (tmp_path / "out" / "table.md").read_text() and said in capsys.readouterr().out


def test_names_go_with_features(cargo, tmp_path):
    root, _, _ = cargo
    with pytest.raises(ValueError, match="names: a file of names is for --features only"):
        run(root, tmp_path / "out", "--model.path", "some/model", "--names", tmp_path / "n.txt")
    (tmp_path / "f.npy").touch()
    with pytest.raises(FileNotFoundError, match="names: there is no file"):
        run(root, tmp_path / "out", "--features", tmp_path / "f.npy", "--names", tmp_path / "n.txt")
    assert not (tmp_path / "out").exists()


def test_the_wrong_axis_is_named(cargo, tmp_path, capsys):
    root, names, _ = cargo
    file = tmp_path / "parts.safetensors"
    save_file({"features": torch.ones(len(names), 8, 4)}, file, {"names": json.dumps(names)})
    argv = ["--data.name", "cargo", "--data.root", root, "--features", file, "--output", tmp_path]
    with pytest.raises(SystemExit) as left:
        commands.main("evaluate", [*map(str, argv[:-1]), str(tmp_path / "out")])
    said = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 2 and "axis 1 of size 8 is too many" in said
    assert f"{file} must be [N, D]" in said and f"got [{len(names)}, 8, 4]" in said
