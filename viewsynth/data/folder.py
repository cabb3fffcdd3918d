# SPDX-License-Identifier: Apache-2.0
"""Anyone's own pictures: a folder in, samples out, nothing decoded yet.

Rows with the splits `query` and `gallery` make it a benchmark with the protocols of
`layout.directions`; without any, everything is there to be learnt from.

The forms, told apart by what is there (`--data.form` chooses where two readings are possible):

- `metadata.csv` or `metadata.jsonl`, in the root or in a folder of it: one row a picture, a person
  in it (with `box`), a video or a folder of frames, see `table`. Only what is named is read.
- `<person>/*.jpg`: a folder is a person. A folder in it is a tracklet of that person, and each
  video (`<person>/*.mp4`) is one; what a tracklet shows is one outfit. A tracklet of one frame is
  called as its file.
- `*.jpg` in the root: each file is its own person; its pid is the name without extension, or with
  it where that would not be unique (`a.jpg` beside `a.png`, or beside a folder `a`). Folders may
  lie beside. A phone's `a.heic` or `a.mov` beside `a.jpg` is the same shot, and not read.
- `train`, `query`, `gallery`: each a table or persons' folders. What lies in `test`, `validation`
  and the like is nobody's to learn from, and no query or gallery: left out and told.

The pid of a folder is its name as it is written. Hidden files are ignored, other files skipped and
counted: one `Reject` of kind "skipped" says how many. Symbolic links are refused everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from viewsynth.data import cells, forms, layout, listing, table
from viewsynth.data.images import EXTENSIONS
from viewsynth.data.layout import quoted
from viewsynth.data.listing import Folder, Found
from viewsynth.data.reading import Reading
from viewsynth.records import Dataset, Reject, Sample

PARTS = ()  # any folder will do


def load(root: str | Path, reading: Reading = Reading()) -> Dataset:  # noqa: B008 - frozen
    """The pictures of a folder.

    Args:
        root: The folder, in one of the forms above.
        reading: Which form, and how the columns box and elevation are written.
    Returns: samples whose `name` is the path in the folder (with "#2", "#3" for further people of
        the same picture); rejects, sorted by source.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no picture, may be read in two ways, or its metadata cannot be read
            at all.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"data.root: there is no folder {root}")
    if not root.is_dir():
        raise ValueError(f"data.root must be a folder, got the file {root}")
    root = root.resolve()
    top, found = listing.scan(root), Found()
    form, base = (
        (reading.form, top) if reading.form != "auto" else forms.form_of(top, found.warnings)
    )
    READERS[form](top, base, reading, found)
    left = _left(found)
    samples, rejects = found.samples, [*found.rejects, *_counted(found), *left]
    if left and not samples:
        raise ValueError(
            f"no pictures in {root} can be used, as their split is missing: "
            + "; ".join(reject.reason for reject in left)
        )
    if not samples and all(reject.kind == "skipped" for reject in rejects):
        skipped = "; ".join(reject.reason for reject in rejects)
        raise ValueError(
            f"no pictures in {root}; expected {root.name}/<person>/*.jpg, or {root.name}/*.jpg "
            f"with one person a file ({' '.join(EXTENSIONS)}), or a metadata.csv with the columns "
            "file_name and pid" + (f" ({skipped})" if skipped else "")
        )
    samples.sort(key=lambda s: (s.pid, s.name))
    rejects.sort(key=lambda r: (r.source, r.reason))
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    return Dataset(
        name="folder",
        root=root,
        samples=samples,
        rejects=rejects,
        protocols=layout.directions(query, gallery),
        warnings=[*found.warnings, *(reject.reason for reject in left), *_alike(samples)],
        fingerprint=layout.fingerprint(_sizes(samples)),
    )


def _sizes(samples: list[Sample]) -> Iterator[tuple[str, int]]:
    """Names and bytes of all files; 0 for one that is not there, which is told when it is read."""
    for sample in samples:
        for path in sample.paths:
            name = sample.name if len(sample.paths) == 1 else f"{sample.name}/{path.name}"
            try:
                yield name, path.stat().st_size
            except OSError:
                yield name, 0


def _counted(found: Found) -> Iterator[Reject]:
    """What was not read, by kind."""
    if found.skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.skipped.items()))
        reason = f"skipped: files that are no pictures: {kinds}"
        scores = {"count": found.skipped.total()}
        yield Reject(source=".", stage="input", reason=reason, kind="skipped", scores=scores)


def _left(found: Found) -> list[Reject]:
    """Rows and pictures of a test split without a role."""
    return [
        layout.skip(
            folder,
            f"{what} of {folder} are left out: they are not learnt from, and nothing says which "
            "are query and which gallery; say so in the column split of a metadata.csv, or call "
            "the folders query and gallery",
            count,
        )
        for (folder, what), count in sorted(found.left.items())
    ]


def _alike(samples: list[Sample]) -> Iterator[str]:
    """Names that may be one, as a person would read them."""
    for name in ("pid", "camid", "outfit", "session"):
        groups: dict[tuple, set[str]] = {}
        for sample in samples:
            value = getattr(sample, name)
            whose = sample.pid if name in ("outfit", "session") else ""
            groups.setdefault((whose, cells.plain(value)), set()).add(value)
        same = [sorted(group) for group in groups.values() if len(group) > 1]
        if same:
            shown = "; ".join(" and ".join(map(quoted, group[:4])) for group in same[:3])
            yield (
                f"{len(same)} times a {name} differs from another one only in leading zeros, case, "
                f"blanks or the form of a letter: {shown}; they are different ones here: rename "
                "them if they are the same"
            )


# ---- the readers: each gets the whole folder, and the one that the form begins in ---------------


def _table(top: Folder, base: Folder, reading: Reading, found: Found) -> None:
    """Metadata: that of the root, or else all."""
    tables = [top] if top.tables else [folder for folder in top.walk() if folder.tables]
    if not tables:
        raise ValueError(f"--data.form table: there is no metadata.csv or .jsonl in {top.path}")
    table.read(tables, reading, found)
    _outside(top, tables, found)
    _unread(top, tables, found)


def _splits(top: Folder, base: Folder, reading: Reading, found: Found) -> None:
    """Folders called as splits, each with metadata or people."""
    splits = list(_split_folders(base))
    if not splits:
        raise ValueError(
            f"--data.form splits: no folder in {base.path} is called as a split; expected train, "
            "query, gallery or test"
        )
    tables = [folder for split in splits for folder in split.walk() if folder.tables]
    table.read(tables, reading, found)
    for split in splits:
        if not any(folder.tables for folder in split.walk()):
            _people(split, listing.split_of(split.base), found)
    _outside(top, splits, found)
    _told(top, tables, found)


def _split_folders(folder: Folder) -> Iterator[Folder]:
    for sub in folder.alive:
        if listing.is_split(sub.base):
            yield sub
        else:
            yield from _split_folders(sub)


def _folders(top: Folder, base: Folder, reading: Reading, found: Found) -> None:
    """Folders of people, and files of people."""
    _people(base, "train", found)
    _told(top, [], found)


READERS = {"table": _table, "splits": _splits, "folders": _folders}


def _told(top: Folder, tables: list[Folder], found: Found) -> None:
    """Take over what cannot be used in all folders but those of tables, and tables not read."""
    for folder in top.walk({one.name for one in tables}):
        found.rejects += folder.rejects
        found.skipped += folder.skipped
    _unread(top, tables, found)


def _unread(top: Folder, read: list[Folder], found: Found) -> None:
    """Warn of tables that were not read."""
    used = {folder.name for folder in read}
    names = [
        f.own(name)
        for f in top.walk()
        if f.name not in used
        for name in (*f.tables, *f.foreign)
        if f is top or name.lower() in listing.METADATA
    ]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        found.warnings.append(
            f"{', '.join(map(quoted, names[:3]))}{more} is not read; a table that says who is who "
            "must be called metadata.csv or metadata.jsonl, with the columns file_name and pid, "
            "and be chosen with --data.form table"
        )


def _outside(top: Folder, read: list[Folder], found: Found) -> None:
    """Count the pictures that lie outside the folders that were read, and that no row names."""
    named = {path for sample in found.samples for path in sample.paths}
    for folder in top.walk({one.name for one in read}):
        stray = sum(folder.path / file not in named for file in folder.files)
        if stray:
            found.rejects.append(
                layout.skip(folder.name or ".", "pictures that nothing names are not read", stray)
            )
            if folder is top:
                found.warnings.append(
                    f"{stray} pictures in {top.path} itself are not read: no metadata names them"
                )


# ---- people by folders ---------------------------------------------------------------------------


def _people(base: Folder, split: str, found: Found) -> None:
    """Each file of a folder is a person, and each folder in it; a test split's are left out."""
    if not split:
        found.left[base.name, "pictures"] += base.pictures
        return
    files = _one_a_shot(base, found)
    stems = Counter(Path(file).stem for file in files)
    stems += Counter(folder.base for folder in base.folders)
    for file in files:
        stem = Path(file).stem
        pid = stem if stems[stem] == 1 else file
        found.samples.append(_sample(base, [file], base.own(file), pid, split))
    tracklets = 0
    for folder in base.folders:
        if not listing.is_nobody(folder.base, split):
            tracklets += _person(folder, split, found)
        elif folder.pictures:
            reason = (
                f"the name {quoted(folder.base)} means: no identity; its {folder.pictures} "
                "pictures are left out: rename the folder if it is a person"
            )
            found.rejects.append(layout.bad(folder.name, reason))
    if tracklets:
        found.warnings.append(
            f"{tracklets} folders inside persons' folders of {base.path} are read as a tracklet "
            "each, all frames of one person in one outfit"
        )


def _one_a_shot(base: Folder, found: Found) -> list[str]:
    """The files without what phones write beside a picture: a HEIC of it, a video around it."""
    best: dict[str, int] = {}
    for file in base.files:
        stem = Path(file).stem
        best[stem] = min(best.get(stem, 9), _rank(file))
    kept = [file for file in base.files if _rank(file) == best[Path(file).stem]]
    if others := len(base.files) - len(kept):
        reason = (
            "videos, HEIC, HEIF or AVIF beside a picture of the same name are taken for the same "
            "shot (e.g. a Live Photo), and not read"
        )
        found.rejects.append(layout.skip(base.name or ".", reason, others))
    return kept


def _rank(file: str) -> int:
    """0 for a plain picture, 1 for one of a phone's own format, 2 for a video."""
    return 2 if cells.is_video(file) else int(file.lower().endswith((".heic", ".heif", ".avif")))


def _person(person: Folder, split: str, found: Found) -> int:
    """Add a person's pictures, videos and tracklets; returns how many folders of frames."""
    pid, count = person.base, 0
    for file in person.files:
        outfit = Path(file).stem if cells.is_video(file) else ""
        found.samples.append(_sample(person, [file], person.own(file), pid, split, outfit))
    for tracklet in person.folders:
        outfit, frames = tracklet.base, []
        for file in tracklet.files:
            if cells.is_video(file):
                name = tracklet.own(file)
                found.samples.append(_sample(tracklet, [file], name, pid, split, outfit))
            else:
                frames.append(file)
        if frames:
            name = tracklet.own(frames[0]) if len(frames) == 1 else tracklet.name
            found.samples.append(_sample(tracklet, frames, name, pid, split, outfit))
            count += 1
        for deeper in tracklet.folders:
            if deeper.pictures:
                reason = (
                    f"{deeper.pictures} pictures lie deeper than <person>/<tracklet>/*.jpg: move "
                    "them up, give a folder further down as data.root, or write a metadata.csv"
                )
                found.rejects.append(layout.bad(deeper.name, reason))
    return count


def _sample(
    folder: Folder, files: list[str], name: str, pid: str, split: str, outfit: str = ""
) -> Sample:
    path = folder.path
    paths = tuple(path / file for file in files)
    return Sample(paths=paths, name=name, pid=pid, split=split, outfit=outfit)
