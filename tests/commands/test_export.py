# SPDX-License-Identifier: Apache-2.0
"""Exports of a small run: every exported file can be traced to a row."""

import io
import json
import re
import shutil
import struct
import tarfile

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from viewsynth import bodies, cameras
from viewsynth.commands import export
from viewsynth.manifest import renaming
from viewsynth.reconstruct.posing import Poser, meshes
from viewsynth.records import Person
from viewsynth.render import Mesh, shade
from viewsynth.report import glb
from viewsynth.runtime.files import folder_of, stem_of

PIDS = ("cargo/2519", "cargo/7")


@pytest.fixture(scope="module")
def body():
    return bodies.load("anny")


@pytest.fixture(scope="module")
def run(tmp_path_factory, body):
    """A run of two people with two cameras each, as `generate` writes it."""
    folder = tmp_path_factory.mktemp("run")
    rng, rows = np.random.default_rng(0), []
    for pid in PIDS:
        file = folder / f"people/{stem_of(pid)}.safetensors"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(_person(body, pid).to_bytes())
        for elevation, camid in ((37.5, "c1:e30"), (60.0, "c1:e60"), (61.0, "c1:e60")):
            name = f"images/{folder_of(pid)}/e{elevation:g}_a0.jpg"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (20, 10, 3), np.uint8)).save(folder / name)
            rows.append(
                {
                    "file_name": name,
                    "pid": pid,
                    "camid": camid,
                    "elevation": elevation,
                    "azimuth": 0.0,
                    "person": file.relative_to(folder).as_posix(),
                    "pose_mode": "relaxed",
                    "weight": 0.5,
                }
            )
    text = "".join(json.dumps(row) + "\n" for row in reversed(rows))
    (folder / "metadata.jsonl").write_text(text)
    return folder


def _person(body, pid: str) -> Person:
    row, column = np.mgrid[0:128, 0:128].astype(np.uint8)
    texture = np.stack([2 * row, 2 * column, 255 - row - column], -1)
    return Person(
        pid=pid,
        body="anny",
        shape=body.shape_mean.numpy(),
        pose=body.pose_mean.numpy(),
        offsets=np.zeros(len(body.parts), np.float32),
        scale=1.0,
        texture=texture,
        seen=np.full((128, 128), 255, np.uint8),
    )


def _metadata(folder, name="metadata.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.mark.parametrize(
    "kind, pattern",
    [
        ("market", r"bounding_box_train/(?P<pid>\d{4})_c(?P<cam>[1-6])s1_\d{6}_01\.jpg"),
        ("cargo", r"train/Cam(?P<cam>[1-5])/Cam(?P=cam)_day_(?P<pid>\d+)_\d+\.jpg"),
    ],
)
def test_renamed_images_can_be_traced(run, tmp_path, kind, pattern):
    assert export.run(export.Config(kind, run, str(tmp_path / "out"))) == 0
    rows = _metadata(tmp_path / "out", "sources.jsonl")
    assert len(rows) == len(_metadata(run)) == len({row["file_name"] for row in rows})
    for row in rows:
        match = re.fullmatch(pattern, row["file_name"])
        assert match, row["file_name"]
        assert int(match["pid"]) == row["label"] and int(match["cam"]) == row["camera"]
        assert (row["label"] == {"cargo/7": 7, "cargo/2519": 2519}[row["row"]["pid"]]) == (
            kind == "cargo"  # 2519 is too large for the readers of Market-1501
        )
        copied = (tmp_path / "out" / row["file_name"]).read_bytes()
        assert copied == (run / row["original"]).read_bytes()
    cameras = {(row["camera"], row["row"]["camid"]) for row in rows}
    assert len(cameras) == len({camera for camera, _ in cameras}) == 2


def test_numbers_never_collide():
    assert renaming.numbers({"cargo/2519", "cargo/7"}, 9999) == {"cargo/2519": 2519, "cargo/7": 7}
    assert renaming.numbers({"cargo/2519", "cargo/7"}, 1501) == {"cargo/2519": 1, "cargo/7": 2}
    assert renaming.numbers({"a/1", "b/1"}, 1501) == {"a/1": 1, "b/1": 2}
    assert renaming.numbers({"6", "06"}, 1501) == {"06": 1, "6": 2}
    assert renaming.numbers({"0000", "0001"}, 1501) == {"0000": 1, "0001": 2}  # 0 means "nobody"
    assert renaming.numbers({"anna", "2"}, 1501) == {"2": 1, "anna": 2}
    assert renaming.numbers({f"9{7:020d}", "8"}, 1501) == {"8": 1, f"9{7:020d}": 2}  # not 7


def test_webdataset_shards_are_whole_and_deterministic(run, tmp_path):
    for name in ("a", "b"):
        export.run(export.Config("webdataset", run, str(tmp_path / name), shard=4))
    for shard in ("000000.tar", "000001.tar"):
        assert (tmp_path / "a" / shard).read_bytes() == (tmp_path / "b" / shard).read_bytes()
    seen = {}
    for entry in _metadata(tmp_path / "a", "sources.jsonl"):
        with tarfile.open(tmp_path / "a" / entry["shard"]) as tar:
            names = tar.getnames()
            assert all(
                names[k].split(".")[0] == names[k + 1].split(".")[0]
                for k in range(0, len(names), 2)
            )
            row = json.load(tar.extractfile(entry["key"] + ".json"))
            picture = tar.extractfile(entry["key"] + ".jpg").read()
            assert tar.getmember(entry["key"] + ".jpg").mtime == 0
        assert row["file_name"] == entry["original"]
        assert picture == (run / entry["original"]).read_bytes()
        seen[entry["original"]] = row
    assert sorted(seen) == sorted(row["file_name"] for row in _metadata(run))


def test_export_to_a_url_and_never_twice(run, tmp_path):
    import fsspec

    export.run(export.Config("cargo", run, "memory://viewsynth-test/out"))
    files = fsspec.filesystem("memory")
    assert len(files.glob("/viewsynth-test/out/train/*/*.jpg")) == 6
    with pytest.raises(ValueError, match="not empty"):
        export.run(export.Config("market", run, "memory://viewsynth-test/out"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        export.run(export.Config("market", run, str(tmp_path / "file")))


def test_the_default_export_is_replaced(run):
    for _ in range(2):
        assert export.run(export.Config("cargo", run)) == 0
    assert len(_metadata(run / "export" / "cargo", "sources.jsonl")) == 6


@pytest.mark.parametrize(
    "line, error, said",
    [
        ("", ValueError, "nothing can be exported: no view was kept"),
        ('{"file_name": "images/a.jpg", "pid"', ValueError, "metadata.jsonl:1: expected a row of"),
        ("[1, 2]", ValueError, "metadata.jsonl:1: file_name must be text, got None"),
        ({"file_name": "../secret.jpg"}, ValueError, "leads out"),
        ({"file_name": "images/gone.jpg"}, FileNotFoundError, "no image images/gone.jpg"),
        ({"camid": None}, ValueError, "camid must be text, got None"),  # images of a user
        ({"pid": 7}, ValueError, "pid must be text, got 7"),
        ({"elevation": "steep"}, ValueError, "elevation must be a number, got 'steep'"),
        ({"elevation": float("nan")}, ValueError, "elevation must be a number, got nan"),
    ],
)
def test_bad_runs_are_refused_and_nothing_is_written(run, tmp_path, line, error, said):
    with pytest.raises(FileNotFoundError, match="no finished run.*viewsynth generate"):
        export.run(export.Config("cargo", tmp_path))
    line = json.dumps(_metadata(run)[0] | line) if isinstance(line, dict) else line
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(error, match=re.escape(said)):
        export.run(export.Config("cargo", tmp_path, str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind, spoilt",
    [
        ("body", {"file_name": "images/gone.jpg", "camid": None, "elevation": None}),
        ("sheet", {"camid": None}),
        ("market", {"person": None}),
        ("webdataset", {"camid": None, "person": None, "elevation": None}),
    ],
)
def test_columns_that_an_export_does_not_read_may_be_missing(run, tmp_path, kind, spoilt):
    (tmp_path / "metadata.jsonl").write_text(json.dumps(_metadata(run)[0] | spoilt) + "\n")
    for folder in ("images", "people"):
        shutil.copytree(run / folder, tmp_path / folder)
    assert export.run(export.Config(kind, tmp_path, str(tmp_path / "out"))) == 0


def test_sheets_show_every_view(run, tmp_path):
    export.run(export.Config("sheet", run, str(tmp_path / "out")))
    with Image.open(tmp_path / "out" / f"{stem_of(PIDS[0])}.png") as sheet:
        assert sheet.height > 3 * 150  # a row per elevation


def test_glb_renders_like_the_person(run, tmp_path, body):
    """Render the file with its own vertices, normals, uv and texture."""
    export.run(export.Config("body", run, str(tmp_path / "out")))
    data = (tmp_path / "out" / f"{stem_of(PIDS[0])}.glb").read_bytes()
    tools = Poser(body)
    person = Person.load(run / f"people/{stem_of(PIDS[0])}.safetensors")
    assert data == glb.write(person, tools)
    mesh = trimesh.load(io.BytesIO(data), file_type="glb", process=False).geometry["person"]
    [ours] = meshes([person], tools, "relaxed")
    expected = _views(ours)
    faces = torch.from_numpy(np.asarray(mesh.faces)).long()
    vertices = torch.from_numpy(np.array(mesh.vertices, np.float32))
    uvs = torch.from_numpy(np.array(mesh.visual.uv, np.float32))
    picture = torch.from_numpy(np.array(mesh.visual.material.baseColorTexture.convert("RGB")))
    got = _views(Mesh(vertices, faces, uvs, faces, picture, ours.seen))
    assert (got.colour - expected.colour).abs().max() < 2 / 255
    assert (got.face == expected.face).float().mean() > 0.999
    normals = torch.from_numpy(np.array(mesh.vertex_normals, np.float32))
    around = normals[faces].mean(1)
    edge = vertices[faces]
    flat = torch.linalg.cross(edge[:, 1] - edge[:, 0], edge[:, 2] - edge[:, 0])
    assert ((around * flat).sum(1) > 0).float().mean() > 0.99  # outward, like the triangles


def _views(mesh):
    angles = [torch.tensor([5.0, 60.0]), torch.tensor([0.0, 120.0])]
    pose = cameras.orbit(*angles, torch.full((2,), 5.0), torch.full((2,), 0.8))
    looking = cameras.Cameras(pose, cameras.pinhole(torch.full((2,), 300.0), (128, 96)), (128, 96))
    return shade.render([mesh], looking, torch.zeros(2, dtype=torch.long))


def test_glb_file_follows_gltf(body):
    """Read the file by hand: the version, v downwards, the front towards +z."""
    data = glb.write(_person(body, "p"), Poser(body))
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size = struct.unpack("<I", data[12:16])[0]
    tree, blob = json.loads(data[20 : 20 + size]), data[28 + size :]

    def array(index: int) -> np.ndarray:
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        width = {"VEC2": 2, "VEC3": 3}[accessor["type"]]
        return np.frombuffer(blob, "<f4", accessor["count"] * width, start).reshape(-1, width)

    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    position, uv = array(attributes["POSITION"]), array(attributes["TEXCOORD_0"])
    assert abs(position[:, 1].min()) < 1e-5 and 1.4 < position[:, 1].max() < 2.1
    head = position[position[:, 1] > position[:, 1].max() - 0.2]
    assert abs(head[:, 2]).max() == head[:, 2].max()  # the nose sticks out to +z
    ours = body.uvs.numpy()[body.face_uvs.unique().numpy()]
    assert np.allclose(np.sort(np.unique(uv[:, 1])), np.sort(np.unique(1 - ours[:, 1])), atol=1e-6)
    assert "compositeSynthetic" in json.dumps(tree)
