# SPDX-License-Identifier: Apache-2.0
"""The nouns that the stages hand to each other.

data -> `Sample` -> reconstruct -> `Person` -> render -> `View` -> judge -> `Verdict` -> manifest.
A `Dataset` holds the samples of one data set and the `Protocol`s that it is evaluated by.

Names, once and for all: `pid` is a string scoped to its data set (`cargo/2519`); `camid` a string;
`platform` is one of `PLATFORMS`, `view` of `VIEWS`, `split` of `SPLITS`, `source` of `SOURCES`
("synthetic" is what was made from another picture; a rendered data set's own pictures are "real").
Images at rest are uint8 RGB [H, W, 3]; as tensors they are float RGB [3, H, W] in [0, 1].
A *seen* value says how much of a texel or pixel was really observed: 1 seen, between 0 and 1
mirrored or inferred, 0 invented (stored as uint8, 255 = 1).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

PLATFORMS = ("drone", "cctv", "wearable", "handheld", "unknown")
VIEWS = ("aerial", "ground")
SPLITS = ("train", "query", "gallery")
SOURCES = ("real", "synthetic")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What one camera recorded of one person at one time: a tracklet of one or more frames.

    Args:
        paths: The picture files, in the order of time; an image is a tracklet of one frame. Or one
            video file.
        pid: Identity, scoped to the data set.
        box: Part of the picture that holds the person, (left, top, right, bottom) in pixels of the
            upright picture; None = the whole picture.
        name: Unique within the data set and stable between runs; seeds and file names hang on it.
        elevation: Degrees above the horizon at which the camera saw the person, if the data says.
        outfit: Clothing or session label: only crops of one (pid, outfit) show the same clothes.
        altitude: Metres above the ground, if the data says.
        distance: Metres from the camera to the person, if the data says.
        frame: Which frame of a video file it is, from 0; None = a picture, or a whole video.
    """

    paths: tuple[Path, ...]
    pid: str
    name: str
    box: tuple[int, int, int, int] | None = None
    camid: str = "0"
    platform: str = "unknown"
    view: str = "ground"
    split: str = "train"
    source: str = "real"
    modality: str = "rgb"
    outfit: str = ""
    session: str = ""
    elevation: float | None = None
    azimuth: float | None = None
    altitude: float | None = None
    distance: float | None = None
    frame: int | None = None
    attributes: tuple[str, ...] = ()
    caption: str = ""

    def __post_init__(self):
        for key, allowed in (
            ("platform", PLATFORMS),
            ("view", VIEWS),
            ("split", SPLITS),
            ("source", SOURCES),
        ):
            if getattr(self, key) not in allowed:
                raise ValueError(
                    f"Sample.{key} must be one of {', '.join(allowed)}; "
                    f"got {getattr(self, key)!r} for {self.name!r}"
                )


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A retrieval task: who is looked for, among whom, and what counts as the same camera.

    Args:
        name: A direction of the field, e.g. "A->G" (aerial queries, ground gallery).
        query, gallery: The pictures; distractors stand in the gallery.
        camera: The field of `Sample` that plays the camera: gallery pictures of the query's person
            with the same value are removed. "view" where a protocol says so (CARGO's "A<->G");
            "none" = no camera rule, only the query's own picture is removed.
    """

    name: str
    query: Sequence[Sample]
    gallery: Sequence[Sample]
    camera: str = "camid"

    def place(self, sample: Sample) -> str:
        """What plays the camera of a picture: those of a person with the same one never match."""
        if self.camera == "none":
            return "\n".join(map(str, sample.paths))
        return getattr(sample, self.camera)

    @cached_property
    def valid_queries(self) -> int:
        """Queries with a match in the gallery from another camera: only those are averaged."""
        cameras: dict[str, set[str]] = {sample.pid: set() for sample in self.query}
        for sample in self.gallery:
            if sample.pid in cameras:
                cameras[sample.pid].add(self.place(sample))
        return sum(bool(cameras[sample.pid] - {self.place(sample)}) for sample in self.query)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A count that somebody printed, to compare with what is on the disk.

    Args:
        what: A key of `viewsynth.data.counts`, e.g. "train images", "A->G valid queries".
        count: The number.
        source: Who says so.
    """

    what: str
    count: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set as it lies on the disk.

    Args:
        name: A module of `viewsynth.data`.
        root: Folder that the names of the samples are relative to.
        samples: All of them, sorted by (pid, name).
        protocols: By name.
        rejects: What cannot be used, and why; kind "skipped" is a count of what is no picture.
        warnings: What a user should know before he trusts a number.
        published: Counts from papers and authors.
        fingerprint: Hash of the sorted names and sizes of the pictures and lists.
    """

    name: str
    root: Path
    samples: list[Sample]
    protocols: dict[str, Protocol] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    published: tuple[Published, ...] = ()
    fingerprint: str = ""

    @cached_property
    def train(self) -> list[Sample]:
        """The samples that may be learnt from."""
        return [sample for sample in self.samples if sample.split == "train"]


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Something that was not made or not kept, and why.

    Args:
        source: The file or sample concerned.
        stage: Where it ended: input, find, parse, compare, refine, judge, chunk.
        reason: One sentence that a user can act on.
        kind: "fault" (something broke: `--retry-failed` tries it again) or "quality".
        scores: The figures that led to the decision.
    """

    source: str
    stage: str
    reason: str
    kind: str = "quality"
    pid: str = ""
    scores: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge says of a person or a picture.

    Args:
        keep: Whether it goes into the data set.
        weight: Training weight in [0, 1].
        reasons: Why it was rejected or marked down; empty when nothing is wrong.
        scores: The figures behind the decision.
    """

    keep: bool
    weight: float
    reasons: tuple[str, ...] = ()
    scores: dict = field(default_factory=dict)


@dataclass(kw_only=True)
class Person:
    """A reconstructed person: everything that a new camera, an export or a refiner needs.

    Args:
        pid: Identity.
        body: Name of the body model, a module of `viewsynth.bodies`.
        shape: Shape coefficients of that body.  float32 [S]
        pose: Fitted pose, rotation vectors (radians) in the body's own bone order.  float32 [P, 3]
        offsets: Clothing and hair thickness along the vertex normals, metres.  float32 [V]
        scale: Size relative to the body model's own metres, > 0.
        texture: Colour atlas.  uint8 [T, T, 3]
        seen: Seen map of the atlas, 255 = seen.  uint8 [T, T]
        quality: FitQuality: landmark error, silhouette, spread, vote, aspect and what they led to.
        fallback: "" (as fitted), "walk" (walking pose on the fitted shape) or "mean" (mean body).
        sources: One dict per source picture: file, sha256, camid, elevation, azimuth, quality.
        fingerprint: Hash of the sources and of every setting that shaped this person.
    """

    pid: str
    body: str
    shape: np.ndarray
    pose: np.ndarray
    offsets: np.ndarray
    scale: float
    texture: np.ndarray
    seen: np.ndarray
    quality: dict = field(default_factory=dict)
    fallback: str = ""
    sources: list[dict] = field(default_factory=list)
    fingerprint: str = ""

    ARRAYS = ("shape", "pose", "offsets", "texture", "seen")

    def to_bytes(self) -> bytes:
        """The person as one safetensors file, the same bytes for the same person."""
        from safetensors.numpy import save

        fields = {k: v for k, v in self.__dict__.items() if k not in self.ARRAYS}
        arrays = {k: np.ascontiguousarray(getattr(self, k)) for k in self.ARRAYS}
        return save(arrays, metadata={"person": json.dumps(fields, sort_keys=True)})

    def save(self, path: str | Path) -> None:
        """Write the person to a safetensors file, which `load` reads.

        Args:
            path: The file; its folder must exist.
        """
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Person:
        """Read a person that `save` or a run of `generate` wrote.

        Args:
            path: The file, such as `outputs/<run>/people/<pid>.safetensors`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a person of this project.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                fields = json.loads((file.metadata() or {})["person"])
                arrays = {key: file.get_tensor(key) for key in cls.ARRAYS}
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a person file of viewsynth: {error}") from error
        return cls(**fields, **arrays)


@dataclass(kw_only=True)
class View:
    """One picture of one person from one camera, before it is written.

    Args:
        image: RGB.  uint8 [H, W, 3]
        seen: How much of each pixel was really seen, 255 = seen; 0 off the person.  uint8 [H, W]
        mask: Pixels of the person.  bool [H, W]
        elevation, azimuth: Degrees, about the target (see `viewsynth.cameras`).
        distance: Metres from the target.
        target_height: Height of the target above the ground, metres.
        vfov: Vertical field of view of the whole camera picture, degrees.
        box: The crop in the camera's picture, (left, top, right, bottom), pixels.
    """

    pid: str
    image: np.ndarray
    seen: np.ndarray
    mask: np.ndarray
    elevation: float
    azimuth: float
    distance: float
    target_height: float
    vfov: float
    box: tuple[float, float, float, float]


def seed_of(run_seed: int, *names: str | float) -> int:
    """The seed of a random draw: a hash of the run's seed and of what is drawn for.

    Never of a rank, an order or a clock.

    Returns: int in [0, 2**63).
    """
    text = json.dumps([run_seed, *names], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def to_dict(record) -> dict:
    """A record as plain JSON types: paths as POSIX strings, tuples as lists."""
    return json.loads(
        json.dumps(
            asdict(record), default=lambda p: p.as_posix() if isinstance(p, Path) else p.item()
        )
    )
