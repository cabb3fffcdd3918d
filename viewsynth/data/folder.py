# SPDX-License-Identifier: Apache-2.0
"""Folder: a user's own images and videos of people; nothing is decoded yet.

Rows with the splits `query` and `gallery` make it a benchmark with the protocols of
`layout.directions`; without them, everything is training data.

Forms, recognised by the content (`--data.form` selects one where two readings are possible):

- `metadata.csv` or `metadata.jsonl`, in the root or in a folder of it: one row for each image,
  person in an image (with `box`), video or folder of frames, see `table`. Only what the rows name
  is read.
- `<person>/*.jpg`: a folder is a person. A folder in it is a tracklet of that person, and so is
  each video (`<person>/*.mp4`); a tracklet shows one outfit. A tracklet of a single frame has the
  name of its file.
- `*.jpg` in the root: each file is a person of its own; its pid is the name without extension, or
  with it where that would not be unique (`a.jpg` next to `a.png`, or to a folder `a`). Folders of
  people may lie next to the files. A phone's `a.heic` or `a.mov` next to `a.jpg` is the same shot
  and is not read.
- `train`, `query`, `gallery`: each holds a table or folders of people. `test`, `validation` and the
  like are neither training data nor query or gallery: they are left out with a warning.

The pid of a folder is its name, unchanged. Hidden files are ignored; other files are counted in one
`Reject` of kind "skipped". Symbolic links are refused everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from viewsynth.data import cells, forms, layout, listing, table
from viewsynth.data.images import EXTENSIONS
from viewsynth.data.listing import Folder, Found, quoted
from viewsynth.data.reading import Reading
from viewsynth.records import Dataset, Reject, Sample
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="images of the user",
    licence="unknown",
    redistribute="unknown",
    citation="",
)

PARTS = ()  # no file or folder is required


def load(root: str | Path, reading: Reading = Reading()) -> Dataset:  # noqa: B008 - frozen
    """Images, videos and tracklets of a folder.

    Args:
        root: The folder, in one of the forms above.
        reading: Which form, and how the columns box and elevation are written.

    Returns:
        Samples whose `name` is the path in the folder (with "#2", "#3" for further people in the
        same image), and rejects, sorted by source.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no images, can be read in two ways, or its metadata cannot be read
            at all.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"data.root: there is no folder {root}")
    if not root.is_dir():
        raise ValueError(f"data.root must be a folder, got the file {root}")
    root = root.resolve()
    top, found = listing.scan(root), Found()
    form, start = (
        (reading.form, top) if reading.form != "auto" else forms.form_of(top, found.warnings)
    )
    READERS[form](top, start, reading, found)
    left_out = _left_out(found)
    samples, rejects = found.samples, [*found.rejects, *_skipped(found), *left_out]
    _check_samples(root, samples, rejects, left_out)
    samples.sort(key=lambda s: (s.pid, s.name))
    rejects.sort(key=lambda r: (r.source, r.reason))
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    warnings = [*found.warnings, *(reject.reason for reject in left_out), *_similar_names(samples)]
    return Dataset(
        name="folder",
        root=root,
        samples=samples,
        rejects=rejects,
        protocols=layout.directions(query, gallery),
        warnings=warnings,
        fingerprint=layout.fingerprint(_sizes(samples)),
    )


def _check_samples(
    root: Path, samples: list[Sample], rejects: list[Reject], left_out: list[Reject]
) -> None:
    """Raise ValueError if a folder has no samples, and no rejects that explain why."""
    if left_out and not samples:
        raise ValueError(
            f"no images in {root} can be used, because their split is missing: "
            + "; ".join(reject.reason for reject in left_out)
        )
    if not samples and all(reject.kind == "skipped" for reject in rejects):
        skipped = "; ".join(reject.reason for reject in rejects)
        raise ValueError(
            f"no images in {root}; expected {root.name}/<person>/*.jpg, or {root.name}/*.jpg "
            f"with one person per file ({' '.join(EXTENSIONS)}), or a metadata.csv with the "
            "columns file_name and pid" + (f" ({skipped})" if skipped else "")
        )


def _sizes(samples: list[Sample]) -> Iterator[tuple[str, int]]:
    """Name and bytes of each file; 0 bytes for a missing one, which is reported when it is read."""
    for sample in samples:
        for path in sample.paths:
            name = sample.name if len(sample.paths) == 1 else f"{sample.name}/{path.name}"
            try:
                yield name, path.stat().st_size
            except OSError:
                yield name, 0


def _skipped(found: Found) -> Iterator[Reject]:
    """One reject that counts the files that are not images, by extension."""
    if found.skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.skipped.items()))
        reason = f"skipped: files that are not images: {kinds}"
        scores = {"count": found.skipped.total()}
        yield Reject(source=".", stage="input", reason=reason, kind="skipped", scores=scores)


def _left_out(found: Found) -> list[Reject]:
    """Rejects of the rows and images in a test split that is neither query nor gallery."""
    return [
        layout.skip(
            folder,
            f"{what} of {folder} are left out: they are not training data, and nothing tells query "
            "from gallery; write it into the column split of a metadata.csv, or name the folders "
            "query and gallery",
            count,
        )
        for (folder, what), count in sorted(found.left_out.items())
    ]


def _similar_names(samples: list[Sample]) -> Iterator[str]:
    """Warnings of different names that a person may have meant to be the same."""
    for name in ("pid", "camid", "outfit", "session"):
        groups: dict[tuple, set[str]] = {}
        for sample in samples:
            value = getattr(sample, name)
            owner = sample.pid if name in ("outfit", "session") else ""
            groups.setdefault((owner, cells.normalised(value)), set()).add(value)
        same = [sorted(group) for group in groups.values() if len(group) > 1]
        if same:
            shown = "; ".join(" and ".join(map(quoted, group[:4])) for group in same[:3])
            yield (
                f"{len(same)} times a {name} differs from another one only in leading zeros, case, "
                f"spaces or the form of a letter: {shown}; they count as different: rename them if "
                "they are the same"
            )


# ---- readers: each gets the whole folder, and the folder in it where its form starts ------------


def _read_tables(top: Folder, start: Folder, reading: Reading, found: Found) -> None:
    """Metadata in the root, or else all metadata in subfolders."""
    tables = [top] if top.tables else [folder for folder in top.walk() if folder.tables]
    if not tables:
        raise ValueError(f"--data.form table: there is no metadata.csv or .jsonl in {top.path}")
    table.read(tables, reading, found)
    _count_unnamed(top, tables, found)
    _warn_unread_tables(top, tables, found)


def _read_splits(top: Folder, start: Folder, reading: Reading, found: Found) -> None:
    """Folders with names of splits, each with metadata or folders of people."""
    splits = list(_split_folders(start))
    if not splits:
        raise ValueError(
            f"--data.form splits: no folder in {start.path} has the name of a split; expected "
            "train, query, gallery or test"
        )
    tables = [folder for split in splits for folder in split.walk() if folder.tables]
    table.read(tables, reading, found)
    for split in splits:
        if not any(folder.tables for folder in split.walk()):
            _read_people(split, listing.split_of(split.basename), found)
    _count_unnamed(top, splits, found)
    _collect_rejects(top, tables, found)


def _split_folders(folder: Folder) -> Iterator[Folder]:
    for sub in folder.nonempty:
        if listing.is_split(sub.basename):
            yield sub
        else:
            yield from _split_folders(sub)


def _read_folders(top: Folder, start: Folder, reading: Reading, found: Found) -> None:
    """Folders of people, and files that are a person each."""
    _read_people(start, "train", found)
    _collect_rejects(top, [], found)


READERS = {"table": _read_tables, "splits": _read_splits, "folders": _read_folders}


def _collect_rejects(top: Folder, tables: list[Folder], found: Found) -> None:
    """Add the rejects and counts of all folders except those of tables, and warn of other tables.

    Args:
        top: The root.
        tables: Folders whose metadata was read.
        found: Gets the rejects, counts and warnings.
    """
    for folder in top.walk({one.name for one in tables}):
        found.rejects += folder.rejects
        found.skipped += folder.skipped
    _warn_unread_tables(top, tables, found)


def _warn_unread_tables(top: Folder, read: list[Folder], found: Found) -> None:
    used = {folder.name for folder in read}
    names = [
        f.name_of(name)
        for f in top.walk()
        if f.name not in used
        for name in (*f.tables, *f.other_tables)
        if f is top or name.lower() in listing.METADATA
    ]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        found.warnings.append(
            f"{', '.join(map(quoted, names[:3]))}{more} is not read; a table of identities must be "
            "named metadata.csv or metadata.jsonl, have the columns file_name and pid, and be "
            "selected with --data.form table"
        )


def _count_unnamed(top: Folder, read: list[Folder], found: Found) -> None:
    """Count the images outside the folders that were read which no row names."""
    named = {path for sample in found.samples for path in sample.paths}
    for folder in top.walk({one.name for one in read}):
        unnamed = sum(folder.path / file not in named for file in folder.files)
        if unnamed:
            reason = "images that no metadata names are not read"
            found.rejects.append(layout.skip(folder.name or ".", reason, unnamed))
            if folder is top:
                found.warnings.append(
                    f"{unnamed} images in {top.path} itself are not read: no metadata names them"
                )


# ---- folders of people ---------------------------------------------------------------------------


def _read_people(start: Folder, split: str, found: Found) -> None:
    """Read each file and each subfolder as a person.

    Args:
        start: Folder of the people.
        split: Their split; "" = a test split of no role, whose images are left out.
        found: Gets the samples, rejects and warnings.
    """
    if not split:
        found.left_out[start.name, "images"] += start.count
        return
    files = _without_companions(start, found)
    stems = Counter(Path(file).stem for file in files)
    stems += Counter(folder.basename for folder in start.folders)
    for file in files:
        stem = Path(file).stem
        pid = stem if stems[stem] == 1 else file
        found.samples.append(_sample(start, [file], start.name_of(file), pid, split))
    tracklets = 0
    for folder in start.folders:
        if not listing.is_unidentified(folder.basename, split):
            tracklets += _read_person(folder, split, found)
        elif folder.count:
            reason = (
                f"the name {quoted(folder.basename)} means: no identity; its {folder.count} "
                "images are left out: rename the folder if it is a person"
            )
            found.rejects.append(layout.bad(folder.name, reason))
    if tracklets:
        found.warnings.append(
            f"{tracklets} folders inside the folders of people in {start.path} are read as one "
            "tracklet each: all frames show one person in one outfit"
        )


def _without_companions(start: Folder, found: Found) -> list[str]:
    """The files without the HEIC or video that a phone stores next to an image."""
    best: dict[str, int] = {}
    for file in start.files:
        stem = Path(file).stem
        best[stem] = min(best.get(stem, 9), _rank(file))
    kept = [file for file in start.files if _rank(file) == best[Path(file).stem]]
    if others := len(start.files) - len(kept):
        reason = (
            "videos, HEIC, HEIF or AVIF files next to an image of the same name count as the same "
            "shot (e.g. a Live Photo) and are not read"
        )
        found.rejects.append(layout.skip(start.name or ".", reason, others))
    return kept


def _rank(file: str) -> int:
    """0 for a common image format, 1 for a phone's own format, 2 for a video."""
    return 2 if cells.is_video(file) else int(file.lower().endswith((".heic", ".heif", ".avif")))


def _read_person(person: Folder, split: str, found: Found) -> int:
    """Add the images, videos and tracklets of a person; returns the number of folders of frames."""
    pid, count = person.basename, 0
    for file in person.files:
        outfit = Path(file).stem if cells.is_video(file) else ""
        found.samples.append(_sample(person, [file], person.name_of(file), pid, split, outfit))
    for tracklet in person.folders:
        outfit, frames = tracklet.basename, []
        for file in tracklet.files:
            if cells.is_video(file):
                name = tracklet.name_of(file)
                found.samples.append(_sample(tracklet, [file], name, pid, split, outfit))
            else:
                frames.append(file)
        if frames:
            name = tracklet.name_of(frames[0]) if len(frames) == 1 else tracklet.name
            found.samples.append(_sample(tracklet, frames, name, pid, split, outfit))
            count += 1
        for deeper in tracklet.folders:
            if deeper.count:
                reason = (
                    f"{deeper.count} images lie deeper than <person>/<tracklet>/*.jpg: move "
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
