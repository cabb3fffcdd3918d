# SPDX-License-Identifier: Apache-2.0
"""Contact sheet and HTML page of a run."""

from __future__ import annotations

import io
import re

from PIL import Image

from viewsynth.report import sheet


def rows(pid="<b>p</b>"):
    return [
        {
            "file_name": "images/a%20b/e30_a0.jpg",
            "seen_file_name": "s",
            "person": "x",
            "pid": pid,
            "outfit": "",
            "seen_ratio": 0.5,
            "weight": 1.0,
            "fallback": "walk",
            "elevation": 30.0,
            "azimuth": 0.0,
            "sources": [{"file": "<i>.jpg", "sha256": "0"}],
        }
    ]


def test_page_escapes_text_and_has_relative_links():
    reject = {"source": "<u>", "pid": "&", "stage": "s", "kind": "quality", "reason": "<script>"}
    page = sheet.page({"x": rows()}, [reject], 1)
    assert not re.search(r"<(b|i|u|script)>", page) and "&lt;script&gt;" in page
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert links and all(link.startswith("../") for link in links)
    assert "../images/a%2520b/" in links  # the folder is called a%20b


def test_draw_has_a_row_per_person_and_is_reproducible():
    tile = sheet.Tile("30° / 0°", Image.new("RGB", (50, 100), "red"))
    one, two = sheet.draw([("p", [tile])]), sheet.draw([("p", [tile]), ("人", [tile, tile])])
    sizes = [Image.open(io.BytesIO(data)).size for data in (one, two)]
    assert sizes[1][1] > 1.9 * sizes[0][1] - 10 and sheet.draw([("p", [tile])]) == one
    assert Image.open(io.BytesIO(sheet.draw([]))).size[0] > 100


def test_overlay_distinguishes_seen_from_inferred():
    image, seen = Image.new("RGB", (3, 1), "grey"), Image.new("L", (3, 1))
    seen.putdata([255, 60, 0])
    green, red, off = sheet.overlay(image, seen).get_flattened_data()
    assert green[1] > green[0] and red[0] > red[1] and len(set(off)) == 1


def test_title_of_a_row():
    assert sheet.title(rows("p")) == "p   1 views   50% seen   fallback: walk"


def test_what_was_done_with_meshes_is_told():
    facts = [
        {"up": "z", "unit": "cm", "turn": 90.0, "open_edges": 7},
        {"up": "y", "unit": "m", "turned": 3},
        {"up": "y", "unit": "none: scaled to 1.68 m", "turn": 90.0, "transparent": True},
    ]
    found = [
        row | {"person": str(k), "sources": [{"file": f"{k}.glb", "mesh": one}, *row["sources"]]}
        for k, one in enumerate(facts)
        for row in rows("p")
    ]
    assert sheet.remarks(found) == [
        "1 x mesh z up, turned to y up",
        "2 x mesh turned about the vertical axis, as its photos show it; degrees: 90.0",
        "2 x mesh not in metres; unit: cm, none: scaled to 1.68 m",
        "1 x mesh with triangles that faced inwards, which were turned: 3",
        "1 x mesh with holes, which are left open; open edges: 7",
        "1 x mesh transparent, drawn as if it were not",
    ]
    assert sheet.remarks(rows("p")) == []
    assert "meshes of people that were given" in sheet.page({"x": found[:1]}, [], 1)
    assert "or a mesh that was given" in sheet.page({"x": found[:1], "y": rows("q")}, [], 2)
