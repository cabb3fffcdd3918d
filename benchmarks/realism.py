# SPDX-License-Identifier: Apache-2.0
"""Where the crops of a rendered world differ from filmed crops.

    python benchmarks/realism.py AIR GROUND WORLD [WORLD ...] [--people 60] [--reid FOLDER ...]

AIR/<pid>/*.png or *.jpg are true aerial crops, GROUND/<pid>/ ground crops of the same people. They
are yours: none are part of the project, and no image is written. Each WORLD is a folder of
`viewsynth world`, of which the ground images and the aerial images of 20 to 75 degrees of the first
people are measured; images of its part `paired` are not.

Every image is scaled to a height of 128 pixels; `realism_measures.py` says what is measured. The
table has means over people (of the means of each person) and their 95 % bootstrap intervals; a
value of a world is bold if its interval and that of the filmed crops do not overlap. Between
cameras: all pairs of images of a person by different cameras; each filmed file counts as a camera
of its own, although some may be of one. With `--reid`, backbone folders of `viewsynth convert`,
the table ends with the measures of `realism_reid.py`. `--output` draws the main quantities.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import realism_measures as measures
import realism_reid
import tyro
from identity_images import crop_files
from identity_scores import InputError
from tqdm import tqdm

from viewsynth.data import images
from viewsynth.metrics.intervals import interval
from viewsynth.reconstruct import crowd
from viewsynth.reconstruct.parse import parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights

ELEVATIONS = (20.0, 75.0)  # degrees, of aerial images
PROCESSES = 2
VIEWS = ("ground", "aerial")
PAIRS = {"ground": "ground - ground", "aerial": "ground - aerial"}
# Section -> rows: what the table says, the figure, the factor and the digits.
SHARE = (100, 0)
ROWS = {
    "Colour of garments": [
        (f"{part}: {words}", f"{part}.{key}", *form)
        for part in ("upper", "lower")
        for words, key, form in (
            ("dark (L* < 30), %", "dark", SHARE),
            ("grey (chroma < 10), %", "grey", SHARE),
            ("white (chroma < 10, L* > 70), %", "white", SHARE),
            ("blue, %", "blue", SHARE),
            ("saturated (chroma > 30), %", "saturated", SHARE),
            ("median L*", "L", (1, 1)),
            ("chroma", "chroma", (1, 1)),
        )
    ],
    "Contrast inside garments": [
        (f"{part}: {words}", f"{part}.{key}", *form)
        for part in ("upper", "lower")
        for words, key, form in (
            ("range of L*, 10-90 %", "range", (1, 1)),
            ("range without shading", "texture", (1, 1)),
            ("mean absolute Laplacian", "laplacian", (1, 2)),
            ("strong pattern, %", "pattern", SHARE),
        )
    ],
    "Look": [
        ("L*, 2 %", "look.low", 1, 1),
        ("L*, median", "look.light", 1, 1),
        ("L*, 98 %", "look.high", 1, 1),
        ("clipped (L* > 99), % of pixels", "look.clipped", 100, 1),
        ("chroma", "look.chroma", 1, 1),
        ("mean absolute Laplacian", "look.laplacian", 1, 2),
        ("person, median L*", "person.L", 1, 1),
        ("background, median L*", "background.L", 1, 1),
        ("background, a*", "background.a", 1, 1),
        ("background, b*", "background.b", 1, 1),
        ("hair, L*", "hair.L", 1, 1),
        ("skin, L*", "skin.L", 1, 1),
    ],
    "Framing": [
        ("height / width of the crop", "framing.aspect", 1, 2),
        ("height of the person / crop", "framing.tall", 1, 2),
        ("width of the person / crop", "framing.wide", 1, 2),
        ("offset of the centre", "framing.offset", 1, 3),
        ("cut at a border, %", "framing.cut", *SHARE),
        ("cut at the bottom, %", "framing.cut.bottom", *SHARE),
    ],
    "Hidden": [
        ("landmarks outside the crop, %", "hidden.outside", 100, 1),
        ("landmarks off the person, %", "hidden.off", 100, 1),
        ("two people of one size, %", "crowd", *SHARE),
    ],
}
BETWEEN = [
    ("L* of the person", "person.L", 1, 1),
    ("L* of the background", "background.L", 1, 1),
    ("a* of the background", "background.a", 1, 1),
    ("b* of the background", "background.b", 1, 1),
    ("L* of garments", "garments.L", 1, 1),
    ("a* of garments", "garments.a", 1, 1),
    ("b* of garments", "garments.b", 1, 1),
    ("CIEDE2000 of garments", "garments.delta_e", 1, 1),
    ("range of L*, 2-98 %", "range", 1, 1),
    ("L*, 2 %", "low", 1, 1),
    ("chroma", "chroma", 1, 1),
    ("Laplacian, log2", "sharpness", 1, 2),
    ("height of the person / crop", "tall", 1, 3),
]
# What is drawn: title, figure, view or pair of views.
DRAWN = (
    ("L* of upper garment, ground", "upper.L", "ground"),
    ("L* of lower garment, ground", "lower.L", "ground"),
    ("chroma of upper garment, ground", "upper.chroma", "ground"),
    ("L* range of upper garment, ground", "upper.range", "ground"),
    ("L* of garments, ground - ground", "garments.L", PAIRS["ground"]),
    ("L* of garments, ground - aerial", "garments.L", PAIRS["aerial"]),
    ("Laplacian, ground", "look.laplacian", "ground"),
    ("Laplacian, aerial", "look.laplacian", "aerial"),
    ("person / crop, aerial", "framing.tall", "aerial"),
)


@dataclass(frozen=True)
class Config:
    """Filmed crops and worlds in, a table out."""

    air: tyro.conf.Positional[Path]
    """Folder of true aerial crops, one folder per person."""
    ground: tyro.conf.Positional[Path]
    """Folder of ground crops of the same people."""
    worlds: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of `viewsynth world`."""
    people: int = 60
    """Number of people of each world."""
    reid: tuple[Path, ...] = ()
    """Folders of ReID backbones, whose features are concatenated."""
    output: Path | None = None
    """File of the figure, .svg or .png."""


@dataclass(frozen=True)
class Shot:
    """An image to be measured.

    Args:
        path: Its file.
        pid: The person.
        camera: That took it.
        view: One of `VIEWS`.
    """

    path: Path
    pid: str
    camera: str
    view: str


@dataclass(frozen=True, eq=False)
class Crop:
    """A measured image: its shot, its pixels at the common height, its figures."""

    shot: Shot
    image: np.ndarray
    figures: dict[str, float]


# ---- reading -------------------------------------------------------------------------------------


def filmed(air: Path, ground: Path) -> list[Shot]:
    """The filmed images, see `identity_images.crop_files`."""
    both = zip(("aerial", "ground"), crop_files(air, ground), strict=True)
    return [
        Shot(path, pid, path.name, view)
        for view, files in both
        for pid, own in files.items()
        for path in own
    ]


def rendered(world: Path, people: int) -> list[Shot]:
    """The images of the first people of a world.

    Args:
        world: Its folder.
        people: Their number.

    Raises:
        InputError: If there is no truth.jsonl.
    """
    table = world / "truth.jsonl"
    if not table.is_file():
        raise InputError(f"{world} has no truth.jsonl; give a folder of `viewsynth world`")
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["split"] != "paired"]
    first = set(sorted({row["pid"] for row in rows})[:people])
    low, high = ELEVATIONS
    return [
        Shot(world / row["file_name"], row["pid"], str(row["camid"]), row["view"])
        for row in rows
        if row["pid"] in first and (row["view"] == "ground" or low <= row["elevation"] <= high)
    ]


_model: list[Model] = []  # of this process


def _start() -> None:
    _model.append(Model(weights.pose_model(None)))


def read(shot: Shot) -> Crop:
    """Read and measure an image, in a process that `_start` has prepared."""
    image = measures.scaled(images.read(shot.path, least=1))
    figures = measures.measure(image, parse(image, _model[0]))
    if figures:
        figures["crowd"] = float(crowd.is_crowd(image, _model[0]))
    return Crop(shot, image, figures)


def read_all(shots: Sequence[Shot]) -> list[Crop]:
    """Measure images in `PROCESSES` processes; those without a person have no figures."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawn, _start) as pool:
        return list(tqdm(pool.map(read, shots, chunksize=8), total=len(shots), unit="image"))


# ---- values of people ----------------------------------------------------------------------------


def by_person(crops: Sequence[Crop], view: str, key: str) -> np.ndarray:
    """The mean figure of each person's images in a view, [P]; NaN = none."""
    found: dict[str, list[float]] = {}
    for crop in crops:
        if crop.shot.view == view:
            found.setdefault(crop.shot.pid, []).append(crop.figures.get(key, np.nan))
    return np.array([measures.mean(values) for values in found.values()])


def between(crops: Sequence[Crop], view: str) -> dict[str, np.ndarray]:
    """Differences of pairs of images by different cameras, the mean of each person.

    Args:
        crops: Of all people.
        view: "ground": both are ground images; "aerial": one is aerial, the other ground.
    """
    found: dict[str, dict[str, list[float]]] = {}
    wanted = sorted([view, "ground"])
    usable = [crop for crop in crops if crop.figures]
    for one, other in itertools.combinations(usable, 2):
        a, b = one.shot, other.shot
        if a.pid != b.pid or sorted([a.view, b.view]) != wanted:
            continue
        if (a.view, a.camera) == (b.view, b.camera):
            continue
        for key, value in measures.differences(one.figures, other.figures).items():
            found.setdefault(key, {}).setdefault(a.pid, []).append(value)
    means = {
        key: np.array([measures.mean(values) for values in own.values()])
        for key, own in found.items()
    }
    return {key: means.get(key, np.array([])) for _, key, *_ in BETWEEN}


def shared(crops: Sequence[Crop]) -> np.ndarray:
    """Of each person, the share of the others who wear the same colours, see `sharing`."""
    upper, lower = (
        np.stack([by_person(crops, "ground", f"{part}.{axis}") for axis in "Lab"], 1)
        for part in ("upper", "lower")
    )
    return measures.sharing(upper, lower)


# ---- output --------------------------------------------------------------------------------------


def row(words: str, columns: Sequence[np.ndarray], factor: float, digits: int) -> str:
    """A row of the table, of one value per person in each column; the first is filmed."""
    found = [interval(np.asarray(values) * factor) for values in columns]
    return row_of(words, found, digits)


def row_of(words: str, found: Sequence[tuple[float, float, float]], digits: int) -> str:
    """A row of values with intervals; bold = the interval does not touch the first column's."""
    cells = []
    for value, low, high in found:
        cell = (
            "-" if np.isnan(value) else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        )
        apart = low > found[0][2] or high < found[0][1]
        cells.append(f"**{cell}**" if apart else cell)
    return f"| {words} | {' | '.join(cells)} |"


def lines(sets: Sequence[list[Crop]]) -> list[str]:
    """The rows of the table, without those of a network."""
    found = []
    for section, rows in ROWS.items():
        found.append(heading(section, len(sets)))
        for words, key, factor, digits in rows:
            for view in VIEWS:
                columns = [by_person(crops, view, key) for crops in sets]
                found.append(row(f"{view}, {words}", columns, factor, digits))
        if section == "Colour of garments":
            columns = [shared(crops) for crops in sets]
            found.append(row("two people with one colour pair, %", columns, 100, 1))
    for view in VIEWS:
        apart = [between(crops, view) for crops in sets]
        having = [f" {len(one['person.L'])} people" for one in apart]
        found.append(f"| **Between cameras of a person, {PAIRS[view]}** |{' |'.join(having)} |")
        for words, key, factor, digits in BETWEEN:
            found.append(row(words, [one[key] for one in apart], factor, digits))
    return found


def heading(words: str, columns: int) -> str:
    """A row that names a section."""
    return f"| **{words}** |{' |' * columns}"


def counts(crops: Sequence[Crop]) -> str:
    """How many people and images there are, and how many show nobody."""
    parts = []
    for view in VIEWS:
        own = [crop for crop in crops if crop.shot.view == view]
        empty = sum(not crop.figures for crop in own)
        parts.append(
            f"{len(own)} {view} images" + (f" ({empty} without a person)" if empty else "")
        )
    return f"{len({crop.shot.pid for crop in crops})} people, {', '.join(parts)}"


def draw(path: Path, names: Sequence[str], sets: Sequence[list[Crop]]) -> None:
    """Write the values of people, their median and quartiles, of each set; no image is shown.

    Args:
        path: .svg or .png.
        names: Of the sets.
        sets: Their crops.
    """
    from matplotlib.figure import Figure  # pyplot would keep a global state

    figure = Figure(figsize=(9.5, 1.4 + 0.6 * len(names) * 2), dpi=110, layout="constrained")
    every = figure.subplots(3, 3).ravel()
    for axes, (title, key, view) in zip(every, DRAWN, strict=True):
        for n, crops in enumerate(sets):
            paired = [one for one, words in PAIRS.items() if words == view]
            values = between(crops, *paired)[key] if paired else by_person(crops, view, key)
            values = values[~np.isnan(values)]
            jitter = np.random.default_rng(0).uniform(-0.25, 0.25, len(values))
            axes.plot(values, n + jitter, ".", color=f"C{n}", markersize=4, alpha=0.5)
            low, middle, high = np.percentile(values, (25, 50, 75)) if len(values) else (0, 0, 0)
            axes.plot([low, high], [n, n], color="black", linewidth=2)
            axes.plot([middle], [n], "|", color="black", markersize=14, markeredgewidth=2)
        axes.set_title(title, fontsize="small")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(labelsize="small")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def main() -> None:
    """Print the table."""
    config = tyro.cli(Config, description=__doc__)
    try:
        shots = [filmed(config.air, config.ground)]
        shots += [rendered(world, config.people) for world in config.worlds]
    except InputError as error:
        sys.exit(f"realism: {error}")
    names = ["filmed", *(world.name for world in config.worlds)]
    sets = [read_all(some) for some in shots]
    for name, crops in zip(names, sets, strict=True):
        sys.stdout.write(f"{name}: {counts(crops)}\n\n")
    sys.stdout.write(f"| | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n")
    sys.stdout.write("\n".join(lines(sets)) + "\n")
    if config.reid:
        found = realism_reid.table(sets, realism_reid.encoder(config.reid))
        rows = [heading("ReID network", len(sets)), *(row_of(*one) for one in found)]
        sys.stdout.write("\n".join(rows) + "\n")
    if config.output:
        draw(config.output, names, sets)


if __name__ == "__main__":
    main()
