# SPDX-License-Identifier: Apache-2.0
"""Identity pairs: people of any data set, rendered roughly as their drone images show them.

The pose in a drone image is unknown, and often its camera. The person is reconstructed from ground
images and rendered in the relaxed pose, as in `generate`, at the best of several candidate cameras.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from viewsynth import cameras, judge, reconstruct
from viewsynth.data import images
from viewsynth.data.frames import has_frames
from viewsynth.diffusion.pairs.pair import ChunkPairs, Pair, camera, nearest
from viewsynth.reconstruct import posing
from viewsynth.records import Dataset, Person, Sample, seed_of
from viewsynth.render import foreground
from viewsynth.render.meshes import Mesh
from viewsynth.render.options import Sensor
from viewsynth.render.views import Frame, Shot, frame
from viewsynth.runtime.images import resized

PHOTOS, TARGETS = 4, 8  # maximum number of ground and aerial images of a person
AZIMUTHS = tuple(range(0, 360, 30))  # candidates, degrees
ELEVATIONS = (20, 35, 50, 65, 80)  # candidates, degrees, if the data set gives no elevation
SMALL = (64, 32)  # size of the images that are compared, pixels
NEAREST = 4.0  # metres: smaller distances would give crops above the size limit
SHAPE = 0.1  # penalty of an aspect that is off by a factor of 2, in units of `misfit`
WORST = 1.0  # misfit above which a target is rejected


@dataclass(frozen=True)
class Subject:
    """A person in one outfit.

    Args:
        pid: Identity.
        outfit: Outfit, "" = unknown.
        ground: Images to reconstruct from.
        aerial: Target images.
    """

    pid: str
    outfit: str
    ground: tuple[Sample, ...]
    aerial: tuple[Sample, ...]


def plan(dataset: Dataset, people: int | None, skip: int, seed: int) -> list[Subject]:
    """The training people with ground and aerial images of one outfit, in the order of their pids.

    Args:
        dataset: Data set.
        people: Number of people, after the first `skip`; None = all.
        skip: Number of people to leave out first.
        seed: Seed of the choice of images.

    Raises:
        ValueError: If there are fewer people.
    """
    groups: dict[tuple[str, str], tuple[list, list]] = {}
    for sample in dataset.train:
        if sample.source == "real" and not has_frames(sample) and sample.modality == "rgb":
            ground, aerial = groups.setdefault((sample.pid, sample.outfit), ([], []))
            (aerial if sample.view == "aerial" else ground).append(sample)
    both = [(key, views) for key, views in sorted(groups.items()) if views[0] and views[1]]
    pids = list(dict.fromkeys(pid for (pid, _), _ in both))
    wanted = set(pids[skip:] if people is None else pids[skip : skip + people])
    if len(wanted) < (people or 1):
        raise ValueError(
            f"{dataset.name} in {dataset.root} has {len(pids)} training people with ground and "
            f"aerial images of one outfit, {len(wanted)} after the first {skip}; expected "
            f"{people or 1}: ask for fewer people"
        )
    return [
        Subject(pid, outfit, _few(ground, PHOTOS, seed), _few(aerial, TARGETS, seed))
        for (pid, outfit), (ground, aerial) in both
        if pid in wanted
    ]


def _few(samples: list[Sample], most: int, seed: int) -> tuple[Sample, ...]:
    """At most `most` samples, chosen by a hash of their names, in the order of the names."""
    chosen = sorted(samples, key=lambda sample: seed_of(seed, "pairing", sample.name))[:most]
    return tuple(sorted(chosen, key=lambda sample: sample.name))


def make(subjects: list[Subject], size: tuple[int, int], tools) -> ChunkPairs:
    """Make the pairs of a chunk.

    Args:
        subjects: Its people.
        size: Height and width of the model's images, pixels.
        tools: `reconstruct.Tools`.
    """
    chunk = ChunkPairs()
    photos = [_read(subject, subject.ground, chunk) for subject in subjects]
    outcomes = reconstruct.reconstruct(
        [[sample for sample, _ in some] for some in photos],
        [[image for _, image in some] for some in photos],
        tools,
    )
    for subject, some, outcome in zip(subjects, photos, outcomes, strict=True):
        for reject in outcome.rejects:
            chunk.reject(subject.pid, reject.source, reject.reason)
        why = "no photo can be read"
        if some:
            why = judge.rejection_reason(outcome.person, outcome.rejects)
        if why:
            chunk.reject(subject.pid, "", why)
            continue
        first = len(chunk.photos)
        chunk.photos += [image for _, image in some]
        places = {sample.name: first + k for k, (sample, _) in enumerate(some)}
        _add_pairs(chunk, subject, outcome.person, places, size, tools)
    return chunk


def _add_pairs(
    chunk: ChunkPairs,
    subject: Subject,
    person: Person,
    places: dict[str, int],
    size: tuple[int, int],
    tools,
) -> None:
    """Add the pairs of one person.

    Args:
        chunk: Pairs of the chunk, changed in place.
        subject: The person's samples.
        person: The reconstructed person.
        places: Name of a source image -> its index in `chunk.photos`.
        size: Height and width of the model's images, pixels.
        tools: `reconstruct.Tools`.
    """
    used = [source for source in person.sources if source["used"]]
    [mesh] = posing.meshes([person], tools.poser, "relaxed")
    targets = _read(subject, subject.aerial, chunk)
    matches = _match(targets, mesh)
    for (sample, image), (view, error) in zip(targets, matches, strict=True):
        if error > WORST:
            reason = f"no rendered view is similar enough (misfit {error:.2f}, limit {WORST:g})"
            chunk.reject(subject.pid, sample.name, reason)
            continue
        source = used[nearest(view.azimuth, [one["azimuth"] for one in used])]
        angles = source["elevation"], source["azimuth"]
        numbers = camera(view.elevation, view.azimuth, view.distance, image, angles)
        row = {
            "pid": subject.pid,
            "kind": "identity",
            "split": "train",
            "instant": "",
            "elevation": numbers[0],
            "camera": numbers,
            "target": sample.name,
            "photo": source["file"],
            "photos": len(used),
            "outfit": subject.outfit,
            "misfit": round(error, 4),
        }
        window, place = foreground.crop_camera(view, size), places[source["file"]]
        chunk.pairs.append(Pair(mesh, window, place, image, None, row))


def _read(subject: Subject, samples: Sequence[Sample], chunk: ChunkPairs) -> list:
    """The images that can be read: (sample, image) each."""
    found = []
    for sample in samples:
        try:
            found.append((sample, images.read(sample.paths[0], sample.box)))
        except images.ImageError as error:
            chunk.reject(subject.pid, sample.name, str(error), "fault")
    return found


# ---- camera search -----------------------------------------------------------------------------


def _match(targets: list, mesh: Mesh) -> list[tuple[Frame, float]]:
    """The camera from which the rendered person is most similar to each target, and its error."""
    frames, owner = [], []
    for number, (sample, _) in enumerate(targets):
        for view in _candidates(sample, mesh.points):
            frames.append(view)
            owner.append(number)
    if not frames:
        return []
    images = [torch.from_numpy(resized(image, SMALL).copy()) for _, image in targets]
    aspects = [image.shape[1] / image.shape[0] for _, image in targets]
    off = torch.tensor(
        [view.size[1] / view.size[0] / aspects[k] for view, k in zip(frames, owner, strict=True)]
    )
    frames = [_widened(view, aspects[k]) for view, k in zip(frames, owner, strict=True)]
    windows = cameras.join([foreground.crop_camera(view, SMALL) for view in frames])
    first = torch.zeros(len(windows), dtype=torch.int64)
    rendered = foreground.layers([mesh], first, windows)[:, :4]  # RGB times coverage, coverage
    wanted = torch.stack(images)[torch.tensor(owner)].movedim(-1, 1).float() / 255
    error = (misfit(rendered, wanted) + SHAPE * off.log2().abs()).tolist()
    best = []
    for number in range(len(targets)):
        chosen = min((k for k, one in enumerate(owner) if one == number), key=error.__getitem__)
        best.append((frames[chosen], error[chosen]))
    return best


def _widened(view: Frame, aspect: float) -> Frame:
    """Widen a frame to the aspect of a target, so that stretching distorts both persons alike."""
    (height, width), (left, top, right, bottom) = view.size, view.box
    more = max(height * aspect - width, 0) / 2, max(width / aspect - height, 0) / 2
    box = (left - more[0], top - more[1], right + more[0], bottom + more[1])
    return dataclasses.replace(view, box=box)


def _candidates(sample: Sample, points: Tensor) -> list[Frame]:
    """Candidate cameras of an image; values that the data set gives are kept."""
    elevations = ELEVATIONS
    if sample.elevation is not None:
        elevations = (min(max(sample.elevation, 0.0), 90.0),)
    azimuths = AZIMUTHS if sample.azimuth is None else (sample.azimuth,)
    distance = sample.distance and max(sample.distance, NEAREST)
    sensor = Sensor(distance=distance or None)
    room = np.full(4, np.mean(sensor.margin) / 2)
    return [
        frame(points, Shot(0, float(e), float(a), sample.name), sensor, room)
        for e in elevations
        for a in azimuths
    ]


def misfit(rendered: Tensor, wanted: Tensor) -> Tensor:
    """Dissimilarity of images over the rendered person, independent of exposure and haze.

    Source: ours. On rendered people of known azimuth, the best candidate was within 45 degrees for
    54 % of the images and turned by 180 degrees for 11 %; with a difference of colours instead,
    44 % and 24 %.

    Args:
        rendered: RGB times coverage, and coverage.  [N, 4, h, w]
        wanted: RGB.  [N, 3, h, w]

    Returns:
        1 minus the correlation of the colours over the person's pixels, with the mean of each
        channel removed: 0 = equal, 1 = uncorrelated, 2 = inverted.  [N]
    """
    share = rendered[:, 3:]
    weight = share / share.sum((2, 3), keepdim=True).clamp_min(1e-6)
    ours, theirs = rendered[:, :3] / share.clamp_min(1e-3), wanted
    ours = ours - (ours * weight).sum((2, 3), keepdim=True)
    theirs = theirs - (theirs * weight).sum((2, 3), keepdim=True)
    both, one, other = (
        (a * b * weight).sum((1, 2, 3)) for a, b in ((ours, theirs), (ours, ours), (theirs, theirs))
    )
    return 1 - both / (one * other).sqrt().clamp_min(1e-6)
