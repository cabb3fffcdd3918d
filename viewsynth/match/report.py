# SPDX-License-Identifier: Apache-2.0
"""The report of a match: filmed and made images side by side, and histograms of their figures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE, GAP, COLUMNS, ROWS = 144, 6, 9, 3  # pixels; images beside and below each other
PANEL, BINS = (210, 110), 16
FILMED, MADE = (214, 110, 30), (40, 110, 200)
SHOWN = {
    "look.lightness": "lightness, median",
    "look.range": "lightness, range",
    "look.chroma": "chroma, mean",
    "look.laplacian": "|Laplacian|",
    "person.light50": "person, lightness",
    "person.chroma": "person, chroma",
    "ground.light50": "ground, lightness",
    "ground.chroma": "ground, chroma",
    "edge.light1": "halo, light side",
    "edge.dark1": "halo, dark side",
    "noise.fine": "noise, log",
    "power7": "power at 0.37, log",
}


def draw(
    filmed: Sequence[np.ndarray],
    made: Sequence[np.ndarray],
    grounds: Sequence[np.ndarray],
    figures: tuple[Sequence[dict], Sequence[dict]],
) -> bytes:
    """Draw the sheet.

    Args:
        filmed: Filmed crops.  uint8 [H, W, 3] each
        made: Made crops.
        grounds: Textures.
        figures: Figures of all filmed and of all made crops, see `measures.measure`.

    Returns:
        PNG.
    """
    blocks = [
        _labelled("filmed", _tiles(filmed, ROWS)),
        _labelled("made with the preset (other people)", _tiles(made, ROWS)),
        _labelled("grounds", _tiles(grounds, 1)),
        _labelled("filmed (orange) and made (blue)", _histograms(*figures)),
    ]
    width = max(block.width for block in blocks)
    sheet = Image.new("RGB", (width, sum(block.height for block in blocks)), "white")
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _labelled(text: str, image: Image.Image) -> Image.Image:
    block = Image.new("RGB", (image.width + 2 * GAP, image.height + 24), "white")
    ImageDraw.Draw(block).text((GAP, 5), text, "black", ImageFont.load_default(12))
    block.paste(image, (GAP, 22))
    return block


def _tiles(images: Sequence[np.ndarray], rows: int) -> Image.Image:
    """Images at one height, evenly picked."""
    most = COLUMNS * rows
    picked = [images[k] for k in range(0, len(images), -(-len(images) // most) or 1)][:most]
    lines = -(-len(picked) // COLUMNS)
    made = Image.new("RGB", (COLUMNS * (TILE + GAP), max(lines, 0) * (TILE + GAP) + 1), "white")
    for number, pixels in enumerate(picked):
        image = Image.fromarray(pixels)
        factor = TILE / max(image.size)
        size = [max(round(side * factor), 1) for side in image.size]
        at = (number % COLUMNS * (TILE + GAP), number // COLUMNS * (TILE + GAP))
        made.paste(image.resize(size, Image.Resampling.BICUBIC), at)
    return made


def _histograms(filmed: Sequence[dict], made: Sequence[dict]) -> Image.Image:
    wide, high = PANEL
    columns = COLUMNS * (TILE + GAP) // wide
    lines = -(-len(SHOWN) // columns)
    sheet = Image.new("RGB", (columns * wide, lines * high), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (key, label) in enumerate(SHOWN.items()):
        left, top = number % columns * wide, number // columns * high
        both = [np.array([row[key] for row in rows]) for rows in (filmed, made)]
        low, most = np.percentile(np.concatenate(both), (1, 99))
        edges = np.linspace(low, max(most, low + 1e-6), BINS + 1)
        pen.text((left + 4, top + 2), label, "black", font)
        pen.text((left + 4, top + high - 16), f"{low:.3g}", "grey", font)
        pen.text((left + wide - 50, top + high - 16), f"{most:.3g}", "grey", font)
        for values, colour in zip(both, (FILMED, MADE), strict=True):
            counts = np.histogram(np.clip(values, low, most), edges)[0] / len(values)
            points = []
            for k, count in enumerate(counts):
                y = top + high - 20 - min(float(count) / 0.4, 1) * (high - 40)
                points += [(left + 6 + k * (wide - 24) / BINS, y)]
                points += [(left + 6 + (k + 1) * (wide - 24) / BINS, y)]
            pen.line(points, colour, 2)
    return sheet
