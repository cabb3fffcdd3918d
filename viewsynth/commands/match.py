# SPDX-License-Identifier: Apache-2.0
"""Match the virtual camera to unlabelled images of a user's own drone.

viewsynth match AERIAL --output drone.yaml
accelerate launch generate.py drone.yaml --data.root photos

AERIAL is a folder of aerial person crops, 50 are enough; or of frames with a metadata.csv that has
a column `box`; or a data set of --data.name, of which the aerial training images are used. The
preset has the ranges that each virtual camera draws its values from. Beside it are `drone_grounds`,
textures of the ground, and `drone_report.png`: filmed and made images, and histograms.

Images of other people, whom the world renders, stand for what the drone would film.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from viewsynth.config import check_range, dump
from viewsynth.data import Reading
from viewsynth.render.options import CHIP, LENS, Scene, Sensor
from viewsynth.runtime.files import write

if TYPE_CHECKING:
    from viewsynth.generate import Synthesizer
    from viewsynth.match.crops import Crop
    from viewsynth.match.estimate import Clean, Found
    from viewsynth.records import Person

ELEVATIONS = (25.0, 65.0)  # degrees: of the made images, where those of the filmed are unknown
VIEWS = 6  # of each person
OVERSIZE = 93  # JPEG quality from which a file's own table hides the camera's compression


@dataclass(frozen=True)
class Images(Reading):
    """How to read AERIAL."""

    name: str = "folder"
    """Layout of the data set: the name of a module of viewsynth.data."""


@dataclass(frozen=True)
class Config:
    """Aerial crops in, a preset of `generate` with their look out."""

    aerial: tyro.conf.Positional[Path]
    """Folder of aerial crops."""
    data: Images = field(default_factory=Images)
    output: Path = Path("drone.yaml")
    """The preset."""
    cameras: bool = False
    """One preset per camera (or sub-folder): drone-<camera>.yaml."""
    images: int = 200
    """Largest number of images that are looked at, per camera."""
    grounds: int = 24
    """Largest number of textures of the ground; 0 = drawn pavings."""
    people: int = 16
    """Number of rendered people that stand for the filmed ones."""
    seed: int = 0
    """Seed of all random draws."""

    def __post_init__(self):
        check_range("images", self.images, 1, 100_000)
        check_range("grounds", self.grounds, 0, 200)
        check_range("people", self.people, 4, 200)
        check_range("seed", self.seed, 0, 2**63 - 1)
        if self.output.suffix not in (".yaml", ".yml"):
            raise ValueError(f"output must end in .yaml, got {self.output}")


@dataclass(frozen=True)
class Preset:
    """What is written: groups of the options of `generate`."""

    sensor: Sensor
    scene: Scene


def run(config: Config) -> int:
    """Estimate and write one preset per camera; returns 0."""
    from viewsynth.match import crops
    from viewsynth.reconstruct.tflite import Model
    from viewsynth.runtime import weights

    found = crops.samples(config.data.name, config.aerial, config.data)
    groups = crops.by_camera(found, config.aerial) if config.cameras else {"": found}
    model = Model(weights.pose_model(None))
    filmed = {}
    for name, group in groups.items():
        some = crops.choose(group, config.images, config.seed)
        filmed[name] = _read(some, model, name)
    people, synthesizer = _people(config)
    for name, some in filmed.items():
        output = config.output
        if name:
            output = output.with_name(f"{output.stem}-{name}{output.suffix}")
        _match(config, some, (people, synthesizer), output)
    return 0


def _read(samples: Sequence, model, camera: str) -> list[Crop]:
    """The usable crops of one camera; says what is wrong with them."""
    from tqdm import tqdm

    from viewsynth.data import images
    from viewsynth.match import crops

    usable, problems = [], {}
    for sample in tqdm(samples, unit="image", desc=camera or None):
        try:
            usable.append(crops.read(sample, model))
        except images.ImageError as error:
            problems.setdefault(str(error), []).append(sample.name)
    where = f"{camera}: " * bool(camera)
    for why, names in problems.items():
        _say(f"{where}{len(names)} of {len(samples)} images left out, e.g. {names[0]}: {why}")
    if not usable:
        raise ValueError(f"{where}none of {len(samples)} images can be used: {'; '.join(problems)}")
    for remark in crops.remarks(usable):
        _say(f"{where}warning: {remark}")
    return usable


def _people(config: Config) -> tuple[list[Person], Synthesizer]:
    """Rendered people, reconstructed from their ground images as `generate` does."""
    from viewsynth.generate.synthesizer import Synthesizer
    from viewsynth.world import shots

    _say(f"reconstructing {config.people} rendered people")
    synthesizer = Synthesizer(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        root = shots.write_folder(folder, config.people, config.seed)
        pids = sorted(path.name for path in root.iterdir() if path.is_dir())
        files = [sorted((root / pid).glob("*.jpg")) for pid in pids]
        people = synthesizer.reconstruct(files, pid=pids)
    return [one for one in people if one is not None], synthesizer


def _match(config: Config, filmed: list[Crop], kit: tuple, output: Path) -> None:
    """Estimate one camera and write its preset, grounds and report."""
    from viewsynth.match import crops, estimate, grounds, preset

    start, fixed = preset.start(filmed, OVERSIZE)
    # Views at the size of the filmed crops.
    views = _clean(config, kit, start, Scene(), filmed, 1)
    start = preset.rescaled(start, filmed, [one.mask for one in views])
    colour = [one for one in filmed if not crops.is_grey(one)]
    figures = [one.figures for one in colour or filmed]
    views = _clean(config, kit, start, Scene(), filmed)
    _say(f"estimating the sensor from {len(filmed)} images")
    found = estimate.estimate(figures, views, start, fixed, config.seed)
    found = estimate.corrected(found, figures, views, config.seed)
    textures = grounds.textures(filmed, found.sensor, config.grounds, config.seed)
    scene = preset.scene(filmed, found.sensor)
    if textures:
        folder = output.with_name(f"{output.stem}_grounds")
        for old in folder.glob("*.png"):
            old.unlink()
        for number, (texture, density) in enumerate(textures):
            write(folder / f"{number:02d}.png", grounds.png(texture, density))
        scene = dataclasses.replace(scene, grounds=folder)
        views = _clean(config, kit, start, scene, filmed)
        found = estimate.corrected(found, figures, views, config.seed)
    elif config.grounds:
        _say("warning: the crops show too little ground for textures; drawn pavings are kept")
    if not colour:
        found = dataclasses.replace(
            found, sensor=dataclasses.replace(found.sensor, saturation=0.0, chroma_noise=0.0)
        )
    comments = preset.comments(filmed, found, len(textures))
    write(output, (comments + dump(Preset(found.sensor, scene))).encode())
    _report(config, filmed, found, views, [texture for texture, _ in textures], output)


def _clean(
    config: Config, kit: tuple, sensor: Sensor, scene: Scene, filmed: list[Crop], count: int = VIEWS
) -> list[Clean]:
    """Views of the people before the sensor, at the elevations of the filmed crops."""
    import numpy as np
    import torch

    from viewsynth.match.estimate import Clean
    from viewsynth.records import seed_of

    people, synthesizer = kit
    known = sorted(one.elevation for one in filmed if one.elevation is not None)
    sensor, made = dataclasses.replace(sensor, **LENS, **CHIP), []
    for person in people:
        rng = np.random.default_rng(seed_of(config.seed, "match", person.pid))
        drawn = rng.choice(known, VIEWS) if known else rng.uniform(*ELEVATIONS, VIEWS)
        elevations = np.clip(drawn, 0, 90).round(1)[:count]
        azimuths = rng.uniform(0, 360, VIEWS).round(1)[:count]
        options = {"sensor": sensor, "seed": config.seed, "scene": scene}
        for view in synthesizer.render(person, elevations, azimuths, **options):
            image = torch.from_numpy(np.array(view.image)).permute(2, 0, 1).float() / 255
            made.append(Clean(image, np.array(view.mask, np.float64), person.pid))
    return made


def _report(
    config: Config,
    filmed: list[Crop],
    found: Found,
    views: list[Clean],
    textures: list,
    output: Path,
) -> None:
    """Write the sheet, and print the figures that the eye compares first."""
    import numpy as np

    from viewsynth.match import measures, report
    from viewsynth.records import seed_of
    from viewsynth.render.sensor import expose

    made = [
        expose(one.image, found.sensor, seed_of(config.seed, "report", number))
        for number, one in enumerate(views)
    ]
    own = [measures.measure(i, one.mask) for i, one in zip(made, views, strict=True)]
    both = [one.figures for one in filmed], own
    path = output.with_name(f"{output.stem}_report.png")
    write(path, report.draw([one.image for one in filmed], made, textures, both))
    sys.stdout.write("| | filmed | made |\n|---|---|---|\n")
    for key in measures.LOOK:
        medians = [np.median([row[f"look.{key}"] for row in rows]) for rows in both]
        sys.stdout.write(f"| {key} | {medians[0]:.1f} | {medians[1]:.1f} |\n")
    _say(f"wrote {output}; look at {path}")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
