# SPDX-License-Identifier: Apache-2.0
"""Feature files of other programs: formats, number types, shapes and name files."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from viewsynth.evaluate import features

NAMES = ["query/Cam1/a.jpg", "query/Cam2/b.jpg", "gallery/Cam3/c.jpg", "gallery/Cam4/d.jpg"]
ROWS = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def saved(folder, rows, names=NAMES, name="mine.safetensors"):
    """Write a feature file of the format that its suffix names."""
    path, tensor = folder / name, torch.as_tensor(rows)
    if path.suffix == ".safetensors":
        about = {"names": json.dumps(names)} if names else None
        save_file({"features": tensor.contiguous()}, path, about)
    elif path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".npz":
        np.savez(path, features=rows, **({"names": np.array(names)} if names else {}))
    else:
        torch.save({"features": tensor} | ({"names": names} if names else {}), path)
    return path


# ---- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["f.safetensors", "f.npz", "f.pt", "f.pth"])
def test_all_formats_give_the_same_features(tmp_path, name):
    found = features.load(saved(tmp_path, ROWS, name=name), NAMES[::-1])
    assert np.array_equal(found.rows, ROWS[::-1]) and found.rows.dtype == np.float32
    assert found.notes == () and found.extra == 0


def test_formats_are_detected_by_content(tmp_path):
    for number, name in enumerate(("f.npz", "f.pt", "f.npy", "f.safetensors")):
        path = saved(tmp_path, ROWS, name=name).rename(tmp_path / f"{number}.bin")
        names = tmp_path / f"{number}.txt"
        if name == "f.npy":
            names.write_text("\n".join(NAMES))
        assert np.array_equal(features.load(path, NAMES).rows, ROWS)


@pytest.mark.parametrize(
    "data",
    [
        dict(zip(NAMES, torch.tensor(ROWS), strict=True)),
        dict(zip(NAMES, torch.tensor(ROWS)[:, None], strict=True)),  # vectors [1, D]
        {"features": torch.nn.Parameter(torch.tensor(ROWS)), "names": tuple(NAMES), "epoch": 3},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_content_of_torch_files(tmp_path, data, zipped):
    path = tmp_path / "f.pt"
    torch.save(data, path, _use_new_zipfile_serialization=zipped)
    assert np.array_equal(features.load(path, NAMES).rows, ROWS)


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize("how", ["torch", "torch of numpy", "pickle", "npz", "npy"])
def test_no_code_is_executed(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "f.pt"
    if how.startswith("torch"):
        torch.save({"features": ROWS if "numpy" in how else Malicious(), "names": NAMES}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps({"features": Malicious()}))
    else:
        path = tmp_path / f"f.{how}"
        objects = np.array([Malicious()], dtype=object)
        np.savez(path, features=objects) if how == "npz" else np.save(path, objects)
    with pytest.raises(ValueError, match=r"running code|can run code") as caught:
        features.load(path, NAMES)
    assert "save_file(" in str(caught.value) and str(path) in str(caught.value)
    if path.suffix == ".pt":
        assert 'torch.load("f.pt", weights_only=False)' in str(caught.value)
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"state_dict": {"w": torch.ones(2)}}, r'a dict with "features".* it has a dict of state'),
        ({"w": torch.ones(2, 3), "b": torch.ones(2)}, "it has a dict of w, b"),
        ({"feat": torch.ones(4, 6)}, "it has a dict of feat"),
        ([torch.ones(4, 6), NAMES], "it has a list"),
        ({"features": torch.ones(4, 6), "names": [1, 2, 3, 4]}, 'must have an entry "names".*got'),
        ({"features": torch.ones(4, 6), "paths": NAMES}, r'an entry "names".*--names FILE or as f'),
        ({"features": torch.eye(4).to_sparse(), "names": NAMES}, r"dense tensors.*to_dense"),
    ],
)
def test_invalid_content_of_torch_files(tmp_path, data, message):
    torch.save(data, tmp_path / "f.pt")
    with pytest.raises(ValueError, match=message):
        features.load(tmp_path / "f.pt", NAMES)


@pytest.mark.parametrize("name", ["f.safetensors", "f.npz", "f.pt", "f.npy"])
@pytest.mark.parametrize("left", [0.4, 0.9])
def test_truncated_files(tmp_path, name, left):
    path = saved(tmp_path, np.tile(ROWS, (1, 100)), name=name)
    (tmp_path / "f.txt").write_text("\n".join(NAMES))
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"features: .*f\.\w+ is no(ne)? "):
        features.load(path, NAMES)


def test_invalid_arrays_of_npz_files(tmp_path):
    np.savez(tmp_path / "f.npz", ROWS, NAMES)
    with pytest.raises(ValueError, match='must hold arrays "features".*it has arr_0, arr_1'):
        features.load(tmp_path / "f.npz", NAMES)
    np.savez(tmp_path / "f.npz", features=ROWS, names=np.array(NAMES, object))
    with pytest.raises(ValueError, match=r"Python objects.*names as np.array\(names\)"):
        features.load(tmp_path / "f.npz", NAMES)
    np.savez(tmp_path / "f.npz", features=ROWS, names=np.array(NAMES, "S"))
    assert np.array_equal(features.load(tmp_path / "f.npz", NAMES).rows, ROWS)


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["f.safetensors", "f.pt"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_other_float_types_are_converted_and_noted(tmp_path, name, kind):
    rows = torch.tensor(ROWS).to(getattr(torch, kind))
    found = features.load(saved(tmp_path, rows, name=name), NAMES)
    assert found.rows.dtype == np.float32 and np.array_equal(found.rows, rows.float().numpy())
    assert found.notes == (f"{name} holds {kind}: converted to float32",)


@pytest.mark.parametrize("kind", ["<f2", ">f2", ">f4", ">f8", "<f8"])
def test_float_types_of_numpy(tmp_path, kind):
    found = features.load(saved_npz(tmp_path, ROWS.astype(kind)), NAMES)
    assert found.rows.dtype == np.float32 and found.rows.flags.c_contiguous
    assert np.allclose(found.rows, ROWS, rtol=1e-3)
    assert bool(found.notes) == (kind != ">f4")


@pytest.mark.parametrize(
    ("value", "kind"), [(1e300, "float64"), (-1e39, "float64"), (np.inf, "float16")]
)
def test_values_too_large_for_float32(tmp_path, value, kind):
    rows = ROWS.astype(kind)
    rows[1, 2] = value
    for name in ("f.safetensors", "f.npz"):
        with pytest.raises(ValueError, match=f"1 rows .* hold NaN or inf.*Cam2/b.jpg .*{kind}: "):
            features.load(saved(tmp_path, rows, name=name), NAMES)
    assert len(features.load(saved(tmp_path, rows), NAMES[2:]).rows) == 2  # not requested


def test_values_too_small_for_float32(tmp_path):
    rows = ROWS.astype(np.float64)
    rows[3] *= 1e-60
    with pytest.raises(ValueError, match="are all zero: gallery/Cam4/d.jpg .*float64: converted"):
        features.load(saved(tmp_path, rows, name="f.npz"), NAMES)


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "complex64", "V2", "float128", "U4"])
def test_other_types_are_refused(tmp_path, kind):
    rows = ROWS.astype(np.float16).view("V2") if kind == "V2" else ROWS.astype(kind)
    with pytest.raises(ValueError, match=r"floating-point numbers, float32, .* got \w+.*\[4, 6\]"):
        features.load(saved_npz(tmp_path, rows), NAMES)


def saved_npz(folder, rows):
    np.savez(folder / "f.npz", features=rows, names=np.array(NAMES))
    return folder / "f.npz"


# ---- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 1, 6), (4, 6, 1, 1), (4, 1, 1, 6), (1, 4, 6), (1, 4, 6, 1)])
def test_axes_of_size_one_are_removed_and_noted(tmp_path, shape):
    found = features.load(saved(tmp_path, ROWS.reshape(shape)), NAMES)
    assert np.array_equal(found.rows, ROWS)
    assert found.notes == (f"mine.safetensors is {list(shape)}: read as [4, 6]",)


def test_single_samples_and_single_values(tmp_path):
    for shape in ((1, 1, 6), (1, 6, 1, 1)):
        found = features.load(saved(tmp_path, ROWS[:1].reshape(shape), NAMES[:1]), NAMES[:1])
        assert np.array_equal(found.rows, ROWS[:1])
    found = features.load(saved(tmp_path, ROWS[:, :1].reshape(4, 1, 1)), NAMES)
    assert np.array_equal(found.rows, ROWS[:, :1])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 8, 3), r"got \[4, 8, 3\] .* axis 1 of size 8 is too many.*features.mean\(1\)"),
        ((4, 9, 2, 1), "axis 1 of size 9 is too many"),
        ((4, 5, 7, 3), r"axis 2 of size 7 and axis 3 of size 3 are too many.*mean\(\(2, 3\)\)"),
        ((8, 4, 3), r"axis 1 is that of the 4 names and must come first: features.movedim\(1, 0\)"),
        ((6, 3, 4), "axis 2 is that of the 4 names"),
        ((5, 8, 3), r"got \[5, 8, 3\] for 4 names.* axis 1 of size 8 is too many"),
        ((4,), r"got \[4\] for 4 names; an axis is missing"),
        ((), r"got \[\] for 4 names; two axes are missing"),
        ((6, 4), r"has 6 rows but 4 names; it is \[D, N\], transposed: save features.T"),
        ((3, 6), "has 3 rows but 4 names; each row needs one name"),
        ((5, 1, 6), "has 5 rows but 4 names"),
        ((0, 6), "has 0 rows but 4 names"),
    ],
)
def test_invalid_shapes(tmp_path, shape, message):
    with pytest.raises(ValueError, match=message):
        features.load(saved(tmp_path, np.ones(shape, np.float32)), NAMES)


# ---- name files ----------------------------------------------------------------------------------

LISTED = {
    "txt": "\n".join(NAMES) + "\n",
    "csv": "".join(f"{n},{name}\n" for n, name in [("", "file_name"), *enumerate(NAMES)]),
    "json": json.dumps(NAMES),
}


@pytest.mark.parametrize("form", ["f.npy", "f.npz", "f.pt", "f.safetensors"])
@pytest.mark.parametrize("suffix", LISTED)
def test_name_file_in_the_same_folder(tmp_path, form, suffix):
    path = saved(tmp_path, ROWS, names=None, name=form)
    (tmp_path / f"f.{suffix}").write_text(LISTED[suffix])
    found = features.load(path, NAMES[::-1])
    assert np.array_equal(found.rows, ROWS[::-1])
    assert found.notes == (f"the rows of {form} are named by f.{suffix}",)


def test_a_tensor_without_names(tmp_path):
    torch.save(torch.tensor(ROWS), tmp_path / "f.pt")
    (tmp_path / "f.txt").write_text(LISTED["txt"])
    assert np.array_equal(features.load(tmp_path / "f.pt", NAMES).rows, ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("n.txt", "\ufeff" + "\r\n".join(NAMES) + "\r\n\r\n"),
        ("n.csv", "\n".join(NAMES)),  # one column, no heading
        ("n.csv", "pid;name\n" + "".join(f"1;{name}\n" for name in NAMES)),
        ("n.csv", "\ufeffpath\r\n" + "".join(f'"{name}"\r\n' for name in NAMES)),
        ("n.json", json.dumps({"names": NAMES})),
        ("n.npy", np.array(NAMES)),
        ("N.TXT", LISTED["txt"]),
    ],
)
def test_name_file_given_explicitly(tmp_path, name, content):
    path, listing = saved(tmp_path, ROWS, name="f.npz", names=NAMES[::-1]), tmp_path / name
    if isinstance(content, str):
        listing.write_bytes(content.encode())
    else:
        np.save(listing, content)
    found = features.load(path, NAMES, listing)  # takes precedence over names in the file
    assert np.array_equal(found.rows, ROWS) and found.notes[0].endswith(f"named by {name}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.txt", b"\n".join(n.encode() for n in NAMES[:3]), r"has 4 rows but 3 names in .*f\.txt"),
        ("f.txt", "\n".join(NAMES).encode("utf-16"), r"f\.txt cannot be read as \.txt .* in UTF-8"),
        ("f.csv", b"pid,camid\n1,2\n", "expected a column file_name, .*first row has pid, camid"),
        ("f.csv", b"pid,name\n1,a.jpg\n2\n", "1 rows have no name"),
        ("f.csv", b"", "first row has nothing"),
        ("f.json", b'["a.jpg", 3]', 'must be a list of texts, or {"names"'),
        ("f.json", b'{"a.jpg": 0}', "must be a list of texts.* got NoneType"),
        ("f.json", b"[", r"f\.json cannot be read"),
    ],
)
def test_invalid_name_files(tmp_path, name, content, message):
    path = saved(tmp_path, ROWS, name="f.npy")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        features.load(path, NAMES)


def test_choice_of_the_name_file(tmp_path):
    path = saved(tmp_path, ROWS, name="f.npy")
    with pytest.raises(ValueError, match=r"must have a file of the samples' names.*--names FILE"):
        features.load(path, NAMES)
    for suffix in ("txt", "json"):
        (tmp_path / f"f.{suffix}").write_text(LISTED[suffix])
    with pytest.raises(
        ValueError, match=r"there are f\.txt and f\.json; say which .* with --names"
    ):
        features.load(path, NAMES)
    assert np.array_equal(features.load(path, NAMES, tmp_path / "f.json").rows, ROWS)
    with pytest.raises(FileNotFoundError, match="names: there is no file"):
        features.load(path, NAMES, tmp_path / "none.txt")
    (tmp_path / "f.xlsx").touch()
    with pytest.raises(ValueError, match=r"must be a file of names: \.txt"):
        features.load(path, NAMES, tmp_path / "f.xlsx")
