# SPDX-License-Identifier: Apache-2.0
"""Contact sheet and HTML page of a run, for inspection before training.

Both are generated from the files of the run (parts, images, `report/fit`), so
`viewsynth report RUN` can recreate them. A sheet has rows of labelled tiles, one row per person.
"""

from __future__ import annotations

import html
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from viewsynth import manifest
from viewsynth.judge import FLAG_TEXT
from viewsynth.runtime.files import path_inside, stem_of, write

PEOPLE = 24  # rows of a sheet
VIEWS = 16  # views in a row
CROPS = 2  # source images in a row
REJECTS = 1000  # rows of a table on the page
HEIGHT, GAP, LINE = 150, 6, 15  # pixels: height of a tile, gap between tiles, height of a text line
SEEN, INVENTED = np.array([40, 170, 70]), np.array([220, 60, 50])  # green, red


@dataclass(frozen=True)
class Tile:
    """An image of the sheet and its caption."""

    label: str
    image: Image.Image


def write_report(run: Path) -> None:
    """Write `contact_sheet.png` and `report/index.html` of a run.

    Args:
        run: Folder of the run.

    Raises:
        FileNotFoundError: if `run` is not the folder of a run.
        ValueError: if its files cannot be parsed.
    """
    frozen = manifest.read(run)
    rows, rejects = manifest.read_rows(run, frozen)
    people: dict[str, list[dict]] = {}
    for row in rows:
        people.setdefault(row["person"], []).append(row)
    shown = [(title(views), list(tiles(run, views))) for views in list(people.values())[:PEOPLE]]
    write(run / "contact_sheet.png", draw(shown))
    write(run / "report" / "index.html", page(people, rejects, len(rows)).encode())


def title(views: list[dict]) -> str:
    """Heading of a person's row.

    Args:
        views: Rows of `metadata.jsonl` of the person.
    """
    row = views[0]
    seen = np.mean([view["seen_ratio"] for view in views])
    notes = [row["pid"], row["outfit"], f"{len(views)} views", f"{seen:.0%} seen"]
    notes.append(", ".join(_flags(row)))
    if row["fallback"]:
        notes.append(f"fallback: {row['fallback']}")
    return "   ".join(note for note in notes if note)


def tiles(run: Path, views: list[dict]) -> Iterator[Tile]:
    """Tiles of a person's row: source, mask and fit of each crop, seen overlay, views.

    Args:
        run: Folder of the run.
        views: Rows of `metadata.jsonl` of the person.
    """
    stem = stem_of(views[0]["pid"], views[0]["outfit"])
    for number in range(CROPS):
        path = path_inside(run, f"report/fit/{stem}_{number}.jpg")
        if path.is_file():
            labels = ("source", "mask", "fit")
            for label, image in zip(labels, _split(_open(path), len(labels)), strict=True):
                yield Tile(label, image)
    views = sorted(views, key=lambda row: (row["elevation"], row["azimuth"], row["file_name"]))
    chosen = views[:: -(-len(views) // VIEWS)]
    first = _open(path_inside(run, chosen[0]["file_name"]))
    seen = _open(path_inside(run, chosen[0]["seen_file_name"]), "L")
    yield Tile(f"seen {chosen[0]['elevation']:g}°", overlay(first, seen))
    factor = HEIGHT / max(row["height"] for row in chosen)  # one scale for all views of a person
    for row in chosen:
        label = f"{row['elevation']:g}° / {row['azimuth']:g}°"
        image = _open(path_inside(run, row["file_name"]))
        size = [max(round(side * factor), 1) for side in image.size]
        yield Tile(label, image.resize(size, Image.Resampling.LANCZOS))


def _open(path: Path, mode: str = "RGB") -> Image.Image:
    with Image.open(path) as image:
        return image.convert(mode)


def _split(strip: Image.Image, count: int) -> list[Image.Image]:
    edges = [round(strip.width * k / count) for k in range(count + 1)]
    return [strip.crop((a, 0, b, strip.height)) for a, b in zip(edges, edges[1:], strict=False)]


def overlay(image: Image.Image, seen: Image.Image) -> Image.Image:
    """Tint an image by its seen map: green = observed, red = inferred, in proportion.

    Pixels of value 0 are invented or belong to the background: they are only faded to grey.

    Args:
        image: RGB image of a view.
        seen: Seen map, of mode "L".
    """
    pixels = np.asarray(image, np.float32)
    share = np.asarray(seen.resize(image.size), np.float32)[..., None] / 255
    colour = share * SEEN + (1 - share) * INVENTED
    tinted = np.where(share > 0, 0.45 * pixels + 0.55 * colour, 0.6 * pixels + 50)
    return Image.fromarray(tinted.astype(np.uint8))


def draw(rows: list[tuple[str, list[Tile]]]) -> bytes:
    """Draw rows of labelled tiles.

    Args:
        rows: Heading and tiles of each row.

    Returns:
        PNG.
    """
    font = ImageFont.load_default(12)
    scaled = [
        (head, [Tile(t.label, _fitted(t.image)) for t in row] or [Tile("", _blank())])
        for head, row in rows or [("nobody was made", [])]
    ]
    widths = [sum(_width(tile, font) + GAP for tile in row) for _, row in scaled]
    step = LINE + HEIGHT + LINE + 2 * GAP
    sheet = Image.new("RGB", (max(*widths, 320) + GAP, step * len(scaled) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (head, row) in enumerate(scaled):
        x, y = GAP, GAP + number * step
        pen.text((x, y), _printable(head), "black", font)
        for tile in row:
            sheet.paste(tile.image, (x, y + LINE))
            pen.text(
                (x, y + LINE + tile.image.height + 1), _printable(tile.label), (90, 90, 90), font
            )
            x += _width(tile, font) + GAP
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _fitted(image: Image.Image) -> Image.Image:
    """Scale an image down to the height of a tile; smaller images stay unchanged."""
    if image.height <= HEIGHT:
        return image
    size = (max(round(image.width * HEIGHT / image.height), 1), HEIGHT)
    return image.resize(size, Image.Resampling.LANCZOS)


def _blank() -> Image.Image:
    return Image.new("RGB", (1, HEIGHT), "white")


def _width(tile: Tile, font) -> int:
    return max(tile.image.width, int(font.getlength(_printable(tile.label))) + 1)


def _printable(text: str) -> str:
    """Replace characters that the built-in font lacks; the HTML page shows them."""
    return "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in text)[:200]


# ---- the page ------------------------------------------------------------------------------------

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 } th { text-align: left }
td, th { border-bottom: 1px solid #ddd; padding: .2em .8em .2em 0; vertical-align: top }
img { max-width: 100% } .sheet { overflow-x: auto } .sheet img { max-width: none }
"""


def page(people: dict[str, list[dict]], rejects: list[dict], count: int) -> str:
    """HTML page of a run: counts, contact sheet, people and rejects; all links are relative.

    Args:
        people: Rows of `metadata.jsonl` by person.
        rejects: Rows of `rejects.jsonl`.
        count: Number of views.
    """
    every = [view for views in people.values() for view in views]
    repaired = any("refine" in view.get("engine", {}) for view in every)
    summary = _table(
        ("people", "views", "rejects"), [(str(len(people)), str(count), str(len(rejects)))]
    )
    why, each = _reject_tables(rejects)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>viewsynth</title>'
        f"<style>{STYLE}</style></head><body>\n<h1>Aerial views</h1>\n"
        f"<p>Every view is synthetic: {_drawn(every)}"
        f"{', repaired by a diffusion model' if repaired else ''}.</p>\n"
        f"{summary}\n<h2>Contact sheet</h2>\n<p>Captions: elevation / azimuth in degrees. In the "
        "seen overlay green was seen, red was inferred, grey was invented or is ground.</p>\n"
        '<p class="sheet"><a href="../contact_sheet.png"><img src="../contact_sheet.png" '
        f'alt="contact sheet"></a></p>\n<h2>People</h2>\n{_people_table(people)}\n'
        f"<h2>Rejects</h2>\n{why}\n{each}\n"
        '<p><a href="../metadata.jsonl">metadata.jsonl</a> · '
        '<a href="../rejects.jsonl">rejects.jsonl</a> · <a href="../config.yaml">config.yaml</a> · '
        '<a href="../run.json">run.json</a></p>\n</body></html>\n'
    )


def _drawn(rows: list[dict]) -> str:
    """What the views of a run show."""
    own = {bool(_mesh(row)) for row in rows}
    reconstructed = "a body model with the texture of the source pictures"
    if own == {True}:
        return "meshes of people that were given"
    return reconstructed + ", or a mesh that was given" * (True in own)


def _mesh(row: dict) -> dict:
    """What was found and done with the own mesh of a person; empty for others."""
    return next((source["mesh"] for source in row["sources"] if "mesh" in source), {})


def _people_table(people: dict[str, list[dict]]) -> str:
    e = html.escape
    return _table(
        ("person", "views", "seen", "weight", "flags", "fallback", "sources"),
        [
            (
                f'<a href="../images/{quote(_folder(views[0]))}/">{e(views[0]["pid"])}</a> '
                + e(views[0]["outfit"]),
                str(len(views)),
                f"{np.mean([v['seen_ratio'] for v in views]):.0%}",
                f"{np.mean([v['weight'] for v in views]):.2f}",
                e(", ".join(_flags(views[0]))),
                e(views[0]["fallback"]),
                e(", ".join(s["file"] for s in views[0]["sources"])),
            )
            for views in list(people.values())[:REJECTS]
        ],
    )


def _reject_tables(rejects: list[dict]) -> tuple[str, str]:
    """Tables of the reasons with their counts and of the single rejects."""
    e = html.escape
    reasons = Counter((r["stage"], r["kind"], r["reason"]) for r in rejects).most_common()
    why = _table(
        ("count", "stage", "kind", "reason"),
        [(str(n), e(s), e(k), e(r)) for (s, k, r), n in reasons[:REJECTS]],
    )
    each = _table(
        ("source", "person", "stage", "reason"),
        [(e(r["source"]), e(r["pid"]), e(r["stage"]), e(r["reason"])) for r in rejects[:REJECTS]],
    )
    return why, each


def remarks(rows: list[dict]) -> list[str]:
    """Warnings about the people of a run, for the terminal.

    Args:
        rows: Rows of `metadata.jsonl`.

    Returns:
        One sentence per kind of warning.
    """
    people = {row["person"]: row for row in rows}.values()
    found = {
        source["file"]: row.get("scores", {}).get("found", 1)
        for row in people
        for source in row["sources"]
    }
    several = [count for count in found.values() if count > 1]
    crowds = [
        f"{len(several)} images show several people: {sum(several)} were found, and each became a "
        "separate person; check whether others were missed"
    ]
    counts = Counter(flag for row in people for flag in _flags(row))
    flags = [f"{n} x flag {flag}: {FLAG_TEXT.get(flag, '')}" for flag, n in counts.most_common()]
    return crowds * bool(several) + flags + _mesh_remarks([_mesh(row) for row in people])


MESH_REMARKS = {  # key of the facts of a mesh -> what was done
    "up": "z up, turned to y up",
    "turn": "turned about the vertical axis, as its photos show it; degrees",
    "unit": "not in metres; unit",
    "turned": "with triangles that faced inwards, which were turned",
    "open_edges": "with holes, which are left open; open edges",
    "transparent": "transparent, drawn as if it were not",
}
PLAIN = {"up": "y", "unit": "m"}  # values that need no remark


def _mesh_remarks(facts: list[dict]) -> list[str]:
    """What was done with the meshes of a run, one sentence per kind; rows have the details."""
    lines = []
    for key, text in MESH_REMARKS.items():
        values = [one[key] for one in facts if one.get(key, PLAIN.get(key)) != PLAIN.get(key)]
        some = ", ".join(dict.fromkeys(map(str, values[:5]))) + ", …" * (len(values) > 5)
        detail = "" if key in ("up", "transparent") else f": {some}"
        lines += [f"{len(values)} x mesh {text}{detail}"] if values else []
    return lines


def _flags(row: dict) -> list[str]:
    return row.get("scores", {}).get("flags", [])


def reasons(rejects: list[dict]) -> list[tuple[str, int]]:
    """Reasons of rejects with their counts, most frequent first and skipped inputs last.

    Reasons of a stage that differ only in numbers or quoted names are counted together, under the
    text of the first.

    Args:
        rejects: Rows of `rejects.jsonl`.
    """
    groups: dict[tuple[bool, str], list[str]] = {}
    for reject in rejects:
        text = f"{reject['stage']}: {reject['reason']}"
        alike = re.sub(r"\d+(\.\d+)?|'[^']*'", "#", text)
        groups.setdefault((reject["kind"] == "skipped", alike), []).append(text)
    order = sorted(groups, key=lambda key: (key[0], -len(groups[key])))
    return [(groups[key][0], len(groups[key])) for key in order]


def _folder(row: dict) -> str:
    return row["file_name"].split("/")[1]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """HTML table of cells that are HTML already."""
    if not rows:
        return "<p>none</p>"
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return "<table>" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
