# SPDX-License-Identifier: Apache-2.0
"""Names of samples in the spellings of other programs."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viewsynth.evaluate import matching

NAMES = ["query/Cam1/a b.jpg", "query/Cam2/é.jpg", "gallery/Cam1/c.jpg", "d.jpg"]
FILE, ROOT = Path("f.npz"), Path("/data/CARGO")


def rows(listed, names=NAMES, roots=(ROOT,)):
    return matching.positions(FILE, listed, names, roots)


SPELLINGS = {
    "unchanged": str,
    "./": lambda name: f"./{name}",
    ".//": lambda name: ".//" + name.replace("/", "//"),
    "/./ and /../": lambda name: name.replace("/", "/./x/../"),
    "backslashes": lambda name: name.replace("/", "\\"),
    ".\\": lambda name: ".\\" + name.replace("/", "\\"),
    "below the root": lambda name: f"{ROOT}/{name}",
    "below a folder of another machine": lambda name: f"/home/me/sets/CARGO/{name}",
    "Windows path": lambda name: "D:\\sets\\CARGO\\" + name.replace("/", "\\"),
    "network share": lambda name: "\\\\server\\CARGO\\" + name.replace("/", "\\"),
    "relative to another folder": lambda name: f"../sets/CARGO/{name}",
    "URL": lambda name: f"file:///sets/CARGO/{name}",
    "from the root": lambda name: f"/{name}",
    "decomposed Unicode": lambda name: unicodedata.normalize("NFD", name),
    "with line endings": lambda name: f" {name}\r\n",
    "bare": lambda name: name.rpartition("/")[2],
    "bare, with ./": lambda name: "./" + name.rpartition("/")[2],
}
WITH_NOTE = {
    "below a folder of another machine",
    "Windows path",
    "network share",
    "relative to another folder",
    "URL",
    "from the root",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_all_spellings_match(spelling):
    listed = [SPELLINGS[spelling](name) for name in [*NAMES[::-1], "gallery/Cam9/more.jpg"]]
    assert len(set(listed)) == 5
    at, notes = rows(listed)
    assert at == [3, 2, 1, 0]
    assert bool(notes) == (spelling in WITH_NOTE)
    assert all(note.startswith("the names in f.npz are read as paths below ") for note in notes)


def test_spellings_may_be_mixed():
    kinds = ["unchanged", "below the root", "backslashes", "bare"]
    listed = [SPELLINGS[kind](name) for kind, name in zip(kinds, NAMES, strict=True)]
    assert rows(listed) == ([0, 1, 2, 3], [])


def test_names_below_the_root_as_given():
    listed = [f"sets/CARGO/{name}" for name in NAMES]
    assert rows(listed, roots=[Path("./sets/CARGO"), ROOT]) == ([0, 1, 2, 3], [])


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "x.jpg"]), min_size=1, max_size=3).map("/".join),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.sampled_from(["", "./", "/", "/m/", "C:\\", "a/", "../a/"]),
)
def test_a_sample_never_gets_the_row_of_another(names, start):
    """For any names, the result is the correct row or an error."""
    listed = [start + name for name in names]
    for some in (names, names[:1], names[::2]):
        try:
            at, notes = rows(listed, some, ())
        except ValueError:
            assert start not in ("", "./")  # these are never ambiguous
        else:
            expected = [names.index(name) for name in some]
            assert at == expected or (notes and start) or set(some) & set(listed)


@pytest.mark.parametrize(
    "listed",
    [
        ["train/Cam1/a b.jpg", "train/Cam2/é.jpg", "train/Cam1/c.jpg", "train/d.jpg"],
        ["query/Cam7/a b.jpg", *NAMES[1:]],
        ["/m/CARGO/train/Cam1/a b.jpg", *(f"/m/CARGO/{name}" for name in NAMES[1:])],
        [f"/m/{name}" for name in NAMES[:2]] + [f"/n/{name}" for name in NAMES[2:]],
    ],
)
def test_names_with_other_folders_do_not_match(listed):
    with pytest.raises(ValueError, match="of 4 samples are not in f.npz: .*relative to the data"):
        rows(listed)


@pytest.mark.parametrize("folder", ["/home/me/CARGO", "C:/CARGO", ""])
def test_error_names_the_missing_sample_and_the_folder_of_the_others(folder):
    listed = [f"{folder}/{name}" for name in NAMES[:-1]]
    message = rf"1 of 4 .* not in f.npz: d.jpg \(the others are below {folder or '/'}\); it has"
    with pytest.raises(ValueError, match=message):
        rows(listed)


def test_folders_of_the_data_set_are_not_stripped(tmp_path):
    """Features of another split with equal file names must not match."""
    (tmp_path / "train").mkdir()
    names = ["1.jpg", "2.jpg"]
    listed = [f"train/{name}" for name in names]
    with pytest.raises(ValueError, match="2 of 2 samples are not in"):
        rows(listed, names, [tmp_path])
    (tmp_path / "train").rmdir()
    assert rows(listed, names, [tmp_path])[1] == [
        "the names in f.npz are read as paths below train"
    ]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([*NAMES, NAMES[0]], "names 1 samples twice: query/Cam1/a b.jpg"),
        (["./" + NAMES[0], NAMES[0].replace("/", "\\"), *NAMES[1:]], "names 1 samples twice"),
        ([f"/{m}/{name}" for m in "mn" for name in NAMES], "below several folders: /m, /n"),
    ],
)
def test_duplicate_names_are_refused(listed, message):
    with pytest.raises(ValueError, match=message):
        rows(listed)


def test_ambiguous_bare_names_are_refused():
    with pytest.raises(ValueError, match="2 samples by file names that several have.*q/a.jpg"):
        rows([".\\a.jpg", "b.jpg"], ["q/a.jpg", "g/a.jpg", "g/b.jpg"])
