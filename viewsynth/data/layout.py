# SPDX-License-Identifier: Apache-2.0
"""What the released data sets have in common: folders of named files, and protocol lists.

The loaders of this folder use it to find the root, list the files, turn file names into samples,
read protocol lists and build the field's protocols. No image is decoded. Only the file name and the
folders inside the root are parsed, so the root itself may have any name.
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

DEPTH = 2  # how many folders below the given one a release may be nested
MAX_LIST = 256 * 2**20  # bytes of a protocol list
MAX_LINE = 2**20  # bytes of a row of JSON
LOOK = 100  # images whose file names are checked to recognise a data set
# Letters of a direction: "A->C" has aerial queries and a gallery of CCTV images.
SIDES = {
    "A": ("view", "aerial"),
    "G": ("view", "ground"),
    "C": ("platform", "cctv"),
    "W": ("platform", "wearable"),
}
LINK = "symbolic links are refused; put the file or folder itself there"


class LayoutError(ValueError):
    """The folder does not hold a data set of that layout."""


class FileNameError(ValueError):
    """The name of a file does not belong to the data set; the message says why."""


@dataclass
class Tree:
    """The files of a data set, listed.

    Args:
        root: Folder that the names are relative to.
        files: Names of the images, sorted; files of 0 bytes are in `rejects` instead.
        rejects: Files that cannot be used, and a count of those that are not images.
        sizes: Name and size in bytes of everything that the fingerprint covers.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    sizes: list[tuple[str, int]] = field(default_factory=list)


def find_root(root: str | Path, parts: tuple[str, ...], depth: int = DEPTH) -> Path:
    """The folder that holds all `parts`: `root` itself, or one nested in it, as in archives.

    Args:
        root: Folder to search.
        parts: Names of files or folders that the data set's root has.
        depth: How many folders below `root` to search.

    Returns:
        The resolved folder.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        ValueError: if several folders at the same depth hold all parts.
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
                f"data.root: {root} holds several releases: {', '.join(map(str, found[:4]))}; "
                "give one of them"
            )
        level = [sub for folder in level for sub in _folders(folder)]
    present = sorted(path.name for path in root.iterdir())[:8]
    raise LayoutError(
        f"expected {', '.join(parts)} in {root} (or up to {depth} folders below it), "
        f"found {', '.join(present) or 'nothing'}"
    )


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return [folder / name for name in names if not name.startswith((".", "__MACOSX"))]


def looks_like(root: str | Path, parts: tuple[str, ...], name: re.Pattern, depth: int) -> bool:
    """Whether a folder seems to hold a data set: its parts exist, and a file name matches.

    Args:
        root: Folder to search.
        parts: Names of files or folders that the data set's root has.
        name: Pattern of the data set's file names; only the first `LOOK` images are compared.
        depth: How many folders below `root` to search.
    """
    try:
        root = find_root(root, parts, depth)
    except ValueError:
        return False
    images = (f for _, _, files in os.walk(root) for f in files if f.lower().endswith(EXTENSIONS))
    return any(name.match(file) for file in itertools.islice(images, LOOK))


def scan(root: Path, folders: Iterable[str], lists: Iterable[Path] = ()) -> Tree:
    """List the images below some folders of a data set.

    Hidden files are ignored, symbolic links and empty files rejected, other files counted.

    Args:
        root: Folder of the data set.
        folders: Names of folders in `root`; missing ones are ignored.
        lists: Protocol lists and tables, which become part of the fingerprint.
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
        tree.rejects.append(skip(".", f"files that are not images: {kinds}", skipped.total()))
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


def beside(root: Path, file: str) -> Path:
    """A file of the root or, if it is only there, as in some archives, of the folder above it."""
    return next((p for p in (root / file, root.parent / file) if p.is_file()), root / file)


def fingerprint(sizes: Iterable[tuple[str, int]]) -> str:
    """Hash of file names and sizes that tells two releases apart: 16 hexadecimal digits."""
    text = "".join(f"{name}\t{size}\n" for name, size in sorted(sizes))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def match_name(pattern: re.Pattern, file: str, example: str) -> re.Match:
    """Match the start of a file name; raises FileNameError that quotes `example`."""
    if match := pattern.match(file):
        return match
    raise FileNameError(f"the file name does not have the form of {example}")


def samples(tree: Tree, parse: Callable[[str, str], dict | str], example: str) -> list[Sample]:
    """The images of a tree as samples, sorted by (pid, name).

    Args:
        tree: The listed files; its `rejects` get the names that cannot be parsed.
        parse: `parse(name, file)` gets the path in the root and its last part; it returns fields of
            `Sample`, or the name of a junk identity, whose images are left out and counted.
        example: A valid file name, for the error message.

    Raises:
        LayoutError: if no name can be parsed.
    """
    found: list[Sample] = []
    junk: Counter[str] = Counter()
    folders: dict[str, Path] = {}  # joining a file to its folder's path halves the time
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
        reason = f"images of the junk identity {identity} are left out"
        tree.rejects.append(skip(identity, reason, count))
    if not found:
        first = f", e.g. {tree.files[0]}" if tree.files else ""
        raise LayoutError(
            f"{tree.root}: none of {len(tree.files)} images has a name like {example}{first}"
        )
    found.sort(key=lambda sample: (sample.pid, sample.name))
    return found


def exported(tree: Tree, samples: list[Sample]) -> list[Sample]:
    """Mark the samples that `sources.jsonl` of `viewsynth export` names: synthetic and aerial."""
    path = tree.root / "sources.jsonl"
    rows = json_rows(path) if path.is_file() else ()
    names = {str(row.get("file_name")) for _, row in rows if isinstance(row, dict)}
    marked = {"source": "synthetic", "platform": "drone", "view": "aerial"}
    return [replace(one, **marked) if one.name in names else one for one in samples]


def split_of(name: str, train: str) -> str:
    """Split of an image by its first folder: `train`, "query…", or any other (the gallery)."""
    folder = name.partition("/")[0]
    return "train" if folder == train else "query" if folder.startswith("query") else "gallery"


def read_list(path: Path) -> list[tuple[int, str]]:
    """Line numbers and file names of a protocol list; raises ValueError if it is not text."""
    if path.stat().st_size > MAX_LIST:
        raise ValueError(f"{path} has more than {MAX_LIST >> 20} MiB; is it a protocol list?")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}; expected one file name a line") from error
    rows = ((number, row.strip()) for number, row in enumerate(text.split("\n"), 1))
    return [(number, row.replace("\\", "/").removeprefix("./")) for number, row in rows if row]


def named_folders(lists: Iterable[Path]) -> list[str]:
    """First folders of the paths in some protocol lists, sorted."""
    rows = (row for path in lists if path.is_file() for _, row in read_list(path))
    return sorted({row.partition("/")[0] for row in rows} - {"", ".", ".."})


def listed(
    tree: Tree, samples: list[Sample], lists: dict[str, Path], warnings: list[str]
) -> dict[str, Protocol]:
    """The protocols that lists define; those without query or gallery are left out.

    Args:
        tree: Its `rejects` get the rows that name no image, or name one twice.
        samples: All samples of the data set.
        lists: Protocol name -> list file; images in folders "query…" are queries, others gallery.
        warnings: Get the problems of whole lists.
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
                f"{path} names no existing {' and no '.join(empty)} image: the protocol {name} is "
                "not offered"
            )
            continue
        found[name] = Protocol(name=name, **parts)
        warnings += _contradictions(path, found[name])
    return found


def _named(
    tree: Tree, known: dict[str, Sample], rejected: set[str], path: Path, warnings: list[str]
) -> list[Sample]:
    """The samples that a list names, in the order of samples, not of rows."""
    rows, named, lost = set(), [], 0
    for line, row in read_list(path):
        where = f"{path.name}:{line}"
        if row in rows:
            tree.rejects.append(bad(where, f"{row} was named before, in an earlier row"))
        elif sample := known.get(row):
            named.append(sample)
        elif row in rejected:
            lost += 1  # the image has a reject of its own
        else:
            tree.rejects.append(bad(where, f"there is no image {row} in {tree.root}"))
        rows.add(row)
    if lost:
        warnings.append(f"{path.name} names {lost} images that cannot be used, see the rejects")
    return sorted(named, key=lambda sample: (sample.pid, sample.name))


def _contradictions(path: Path, protocol: Protocol) -> Iterator[str]:
    """Warnings of images that contradict the direction in the protocol's name."""
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
            yield f"{path.name}: {len(wrong)} {what} images are not {values}, e.g. {wrong[0]}"


def json_rows(
    path: Path, decode: Callable[[bytes], object] = json.loads
) -> Iterator[tuple[int, dict | ValueError]]:
    """Line number and row of JSON lines; a ValueError instead of a row that cannot be read."""
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
                if not isinstance(row, dict):
                    got = type(row).__name__
                    row = ValueError(f"expected a JSON object in each line, got {got}")
            except (ValueError, RecursionError) as error:
                row = ValueError(f"not a JSON object: {error}; write one object in each line")
            yield number, row


def directions(query: list[Sample], gallery: list[Sample]) -> dict[str, Protocol]:
    """CARGO's protocols for a query and gallery with both views; empty ones are left out.

    "A<->G" covers both directions: all images stay, and the view takes the camera's place (Zhang et
    al., CVPR 2024). "A->G" (SeCap's reading) and "G->A" (ours, not published) go one way.
    """
    split = {
        view: ([s for s in query if s.view == view], [s for s in gallery if s.view == view])
        for view in ("aerial", "ground")
    }
    (air_query, air), (ground_query, ground) = split["aerial"], split["ground"]
    protocols = [
        Protocol(name="ALL", query=query, gallery=gallery),
        Protocol(name="G<->G", query=ground_query, gallery=ground),
        Protocol(name="A<->A", query=air_query, gallery=air),
        Protocol(name="A->G", query=air_query, gallery=ground),
        Protocol(name="G->A", query=ground_query, gallery=air),
    ]
    if air and ground:
        protocols.insert(3, Protocol(name="A<->G", query=query, gallery=gallery, camera="view"))
    return {p.name: p for p in protocols if p.query and p.gallery}


def bad(source: str, reason: str) -> Reject:
    """A reject: a file or row that cannot be used."""
    return Reject(source=source, stage="input", reason=reason)


def skip(source: str, reason: str, count: int) -> Reject:
    """One reject for many files or rows that are not samples."""
    counted = {"kind": "skipped", "scores": {"count": count}}
    return Reject(source=source, stage="input", reason=f"{reason} ({count})", **counted)
