# SPDX-License-Identifier: Apache-2.0
"""Compare synthetic drone views with the true images of a world.

viewsynth fidelity WORLD --people 200 --output DIR

WORLD is a folder of `viewsynth world`. Its test people are reconstructed from their ground images,
rendered at the true cameras of the drones that recorded the same instant, and compared with the
true images; so are baselines. DIR gets `table.md`, `table.json`, `fidelity.jsonl` (one row per
image and method), `rejects.jsonl` and `sheet.png`. Run the same command again to continue after a
stop, or with more people.

The observer, a network that measures identity and elevation, is trained on WORLD's training people
first (a few minutes) and saved in DIR. To compare two versions of the code, give both runs the same
--observer; to tune on some people and report others, use --skip.

The look of the views is that of `generate`; a preset of `viewsynth match` before WORLD changes it.
Their cameras are the true ones, so the sizes and margins of a preset are not used.

--complete rules and --against DIR tell what the completion network changes; --photos 1
reconstructs every person from one photo.

--refine.engine FOLDER_OR_ID adds a model of `viewsynth train-diffusion`, applied to the renderings
and to the photo alone; --reid FOLDER adds a model of `viewsynth train` as a second measure of
identity. Neither may be trained on WORLD's test people.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from viewsynth.config import check_range, to_dict
from viewsynth.diffusion.options import Refine
from viewsynth.render.options import Scene, Sensor
from viewsynth.runtime import weights
from viewsynth.runtime.files import to_jsonl, write
from viewsynth.runtime.workers import FatalError, run_items

if TYPE_CHECKING:
    from viewsynth.world import truth

MOST = 12_000  # training images of the observer: more take minutes and memory
# Tiles of a view on the sheet: file and label; `REPAIRED` is used with a diffusion engine.
SHEET = tuple(
    (name, "true" if name == "photo" else name.replace("_", " "))
    for name in ("photo", "ours", "true_pose", "ceiling", "warped", "mean_body")
)
REPAIRED = (
    ("ours_whole", "render"),
    ("repair_whole", "repair"),
    ("source_only_whole", "source only"),
    ("photo", "true"),
)


@dataclass(frozen=True)
class Config:
    """Synthetic against true drone views, with baselines, intervals and a sheet."""

    world: tyro.conf.Positional[Path]
    """Folder of a finished `viewsynth world` with instants."""
    output: Path = Path("outputs/fidelity")
    """Folder of the results."""
    people: int = 200
    """Number of test people."""
    skip: int = 0
    """Number of test people to skip first: tune on those, report the others."""
    observer: Path | None = None
    """File of the observer, trained if missing; None = <output>/observer.safetensors."""
    workers: int = 2
    """Worker processes."""
    seed: int = 0
    """Seed of the sensor noise and of the observer's training."""
    sheet: int = 12
    """Number of people on the sheet."""
    photos: int | None = None
    """Ground images of each instant that are used, chosen at random; None = all."""
    against: Path | None = None
    """Output of another run on the same people: the table gets paired differences."""
    complete: str = "learned"
    """What no image shows, as `reconstruct.complete` of generate: learned, rules or FILE."""
    sensor: Sensor = field(default_factory=Sensor)
    scene: Scene = field(default_factory=Scene)
    refine: Refine = field(default_factory=Refine)
    reid: Path | None = None
    """Folder of a model of `viewsynth train`: a second measure of identity, on whole images."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the engine and the ReID model; everything else runs on the CPU."""

    def __post_init__(self):
        check_range("people", self.people, 1, 1_000_000)
        check_range("skip", self.skip, 0, 1_000_000)
        check_range("photos", self.photos, 1, 100)
        check_range("workers", self.workers, 1, 256)
        check_range("sheet", self.sheet, 0, 200)


def run(config: Config) -> int:
    """Measure, and print the tables; returns 0."""
    from tqdm import tqdm

    from viewsynth.evaluate.fidelity import comparison
    from viewsynth.world import truth

    earlier = _earlier(config.against)
    moments = truth.instants(config.world, config.people, config.skip)
    moments = [_with_few_photos(moment, config) for moment in moments]
    judges, marks = _judges(config)
    models = weights.reconstruction(config.complete)
    path = config.observer or config.output / "observer.safetensors"
    mark = have_observer(config.world, path, config.seed)
    pids = list(dict.fromkeys(moment.pid for moment in moments))
    code = comparison.code(config.refine.engine != "none", config.reid is not None)
    look = {"sensor": to_dict(config.sensor), "scene": config.scene.settings()}
    digests = {name: weights.sha256(path) for name, path in models.items()}
    said = [code, truth.digest(config.world), mark, config.seed, config.photos, look, digests]
    said += marks
    job = comparison.Job(
        world=config.world,
        output=config.output,
        observer=path,
        models=models,
        mark=hashlib.sha256(json.dumps(said).encode()).hexdigest(),
        seed=config.seed,
        shown=tuple(pids[: config.sheet]),
        sensor=config.sensor,
        scene=config.scene,
        **judges,
    )
    every = comparison.chunks(moments)
    todo = [chunk for chunk in every if comparison.part(job, chunk) is None]
    with tqdm(total=sum(len(chunk.pids) for chunk in todo), unit="person") as bar:
        for done in run_items(todo, comparison.start, (job,), config.workers):
            if done is None:
                continue
            chunk, why = done
            if why:
                raise FatalError(f"people {chunk.pids[0]} to {chunk.pids[-1]}: {why}")
            bar.update(len(chunk.pids))
    parts = [comparison.part(job, chunk) for chunk in every]
    _report(config, parts, moments, earlier)
    return 0


def _with_few_photos(moment: truth.Instant, config: Config) -> truth.Instant:
    """The instant with at most `config.photos` ground images."""
    import dataclasses

    from viewsynth.records import seed_of

    def draw(row: dict) -> int:
        return seed_of(config.seed, "photo", row["file_name"])

    kept = sorted(sorted(moment.ground, key=draw)[: config.photos], key=lambda r: r["file_name"])
    return dataclasses.replace(moment, ground=tuple(kept))


def _earlier(folder: Path | None) -> list[dict]:
    """Rows of the run that this one is compared with."""
    if folder is None:
        return []
    path = folder / "fidelity.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"against: {folder} is no output of a finished `viewsynth fidelity`: {path.name} is "
            "missing"
        )
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _judges(config: Config) -> tuple[dict, list]:
    """Find the engine and the ReID model.

    Returns:
        Fields of the workers' job, and entries of the fingerprint.

    Raises:
        FileNotFoundError: if one does not exist.
        ValueError: if one is of another kind.
    """
    from viewsynth.diffusion import refine

    found = refine.find(config.refine)
    if found is None and config.reid is None:
        return {}, []
    said = []
    if found is not None:
        said.append(refine.revision(found, config.refine))
    if config.reid is not None:
        from viewsynth.reid import encoders, saved

        if not saved.is_ours(config.reid):
            raise ValueError(
                f"reid: {config.reid} is no model of `viewsynth train`; give the folder model/ of "
                "its output"
            )
        said.append(encoders.load(str(config.reid)).fingerprint)
    device = config.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    said.append(device)
    job = {"engine": found, "refine": config.refine, "reid": config.reid, "device": device}
    return job, said


def have_observer(world: Path, path: Path, seed: int) -> str:
    """Train the observer of a world, unless its file exists.

    Args:
        world: Folder of the world.
        path: File of the observer.
        seed: Seed of its training.

    Returns:
        Its fingerprint.

    Raises:
        ValueError: if the file holds another observer.
    """
    import numpy as np
    from tqdm import tqdm

    from viewsynth.evaluate.fidelity import observer
    from viewsynth.world import truth

    rows = _few(truth.training_rows(world))
    settings = observer.Settings()
    # File sizes reveal a world that was rendered again, without reading every image.
    sized = [row | {"bytes": (world / row["file_name"]).stat().st_size} for row in rows]
    mark = observer.fingerprint(sized, settings, seed)
    if path.is_file():
        observer.load(path, mark)
        return mark
    images = np.empty((len(rows), observer.SIDE, observer.SIDE, 3), np.uint8)
    for number, row in enumerate(tqdm(rows, desc="images for the observer", unit="image")):
        images[number] = observer.letterbox(*truth.person_image(world, row))
    names = sorted({row["pid"] for row in rows})
    labels = np.searchsorted(names, [row["pid"] for row in rows])
    elevations = np.array([row["elevation"] for row in rows], np.float32)
    with tqdm(desc="training the observer", unit="step") as bar:

        def report(step: int, losses: dict) -> None:
            bar.total = losses.pop("steps")
            bar.set_postfix({name: f"{value:.2f}" for name, value in losses.items()}, refresh=False)
            bar.update()

        network = observer.train(images, labels, elevations, settings, seed, report)
    observer.save(network, path, mark)
    return mark


def _few(rows: list[dict]) -> list[dict]:
    """At most `MOST` rows of whole people, in their order."""
    from viewsynth.world import truth

    pids = sorted({row["pid"] for row in rows}, key=truth.pid_order)
    keep = set(pids[: max(MOST * len(pids) // max(len(rows), 1), 2)])
    return [row for row in rows if row["pid"] in keep]


def _report(config: Config, parts: list[dict], moments, earlier: list[dict]) -> None:
    from viewsynth.evaluate.fidelity import sets, table, text

    rows = [row for part in parts for row in part["rows"]]
    rejects = [reject for part in parts for reject in part["rejects"]]
    if not rows:
        why = f"; the first of {len(rejects)} rejects: {rejects[0]}" if rejects else ""
        raise ValueError(
            f"no person of {config.world} could be reconstructed{why}; take more --people or "
            "another world"
        )
    table.identify(rows)
    table.identify(rows, "reid")
    found, differences = table.summary(rows), table.gains_over_baselines(rows)
    repaired = table.gains_of_repair(rows)
    alike = sets.compare(rows, [row for part in parts for row in part["ground"]])
    made = {row["pid"] for row in rows}
    fallen = {row["pid"] for row in rows if row["fallback"]}
    notes = [
        f"{len(made)} test people of {config.world.name} (skip {config.skip}), "
        f"{len({row['view'] for row in rows})} drone views; {len(rejects)} instants rejected by "
        f"the judge, as generate would; {len(fallen)} people with a fallback pose."
    ]
    notes += _engine(config)
    gains = table.gains_over_run(rows, earlier)
    page = text.markdown(found, differences, notes, repaired, alike, gains)
    for row in rows:
        del row["embedding"]
        row.pop("features", None)
    output = config.output
    write(output / "fidelity.jsonl", to_jsonl(rows))
    write(output / "rejects.jsonl", to_jsonl(rejects))
    tables = {
        "notes": notes,
        "summary": found,
        "against": differences,
        "repaired": repaired,
        "sets": alike,
        "earlier": gains,
    }
    write(output / "table.json", json.dumps(tables, indent=1).encode())
    write(output / "table.md", page.encode())
    tiles = SHEET if config.refine.engine == "none" else REPAIRED
    write(output / "sheet.png", _sheet(output, moments, made, tiles))
    sys.stdout.write(page)
    sys.stderr.write(f"wrote {output / 'table.md'}, table.json, fidelity.jsonl and sheet.png\n")


def _engine(config: Config) -> list[str]:
    """Notes on the engine and the ReID model."""
    notes = []
    if config.refine.engine != "none":
        how = ", ".join(
            f"{key} {value}" for key, value in to_dict(config.refine).items() if key != "engine"
        )
        notes += [
            "",
            f"Diffusion {Path(config.refine.engine).name}: {how}. The outline of what it made is "
            "looked for in its own image, from that of the rendering (source_only: from an "
            "ellipse); `IoU possible` is what the same search finds in the true image, `IoU "
            "grown` the rendering's outline evenly grown to the area of the repaired one's: a gain "
            "in IoU counts where it is above that.",
        ]
    if config.reid is not None:
        folder = config.reid.resolve()
        notes += ["", f"ReID model {folder.parent.name}/{folder.name} sees whole images."]
    return notes


def _sheet(output: Path, moments, made: set[str], names) -> bytes:
    """Draw the sheet: ground crops, then the true image and the methods for every drone view."""
    from viewsynth.evaluate.fidelity import comparison
    from viewsynth.report import sheet

    shown = []
    for moment in moments:
        folder = comparison.shown_folder(output, moment.pid, moment.name)
        if moment.pid in made and folder.is_dir():
            shown.append((f"{moment.pid}   instant {moment.name}", list(_tiles(folder, names))))
    return sheet.draw(shown)


def _tiles(folder: Path, names) -> Iterator:
    from PIL import Image

    from viewsynth.report import sheet

    def opened(path: Path) -> Image.Image:
        with Image.open(path) as file:
            return file.convert("RGB")

    for path in sorted(folder.glob("ground_*.png")):
        yield sheet.Tile("source", opened(path))
    for photo in sorted(folder.glob("*_photo.png")):
        number = photo.name.split("_")[0]
        for name, label in names:
            image = opened(folder / f"{number}_{name}.png")
            size = (max(round(image.width * sheet.HEIGHT / image.height), 1), sheet.HEIGHT)
            yield sheet.Tile(label, image.resize(size, Image.Resampling.LANCZOS))
