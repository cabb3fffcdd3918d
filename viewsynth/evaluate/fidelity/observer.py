# SPDX-License-Identifier: Apache-2.0
"""The observer: a small network that tells who is in a picture and how high the camera stood.

It is the judge of identity and elevation in `viewsynth.evaluate.fidelity`: trained from scratch on the
training people of a world, never on those who are measured, and on true pictures only. It sees a
person alone on grey (`letterbox`), so no background can help it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.records import seed_of
from viewsynth.runtime.files import write

REVISION = 1  # goes into the fingerprint; raise it when the same pictures would train another one
SIDE, GREY = 96, 128  # pixels of the input; what lies around the person
MARGIN = 0.04  # of the person's longer side, around it
WIDTHS, EMBEDDING = (32, 64, 128, 192), 192
CHUNK = 64  # pictures in one pass when nothing is learnt
ELEVATION_SCALE = 90.0  # degrees


@dataclass(frozen=True)
class Settings:
    """How an observer is trained."""

    epochs: int = 12
    least: int = 800
    """Steps at least, for small worlds."""
    people: int = 16
    """People in a batch."""
    pictures: int = 4
    """Pictures of each of them."""
    rate: float = 2e-3
    decay: float = 0.02
    smoothing: float = 0.1
    """Of the identity labels."""
    triplet: float = 0.5
    """Weight of the triplet loss beside cross-entropy."""
    elevation: float = 3.0
    """Weight of the elevation's loss."""
    threads: int = 1
    """Sums depend on it, so it is part of the fingerprint."""


def letterbox(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The observer's input: the person on grey, scaled into a square by the longer side.

    Args:
        image: RGB.  uint8 [H, W, 3]
        mask: The person.  bool [H, W]
    Returns: uint8 [SIDE, SIDE, 3]; plain grey where the mask is empty.
    """
    square = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return square
    alone = Image.fromarray(np.where(mask[..., None], image, np.uint8(GREY)))
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    factor = SIDE / (max(right - left, bottom - top) * (1 + 2 * MARGIN))
    size = [max(round(float(side) * factor), 1) for side in (right - left, bottom - top)]
    cut = alone.crop((int(left), int(top), int(right), int(bottom)))
    small = cut.resize(size, Image.Resampling.BILINEAR)
    x, y = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    square[y : y + size[1], x : x + size[0]] = np.asarray(small)
    return square


class _Block(nn.Module):
    """Two convolutions; the second is around a short cut."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first = _convolution(before, after, 3, stride)
        self.second = _convolution(after, after, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        return functional.relu(x + self.second(x))


def _convolution(before: int, after: int, size: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)
    )


class Network(nn.Module):
    """Convolutions, then an embedding of the identity and the camera's elevation."""

    def __init__(self):
        super().__init__()
        a, b, c, d = WIDTHS
        self.stem = _convolution(3, a, 5, 4)
        self.blocks = nn.Sequential(_Block(a, b, 2), _Block(b, c, 2), _Block(c, d, 1))
        self.neck = nn.BatchNorm1d(EMBEDDING)
        self.elevation = nn.Linear(d, 1)
        nn.init.constant_(self.elevation.bias, 0.4)  # a middling camera

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, E], embedding after the neck [N, E], elevation in degrees [N].

        Args:
            pictures: uint8 [N, SIDE, SIDE, 3].
        """
        return self.judge(_normal(pictures))

    def judge(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, of float [N, 3, SIDE, SIDE] that `_normal` made."""
        x = self.blocks(functional.relu(self.stem(x)))
        pooled = x.amax((2, 3)) + x.mean((2, 3))
        neck = self.neck(pooled)
        return pooled, neck, ELEVATION_SCALE * self.elevation(neck)[:, 0]


def _normal(pictures: Tensor) -> Tensor:
    channels_last = torch.channels_last  # a fifth faster on a CPU
    return ((pictures.permute(0, 3, 1, 2).float() - GREY) / 64).contiguous(
        memory_format=channels_last
    )


@torch.no_grad()
def look(network: Network, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Identity and elevation of pictures.

    Args:
        pictures: From `letterbox`.  uint8 [N, SIDE, SIDE, 3]
    Returns: unit vectors float32 [N, E], whose products are cosine similarities, and elevations in
        degrees float32 [N].
    """
    found = [
        network(torch.from_numpy(pictures[k : k + CHUNK])) for k in range(0, len(pictures), CHUNK)
    ]
    embedding = torch.cat([functional.normalize(neck, dim=1) for _, neck, _ in found])
    return embedding.numpy(), torch.cat([degrees for *_, degrees in found]).numpy()


def train(
    pictures: np.ndarray,
    people: np.ndarray,
    elevation: np.ndarray,
    settings: Settings,
    seed: int,
    tell: Callable[[int, dict], None] = lambda step, losses: None,
) -> Network:
    """Train an observer.

    Source: cross-entropy with a batch-normalised neck and batch-hard triplets, after Luo et al.
        (Bag of Tricks, CVPR Workshops 2019) and Hermans et al. (arXiv 1703.07737, 2017).

    Args:
        pictures: From `letterbox`.  uint8 [N, SIDE, SIDE, 3]
        people: Who each shows, 0, 1, ...  int64 [N]
        elevation: Of each camera, degrees.  float [N]
        tell: Called after every step with its number and the losses.
    Returns: The network, in evaluation mode. The same for the same arguments and threads.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    rng = np.random.default_rng(seed_of(seed, "observer"))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "observer weights"))
            network = Network().to(memory_format=torch.channels_last)
            classifier = nn.Linear(EMBEDDING, int(people.max()) + 1, bias=False)
        _learn(network, classifier, pictures, people, elevation, settings, rng, tell)
    finally:
        torch.set_num_threads(before)
    return network.eval()


def _learn(network, classifier, pictures, people, elevation, settings: Settings, rng, tell):
    parameters = [*network.parameters(), *classifier.parameters()]
    size = settings.people * settings.pictures
    steps = max(settings.epochs * len(people) // size, settings.least)
    optimiser = torch.optim.AdamW(parameters, settings.rate, weight_decay=settings.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=steps + 1, pct_start=0.15
    )
    order = batches(people, settings.people, settings.pictures, rng)
    network.train()
    for step in range(steps):
        rows = next(order)
        who = torch.from_numpy(people[rows])
        height = torch.from_numpy(elevation[rows]).float()
        features, neck, degrees = network.judge(
            _varied(_normal(torch.from_numpy(pictures[rows])), rng)
        )
        losses = {
            "identity": functional.cross_entropy(
                classifier(neck), who, label_smoothing=settings.smoothing
            ),
            "triplet": settings.triplet * _hardest(features, who),
            "elevation": settings.elevation
            * functional.smooth_l1_loss(
                degrees / ELEVATION_SCALE, height / ELEVATION_SCALE, beta=0.1
            ),
        }
        optimiser.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        schedule.step()
        tell(step, {"steps": steps, **{name: value.item() for name, value in losses.items()}})


def batches(people: np.ndarray, count: int, each: int, rng: np.random.Generator):
    """Endless batches of `each` pictures of `count` people; who has fewer shows some twice.

    Yields: rows.  int64 [count * each]
    """
    rows = [np.flatnonzero(people == person) for person in range(int(people.max()) + 1)]
    rows = [one for one in rows if len(one)]
    left: list[np.ndarray] = []
    while True:
        batch = []
        while len(batch) < min(count, len(rows)):
            if not left:
                left = [rows[k] for k in rng.permutation(len(rows))]
            one = left.pop()
            batch.append(rng.choice(one, each, replace=len(one) < each))
        yield np.concatenate(batch)


def _varied(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Flipped, moved, scaled, in another light, partly covered: what differs between cameras."""
    count = len(x)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, *shape)).astype(np.float32))

    flip = torch.where(draw(0, 1) < 0.5, -1.0, 1.0)
    scale = draw(0.9, 1.15)
    zero = torch.zeros(count)
    rows = [
        torch.stack([scale * flip, zero, draw(-0.06, 0.06)], 1),
        torch.stack([zero, scale, draw(-0.06, 0.06)], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    x = functional.grid_sample(x, grid, align_corners=False)
    person = (x.abs().amax(1, keepdim=True) > 0.02).float()
    gain = draw(0.8, 1.25)[:, None] * draw(0.94, 1.06, 3)
    x = ((x + GREY / 64) * gain[:, :, None, None] - GREY / 64) * person
    at = torch.arange(SIDE) / SIDE
    top, left, tall, wide = draw(0, 1), draw(0, 1), draw(0.08, 0.3), draw(0.08, 0.3)
    inside = [
        ((at - edge[:, None]) / side[:, None] - 0.5).abs() < 0.5
        for edge, side in ((top, tall), (left, wide))
    ]
    hole = inside[0][:, :, None] & inside[1][:, None] & (draw(0, 1) < 0.4)[:, None, None]
    return x * ~hole[:, None]


def _hardest(features: Tensor, who: Tensor) -> Tensor:
    """Batch-hard triplet loss with a soft margin."""
    distance = torch.cdist(functional.normalize(features), functional.normalize(features))
    same = who[:, None] == who[None]
    far = distance.masked_fill(~same, -1).amax(1)
    near = distance.masked_fill(same, 9).amin(1)
    return functional.softplus(8 * (far - near)).mean()


# ---- files ---------------------------------------------------------------------------------------


def fingerprint(rows: list[dict], settings: Settings, seed: int) -> str:
    """Hash of everything that makes an observer what it is.

    Args:
        rows: The pictures that it learns from, plain values.
    """
    text = json.dumps([REVISION, SIDE, WIDTHS, asdict(settings), seed, rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(network: Network, path: Path, mark: str) -> None:
    """Write an observer as safetensors, with its fingerprint in the file's metadata."""
    from safetensors.torch import save as to_bytes

    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    write(path, to_bytes(tensors, metadata={"observer": mark}))


def load(path: Path, mark: str | None = None) -> Network:
    """Read an observer that `save` wrote.

    Args:
        mark: The fingerprint that it must have; None = any.
    Raises: ValueError: if the file is no observer, or another one.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {})["observer"]
            state = {key: file.get_tensor(key) for key in file}
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is not an observer of viewsynth: {error}") from error
    if mark is not None and found != mark:
        raise ValueError(
            f"{path} was trained on another world or with other settings ({found[:12]}, expected "
            f"{mark[:12]}); give another --observer file, or delete this one to train it anew"
        )
    network = Network()
    network.load_state_dict(state)
    return network.eval()
