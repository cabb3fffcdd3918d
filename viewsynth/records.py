# SPDX-License-Identifier: Apache-2.0
"""Records: the data types that the stages pass to each other.

data -> `Sample` -> reconstruct -> `Person` -> render -> `View` -> judge -> `Verdict` -> manifest.
A `Dataset` holds the samples of a data set and the `Protocol`s that it is evaluated with.

`pid` is a string scoped to its data set (`cargo/2519`); `camid` is a string; `platform` is one of
`PLATFORMS`, `view` of `VIEWS`, `split` of `SPLITS`, `source` of `SOURCES` ("synthetic" images are
generated from other images; the images of a rendered data set are "real").
Stored images are uint8 RGB [H, W, 3]; as tensors they are float RGB [3, H, W] in [0, 1].
The *seen map* says how much of a texel or pixel was observed in a source image: 1 observed, between
0 and 1 inferred from symmetry or the same garment, 0 invented (stored as uint8, 255 = 1).
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
MESH = "mesh"  # body of a person, and modality of a sample, that is a mesh of the user's own


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One person in the recording of one camera: a tracklet of one or more frames.

    Args:
        paths: Image files in the order of time (an image is a tracklet of one frame), or one video
            file.
        pid: Identity, scoped to the data set.
        name: Unique within the data set and stable between runs; seeds and file names depend on it.
        box: Part of the image that holds the person, (left, top, right, bottom) in pixels of the
            upright image; None = the whole image.
        camid: Camera, scoped to the data set.
        platform: One of `PLATFORMS`: what carries the camera.
        view: One of `VIEWS`.
        split: One of `SPLITS`.
        source: One of `SOURCES`.
        modality: Kind of sensor, e.g. "rgb" or "ir"; `MESH`: a file with the person's surface.
        outfit: Clothing label: only crops of one (pid, outfit) show the same clothes.
        session: Recording session.
        elevation: Degrees above the horizon at which the camera sees the person; None = unknown.
        azimuth: Degrees from the person's front towards the person's left; None = unknown.
        altitude: Height of the camera above the ground, metres; None = unknown.
        distance: Distance from the camera to the person, metres; None = unknown.
        frame: Index of a frame of a video file; None = an image, or a whole video.
        attributes: Attribute labels of the person.
        caption: A description of the person.
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
    """A retrieval task: queries, a gallery, and the rule for matches from the same camera.

    Args:
        name: Direction, e.g. "A->G" (aerial queries, ground gallery).
        query: The query samples.
        gallery: The gallery samples, distractors included.
        camera: Field of `Sample` that is taken as the camera: gallery samples of the query's person
            with the same value are removed. "view" where a protocol says so (CARGO's "A<->G");
            "none" = no camera rule, only the query's own image is removed.
    """

    name: str
    query: Sequence[Sample]
    gallery: Sequence[Sample]
    camera: str = "camid"

    def place(self, sample: Sample) -> str:
        """The camera of a sample; samples of a person with equal cameras are no match."""
        if self.camera == "none":
            return "\n".join(map(str, sample.paths))
        return getattr(sample, self.camera)

    @cached_property
    def valid_queries(self) -> int:
        """Number of queries with a match from another camera; metrics are means over these."""
        cameras: dict[str, set[str]] = {sample.pid: set() for sample in self.query}
        for sample in self.gallery:
            if sample.pid in cameras:
                cameras[sample.pid].add(self.place(sample))
        return sum(bool(cameras[sample.pid] - {self.place(sample)}) for sample in self.query)


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published count, to compare with the files on disk.

    Args:
        what: A key of `viewsynth.data.counts`, e.g. "train images", "A->G valid queries".
        count: The number.
        source: The publication.
    """

    what: str
    count: int
    source: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set on disk.

    Args:
        name: A module of `viewsynth.data`.
        root: Folder that the names of the samples are relative to.
        samples: All samples, sorted by (pid, name).
        protocols: The protocols by name.
        rejects: Files that cannot be used, with reasons; kind "skipped" counts files that are not
            images.
        warnings: What a user should know before trusting a result.
        published: Counts from papers and authors.
        fingerprint: Hash of the sorted names and sizes of the images and lists.
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
        """The samples of the split train."""
        return [sample for sample in self.samples if sample.split == "train"]


@dataclass(frozen=True, kw_only=True)
class Reject:
    """An input or a view that is not used, with the reason.

    Args:
        source: The file or sample concerned.
        stage: Where it was rejected: input, find, parse, compare, refine, judge or chunk.
        reason: One sentence that a user can act on.
        kind: "fault" (an error: `--retry-failed` tries again) or "quality".
        pid: The person, if known.
        scores: Measurements behind the decision.
    """

    source: str
    stage: str
    reason: str
    kind: str = "quality"
    pid: str = ""
    scores: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Decision of the judge on a person or a view.

    Args:
        keep: Whether it goes into the data set.
        weight: Training weight in [0, 1].
        reasons: Why it is rejected; empty if it is kept.
        scores: Measurements behind the decision.
    """

    keep: bool
    weight: float
    reasons: tuple[str, ...] = ()
    scores: dict = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """The clothed surface of a person: a closed mesh around the body, textured by the crops.

    Args:
        vertices: Around the body in its canonical pose, or of an own mesh in the world, metres.
            float32 [V, 3]
        faces: Counter-clockwise seen from outside.  uint16 or int32 [F, 3]
        uvs: Texture coordinates in [0, 1], v up.  float32 [U, 2]
        face_uvs: Indices into `uvs`.  uint16 or int32 [F, 3]
        texture: Colours: the atlas of the body, then one chart per crop.  uint8 [H, W, 3]
        seen: Seen map of the texture, 255 = observed.  uint8 [H, W]
    """

    vertices: np.ndarray
    faces: np.ndarray
    uvs: np.ndarray
    face_uvs: np.ndarray
    texture: np.ndarray
    seen: np.ndarray


@dataclass(kw_only=True)
class Person:
    """A reconstructed person: everything that new views, an export or repair need.

    Args:
        pid: Identity.
        body: Name of the body model, a module of `viewsynth.bodies`; or `MESH`: there is none, the
            surface is drawn as it is, and shape, pose, offsets and atlas are empty.
        shape: Shape coefficients of that body.  float32 [S]
        pose: Fitted pose, rotation vectors (radians) in the body's own bone order.  float32 [P, 3]
        offsets: Clothing and hair thickness along the vertex normals, metres.  float32 [V]
        scale: Size relative to the body model's own metres, > 0.
        texture: Colour atlas.  uint8 [T, T, 3]
        seen: Seen map of the atlas, 255 = observed.  uint8 [T, T]
        quality: Fit quality: landmark error, silhouette, spread, vote, aspect and derived flags.
        fallback: "" (clothed surface in the fitted pose), "body" (no clothed surface), "walk" (nor
            the fitted pose, but a walking one) or "mean" (nor the fitted shape).
        surface: The clothed surface; None = the body itself is drawn.
        sources: One dict per source image: file, sha256, camid, elevation, azimuth, quality; and
            of an own mesh: file, sha256, mesh (what was found and done).
        fingerprint: Hash of the sources and of all settings that affect this person.
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
    surface: Surface | None = None

    ARRAYS = ("shape", "pose", "offsets", "texture", "seen")

    def to_bytes(self) -> bytes:
        """The person as one safetensors file; equal persons give equal bytes."""
        from safetensors.numpy import save

        fields = {k: v for k, v in self.__dict__.items() if k not in (*self.ARRAYS, "surface")}
        arrays = {k: np.ascontiguousarray(getattr(self, k)) for k in self.ARRAYS}
        if self.surface:
            own = vars(self.surface).items()
            arrays |= {f"surface.{k}": np.ascontiguousarray(v) for k, v in own}
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

        Returns:
            The person.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not a person of this project.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                fields = json.loads((file.metadata() or {})["person"])
                arrays = {key: file.get_tensor(key) for key in cls.ARRAYS}
                own = [key for key in file.keys() if key.startswith("surface.")]  # noqa: SIM118
                if own:
                    parts = {key.removeprefix("surface."): file.get_tensor(key) for key in own}
                    arrays["surface"] = Surface(**parts)
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a person file of viewsynth: {error}") from error
        return cls(**fields, **arrays)


@dataclass(kw_only=True)
class View:
    """One rendered image of a person from one camera.

    Args:
        pid: Identity.
        image: RGB.  uint8 [H, W, 3]
        seen: Seen map, 255 = observed; 0 off the person.  uint8 [H, W]
        mask: Pixels of the person.  bool [H, W]
        elevation: Degrees above the horizon, about the target (see `viewsynth.cameras`).
        azimuth: Degrees from the person's front, about the target.
        distance: Metres from the target.
        target_height: Height of the target above the ground, metres.
        vfov: Vertical field of view of the whole camera image, degrees.
        box: The crop in the camera image, (left, top, right, bottom), pixels.
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
    """The seed of one random draw: a hash of the run's seed and of what is sampled.

    It must not depend on a process, an order or the time.

    Args:
        run_seed: Seed of the run.
        *names: What is sampled, e.g. a person and a view.

    Returns:
        An integer in [0, 2**63).
    """
    text = json.dumps([run_seed, *names], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def to_dict(record) -> dict:
    """A record as JSON types: paths as POSIX strings, tuples as lists."""
    return json.loads(
        json.dumps(
            asdict(record), default=lambda p: p.as_posix() if isinstance(p, Path) else p.item()
        )
    )
