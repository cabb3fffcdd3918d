# SPDX-License-Identifier: Apache-2.0
"""Which mesh belongs to whom, and meshes in the machinery of a run (drawn by `drawing`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import drawing
import own_meshes
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewsynth import config, manifest
from viewsynth.commands import generate
from viewsynth.generate import gather, meshes
from viewsynth.generate.worker import Job
from viewsynth.records import MESH, Sample
from viewsynth.runtime.files import stem_of


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def people(*pids: str | tuple[str, str]) -> list[Sample]:
    pairs = [(pid, "") if isinstance(pid, str) else pid for pid in pids]
    return [
        Sample(paths=(Path(f"/{k}.jpg"),), pid=pid, outfit=outfit, name=f"{k}.jpg")
        for k, (pid, outfit) in enumerate(pairs)
    ]


def owners(samples) -> dict[tuple[str, str], str]:
    return {(s.pid, s.outfit): s.name for s in samples if s.modality == MESH}


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cargo__2519.glb", "2519.obj", "cargo/2519.ply", "2519.GLTF"])
def test_names_of_a_scoped_pid(tmp_path, name):
    found, rejects, told = meshes.attach(folder(tmp_path, name), people("cargo/2519", "cargo/7"))
    assert owners(found) == {("cargo/2519", ""): name} and not rejects
    assert [s.name for s in found[:2]] == ["0.jpg", "1.jpg"]
    assert told == [
        "1 of 2 people have a mesh in data.meshes",
        "  1 are reconstructed from their photos: cargo/7",
    ]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.text("ab+/ é"))
def test_every_person_is_found_by_the_name_that_export_gives(tmp_path_factory, pid, outfit):
    root = tmp_path_factory.mktemp("m")
    own = folder(root, f"{stem_of(pid, outfit)}.glb")
    found, rejects, _ = meshes.attach(own, people((pid, outfit), ("somebody else", "x")))
    assert list(owners(found)) == [(pid, outfit)] and not rejects
    alone, _ = meshes.alone(own)
    if "~" not in stem_of(pid, outfit):
        assert [(s.pid, s.outfit) for s in alone] == [(pid, outfit)]


def test_outfits(tmp_path):
    both = people(("a", "red"), ("a", "blue"), ("b", "red"))
    found, _, _ = meshes.attach(folder(tmp_path, "a+red.glb", "a+blue.glb", "b.glb"), both)
    assert owners(found) == {
        ("a", "red"): "a+red.glb",
        ("a", "blue"): "a+blue.glb",
        ("b", "red"): "b.glb",
    }
    with pytest.raises(ValueError, match=r"a.glb may be of 2 people: name it a\+red.glb, a\+blue"):
        meshes.attach(folder(tmp_path / "one", "a.glb"), both)


def test_names_of_nobody_of_two_and_of_several(tmp_path):
    found, (reject,), told = meshes.attach(folder(tmp_path / "a", "x.glb", "b.glb"), people("b"))
    assert (reject.source, reject.stage, reject.kind) == ("x.glb", "input", "quality")
    assert len(owners(found)) == 1 and "1 meshes are of nobody in the data set: x.glb" in told[-1]
    with pytest.raises(ValueError, match="7.glb may be of 2 people: name it a__7.glb, b__7.glb"):
        meshes.attach(folder(tmp_path / "b", "7.glb"), people("a/7", "b/7"))
    with pytest.raises(ValueError, match="are of one person: keep one"):
        meshes.attach(folder(tmp_path / "c", "a__7.glb", "7.glb"), people("a/7"))
    for read in (meshes.alone, lambda root: meshes.attach(root, people("7"))):
        with pytest.raises(ValueError, match="are of one person: keep one"):
            read(folder(tmp_path / "d", "7.glb", "7.obj"))
        with pytest.raises(ValueError, match="there is no mesh in .*; expected <pid>.glb"):
            read(folder(tmp_path / "e", "7.stl", ".hidden.glb"))


def test_files_that_a_mesh_names_belong_to_it_and_links_do_not(tmp_path):
    made = own_meshes.textured()
    text, others = made.export(file_type="obj", return_texture=True)
    (tmp_path / "p.obj").write_text(text)
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "link.glb").symlink_to(tmp_path / "p.obj")
    (sample,), (reject,) = meshes.alone(tmp_path)
    assert {path.name for path in sample.paths} == {"p.obj", *others}
    assert sample.paths[0].name == "p.obj" and reject.source == "link.glb"


# ---- reading one person ----------------------------------------------------------------------


def entry(root: Path) -> manifest.Entry:
    (found,) = manifest.entries(meshes.alone(root)[0])
    return found


def read(one: manifest.Entry, root: Path):
    settings = generate.Config(data=generate.Data(meshes=root))
    return gather.crops(one, Job(root / "run", root, settings, "cpu", {}, {}, {}), None)


def test_a_mesh_that_is_unusable_or_has_changed_is_a_reject(tmp_path):
    (tmp_path / "p.glb").write_bytes(own_meshes.textured().export(file_type="glb"))
    one = entry(tmp_path)
    (group,), rejects = read(one, tmp_path)
    assert not rejects and group.mesh.sha256 == one.sha256[0] and group.first.pid == "p"
    (tmp_path / "p.glb").write_bytes(own_meshes.coloured().export(file_type="glb"))
    groups, (reject,) = read(one, tmp_path)
    assert not groups and reject.kind == "fault" and "has changed since" in reject.reason
    (tmp_path / "p.glb").write_bytes(b"no mesh")
    groups, (reject,) = read(entry(tmp_path), tmp_path)
    assert not groups and (reject.stage, reject.kind, reject.pid) == ("input", "quality", "p")
    assert "the mesh cannot be used: the file cannot be read as GLB" in reject.reason


# ---- runs ------------------------------------------------------------------------------------


def run(output: Path, *options) -> int:
    argv = [*map(str, options), "--output", str(output), "--workers", "1", "--chunk", "2"]
    argv += ["--views.elevations", "30", "60", "--views.azimuths", "0"]
    parsed = config.parse(generate.Config, argv, "drawing")
    return generate.run(parsed, drawing.prepare, drawing.load, drawing.make)


def content(output: Path) -> dict[str, bytes]:
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and path.name not in ("run.json", "config.yaml")
    }


def test_resume_and_changed_meshes(tmp_path, capsys):
    own = folder(tmp_path / "meshes", "a.glb", "b.glb", "c.glb")
    assert run(tmp_path / "out", "--data.meshes", own) == 0
    assert "without data.root: fronts are taken to face +z" in capsys.readouterr().err
    before = content(tmp_path / "out")
    (tmp_path / "out" / "parts" / "00001.jsonl").unlink()
    assert run(tmp_path / "out", "--data.meshes", own) == 0
    assert content(tmp_path / "out") == before
    folder(own, "d.glb")
    assert run(tmp_path / "out", "--data.meshes", own) == 0
    rows = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    assert {json.loads(row)["pid"] for row in rows} == set("abcd")
    (own / "b.glb").write_bytes(b"another one")
    with pytest.raises(ValueError, match="the images of 'b' are not those"):
        run(tmp_path / "out", "--data.meshes", own)


def test_settings(tmp_path):
    """Without the option they are as before it existed; a run cannot get meshes later."""
    root = drawing.photos(tmp_path / "photos", ["a/a.jpg"])
    own = folder(tmp_path / "meshes", "a.glb")
    assert run(tmp_path / "out", "--data.root", root) == 0
    frozen = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "meshes" not in frozen["settings"]["data"]
    with pytest.raises(ValueError, match="another configuration"):
        run(tmp_path / "out", "--data.root", root, "--data.meshes", own)
    assert run(tmp_path / "both", "--data.root", root, "--data.meshes", own) == 0
    files = json.loads((tmp_path / "both" / "run.json").read_text())["people"][0]
    assert len(files["sha256"]) == 2 and files["samples"][1]["modality"] == MESH


def test_folders_that_cannot_be_read_or_written(tmp_path):
    own = folder(tmp_path / "meshes", "a.glb")
    with pytest.raises(FileNotFoundError, match="data.meshes must be a folder of meshes; .* exist"):
        run(tmp_path / "out", "--data.meshes", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="is a file, not a folder"):
        run(tmp_path / "out", "--data.meshes", own / "a.glb")
    with pytest.raises(ValueError, match="output must not be inside data.meshes"):
        run(own / "out", "--data.meshes", own)
    shutil.rmtree(own)


def test_the_folder_of_a_run_is_named_after_its_meshes(tmp_path):
    argv = ["--data.meshes", str(folder(tmp_path / "bodies", "a.glb"))]
    assert config.parse(generate.Config, argv, "generate").folder.name == "bodies"
