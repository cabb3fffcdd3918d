# SPDX-License-Identifier: Apache-2.0
"""What the released data sets have in common: folders of named files and lists that name them.

The loaders of this folder use it: find the root, list the files, turn names into samples, read
protocol lists, and build the protocols of the field. Nothing is decoded. A name is parsed alone,
never with the folders above it, so a root may be called anything.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from viewsynth.data.images import EXTENSIONS
from viewsynth.records import Protocol, Reject, Sample

DEPTH = 2  # how far below the given folder a release may be nested
MAX_LIST = 256 * 2**20  # bytes of a protocol list
MAX_LINE = 2**20  # bytes of a row of JSON
LOOK = 100  # pictures whose names tell what a folder holds
# What the letters of a direction mean: "A->C" asks for drones' pictures among those of CCTV.
SIDES = {
    "A": ("view", "aerial"),
    "G": ("view", "ground"),
    "C": ("platform", "cctv"),
    "W": ("platform", "wearable"),
}
LINK = "symbolic links are refused; put the file or folder itself there"


class LayoutError(ValueError):
    """The folder holds no data set of that layout."""


class FileNameError(ValueError):
    """A file that is no picture of the data set; the text says why."""


@dataclass
class Tree:
    """The files of a data set, listed.

    Args:
        root: Folder that the names are relative to.
        files: Names of the pictures, sorted; those of 0 bytes are in `rejects`.
        rejects: What cannot be used, and a count of what is no picture.
        sizes: Name and bytes of everything that the fingerprint covers.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    sizes: list[tuple[str, int]] = field(default_factory=list)


def find_root(root: str | Path, parts: tuple[str, ...], depth: int = DEPTH) -> Path:
    """The folder that holds all `parts`: `root` itself, or one nested in it, as archives do it.

    Args:
        depth: How many folders below `root` it may lie.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        ValueError: if several folders of the same depth hold them.
        LayoutError: if none does.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(f"data.root: {root} {what}")
    level = [root.resolve()]
    for _ in range(depth + 1):
        found = [folder for folder in level if all((folder / part).exists() for part in parts)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(
                f"several releases lie in {root}: {', '.join(map(str, found[:4]))}; give one"
            )
        level = [sub for folder in level for sub in _folders(folder)]
    there = sorted(path.name for path in root.iterdir())[:8]
    raise LayoutError(
        f"expected {', '.join(parts)} in {root} (or up to {depth} folders below it), "
        f"found {', '.join(there) or 'nothing'}"
    )


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith((".", "__MACOSX"))
            )
    except OSError:
        return []


def looks_like(root: str | Path, parts: tuple[str, ...], name: re.Pattern, depth: int) -> bool:
    """Whether a folder has such parts, and pictures of such names among the first it holds."""
    try:
        root = find_root(root, parts, depth)
    except ValueError:
        return False
    files = (file for _, _, files in os.walk(root) for file in files)
    pictures = (file for file in files if file.lower().endswith(EXTENSIONS))
    return any(name.match(file) for file in itertools.islice(pictures, LOOK))


def scan(root: Path, folders: Iterable[str], lists: Iterable[Path] = ()) -> Tree:
    """List the pictures below some folders of a data set.

    Hidden files are ignored, symbolic links refused, other files counted, empty ones rejected.

    Args:
        folders: Names in `root`; those that are not there are left out.
        lists: Protocol lists, for the fingerprint.
    """
    tree, skipped = Tree(root), Counter()
    for folder in folders:
        if (root / folder).is_symlink():
            tree.rejects.append(bad(folder, LINK))
        elif (root / folder).is_dir():
            _walk(tree, root / folder, folder, skipped)
    tree.files.sort()
    tree.sizes += [(path.name, path.stat().st_size) for path in lists if path.is_file()]
    if skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        tree.rejects.append(skip(".", f"files that are no pictures: {kinds}", skipped.total()))
    return tree


def _walk(tree: Tree, folder: Path, name: str, skipped: Counter) -> None:
    try:
        with os.scandir(folder) as entries:
            entries = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = f"the folder cannot be read: {error.strerror}"
        tree.rejects.append(Reject(source=name, stage="input", reason=reason, kind="fault"))
        return
    for entry in entries:
        own = f"{name}/{entry.name}"
        if entry.name.startswith("."):
            continue
        if not entry.name.isprintable():
            tree.rejects.append(bad(ascii(own)[1:-1], "the name has unprintable characters"))
        elif entry.is_symlink():
            tree.rejects.append(bad(own, LINK))
        elif entry.is_dir():
            _walk(tree, folder / entry.name, own, skipped)
        elif not entry.name.lower().endswith(EXTENSIONS):
            skipped[Path(entry.name).suffix.lower() or "without extension"] += 1
        elif not entry.is_file():
            tree.rejects.append(bad(own, "not a regular file"))
        else:
            size = entry.stat().st_size
            tree.sizes.append((own, size))
            if size:
                tree.files.append(own)
            else:
                tree.rejects.append(bad(own, "the file is empty (0 bytes)"))


def fingerprint(sizes: Iterable[tuple[str, int]]) -> str:
    """What tells two releases apart: a hash of the sorted names and sizes, 16 hex digits."""
    text = "".join(f"{name}\t{size}\n" for name, size in sorted(sizes))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def samples(tree: Tree, parse: Callable[[str, str], dict | str], form: str) -> list[Sample]:
    """The pictures of a tree as samples, sorted by (pid, name).

    Args:
        parse: `parse(name, file)` gets the whole name and its last part, and returns the fields of
            `Sample`, or the name of a junk identity, whose pictures are left out and counted.
        form: What a file name looks like, for the error.
    Raises: LayoutError: if no name can be read.
    """
    found: list[Sample] = []
    junk: Counter[str] = Counter()
    folders: dict[str, Path] = {}  # a path is made from its folder's in half the time
    for name in tree.files:
        folder, _, file = name.rpartition("/")
        try:
            fields = parse(name, file)
        except FileNameError as error:
            tree.rejects.append(bad(name, str(error)))
            continue
        if isinstance(fields, str):
            junk[fields] += 1
        else:
            if folder not in folders:
                folders[folder] = tree.root / folder
            found.append(Sample(paths=(folders[folder] / file,), name=name, **fields))
    for identity, count in sorted(junk.items()):
        reason = f"pictures of the junk identity {identity} are left out"
        tree.rejects.append(skip(identity, reason, count))
    if not found:
        first = f", e.g. {tree.files[0]}" if tree.files else ""
        raise LayoutError(
            f"{tree.root}: none of {len(tree.files)} pictures is named like {form}{first}"
        )
    found.sort(key=lambda sample: (sample.pid, sample.name))
    return found


def exported(tree: Tree, samples: list[Sample]) -> list[Sample]:
    """The samples; those that `viewsynth export` wrote, as `sources.jsonl` says, are synthetic and
    taken from above, whatever their names say.
    """
    path = tree.root / "sources.jsonl"
    rows = json_rows(path) if path.is_file() else ()
    names = {str(row.get("file_name")) for _, row in rows if isinstance(row, dict)}
    marked = {"source": "synthetic", "platform": "drone", "view": "aerial"}
    return [replace(one, **marked) if one.name in names else one for one in samples]


def split_of(name: str, train: str) -> str:
    """The split of a picture by its first folder: `train`, "query…", or any other (the gallery)."""
    folder = name.partition("/")[0]
    return "train" if folder == train else "query" if folder.startswith("query") else "gallery"


def read_list(path: Path) -> list[tuple[int, str]]:
    """Line numbers and names of a protocol list; any line ends, any slashes, no last newline.

    Raises: ValueError: if it is too large or not text.
    """
    if path.stat().st_size > MAX_LIST:
        raise ValueError(f"{path} has more than {MAX_LIST >> 20} MiB; is it a protocol list?")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: {error}; expected one file name a line") from error
    rows = ((number, row.strip()) for number, row in enumerate(text.split("\n"), 1))
    return [(number, row.replace("\\", "/").removeprefix("./")) for number, row in rows if row]


def named_folders(lists: Iterable[Path]) -> list[str]:
    """The folders beside the lists that their rows begin with, sorted."""
    rows = (row for path in lists if path.is_file() for _, row in read_list(path))
    return sorted({row.partition("/")[0] for row in rows} - {"", ".", ".."})


def listed(
    tree: Tree, samples: list[Sample], lists: dict[str, Path], warnings: list[str]
) -> dict[str, Protocol]:
    """The protocols that lists describe; those with nobody to ask for or to search are left out.

    Args:
        tree: Its rejects get the rows that name nothing, or the same again.
        lists: Protocol name -> list; pictures in folders "query…" are asked for, others searched.
        warnings: Get what is wrong with a list.
    """
    known = {sample.name: sample for sample in samples}
    rejected = {reject.source for reject in tree.rejects}
    found = {}
    for name, path in lists.items():
        if not path.is_file():
            warnings.append(f"there is no list {path}: the protocol {name} is not offered")
            continue
        named = _named(tree, known, rejected, path, warnings)
        parts = {
            what: [s for s in named if (s.split == "query") == (what == "query")]
            for what in ("query", "gallery")
        }
        if empty := [what for what, some in parts.items() if not some]:
            warnings.append(
                f"{path} names no {' and no '.join(empty)} picture that is there: the protocol "
                f"{name} is not offered"
            )
            continue
        found[name] = Protocol(name=name, **parts)
        warnings += _astray(path, found[name])
    return found


def _named(
    tree: Tree, known: dict[str, Sample], rejected: set[str], path: Path, warnings: list[str]
) -> list[Sample]:
    """The samples that a list names, in the order of samples, not of rows."""
    rows, named, lost = set(), [], 0
    for line, row in read_list(path):
        where = f"{path.name}:{line}"
        if row in rows:
            tree.rejects.append(bad(where, f"{row} was named before"))
        elif sample := known.get(row):
            named.append(sample)
        elif row in rejected:
            lost += 1  # its own reason stands there already
        else:
            tree.rejects.append(bad(where, f"there is no picture {row} in {tree.root}"))
        rows.add(row)
    if lost:
        warnings.append(f"{path.name} names {lost} pictures that cannot be used, see the rejects")
    return sorted(named, key=lambda sample: (sample.pid, sample.name))


def _astray(path: Path, protocol: Protocol) -> Iterator[str]:
    """What the direction in the name of a protocol forbids."""
    sides = zip(("query", "gallery"), protocol.name.split("->"), strict=True)
    for what, side in sides:
        allowed = [SIDES[letter] for letter in side.split("+")]
        wrong = [
            sample.name
            for sample in getattr(protocol, what)
            if not any(getattr(sample, key) == value for key, value in allowed)
        ]
        if wrong:
            values = " or ".join(value for _, value in allowed)
            yield f"{path.name}: {len(wrong)} {what} pictures are not {values}, e.g. {wrong[0]}"


def json_rows(
    path: Path, decode: Callable[[bytes], object] = json.loads
) -> Iterator[tuple[int, dict | ValueError]]:
    """Line number and row of JSON lines, or what is wrong with it."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE)
                yield number, ValueError(f"the line has more than {MAX_LINE >> 20} MiB")
                continue
            line = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not line:
                continue
            try:
                row = decode(line)
            except (ValueError, RecursionError) as error:
                reason = f"not a JSON object: {error}; write one object in each line"
                yield number, ValueError(reason)
                continue
            if not isinstance(row, dict):
                got = type(row).__name__
                row = ValueError(f"expected a JSON object in each line, got {got}")
            yield number, row


def directions(query: list[Sample], gallery: list[Sample]) -> dict[str, Protocol]:
    """CARGO's protocols of any query and gallery with both views; those with nobody are left out.

    "A<->G" goes both ways: everybody stays, the view plays the camera (Zhang et al., CVPR 2024).
    "A->G" (SeCap's reading) and "G->A" (ours, published by nobody) go one way.
    """
    split = {
        view: ([s for s in query if s.view == view], [s for s in gallery if s.view == view])
        for view in ("aerial", "ground")
    }
    (air_query, air), (ground_query, ground) = split["aerial"], split["ground"]
    every = [
        Protocol(name="ALL", query=query, gallery=gallery),
        Protocol(name="G<->G", query=ground_query, gallery=ground),
        Protocol(name="A<->A", query=air_query, gallery=air),
        Protocol(name="A->G", query=air_query, gallery=ground),
        Protocol(name="G->A", query=ground_query, gallery=air),
    ]
    if air and ground:
        every.insert(3, Protocol(name="A<->G", query=query, gallery=gallery, camera="view"))
    return {p.name: p for p in every if p.query and p.gallery}


def quoted(text: str) -> str:
    """A text in quotes, as a user wrote it: what cannot be seen is escaped, and nothing else."""
    return "'" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + "'"


def bad(source: str, reason: str) -> Reject:
    """A file or row that cannot be used."""
    return Reject(source=source, stage="input", reason=reason)


def skip(source: str, reason: str, count: int) -> Reject:
    """Many that are no samples, as one."""
    return Reject(
        source=source,
        stage="input",
        reason=f"{reason} ({count})",
        kind="skipped",
        scores={"count": count},
    )
