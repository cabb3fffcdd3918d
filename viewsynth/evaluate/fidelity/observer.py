# SPDX-License-Identifier: Apache-2.0
"""The observer: a small network that predicts the identity and elevation of a view.

`viewsynth.evaluate.fidelity` measures predicted views with it. It is trained from scratch on true
images of the training people of a world, never on the people who are measured. Its input shows the
person alone on grey (`letterbox`), so that the background has no influence.
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

REVISION = 1  # part of the fingerprint; increase it when the training changes
SIDE, GREY = 96, 128  # side of the input, pixels; value of the background
MARGIN = 0.04  # around the person, share of its longer side
WIDTHS, EMBEDDING = (32, 64, 128, 192), 192
CHUNK = 64  # images per forward pass in inference
ELEVATION_SCALE = 90.0  # degrees


@dataclass(frozen=True)
class Settings:
    """Training settings of an observer."""

    epochs: int = 12
    least: int = 800
    """Minimum number of steps, for small worlds."""
    people: int = 16
    """People per batch."""
    pictures: int = 4
    """Images per person in a batch."""
    rate: float = 2e-3
    """Learning rate."""
    decay: float = 0.02
    """Weight decay."""
    smoothing: float = 0.1
    """Label smoothing of the identity loss."""
    triplet: float = 0.5
    """Weight of the triplet loss; the identity loss has weight 1."""
    elevation: float = 3.0
    """Weight of the elevation loss."""
    threads: int = 1
    """Threads of torch, which affect the order of sums and therefore the fingerprint."""


def letterbox(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Input of the observer: the person on grey, scaled to fit a square.

    Args:
        image: RGB.  uint8 [H, W, 3]
        mask: Mask of the person.  bool [H, W]

    Returns:
        uint8 [SIDE, SIDE, 3]; uniform grey for an empty mask.
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
    """Two convolutions, the second with a residual connection."""

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
    """Convolutional network that predicts an identity embedding and the elevation."""

    def __init__(self):
        super().__init__()
        a, b, c, d = WIDTHS
        self.stem = _convolution(3, a, 5, 4)
        self.blocks = nn.Sequential(_Block(a, b, 2), _Block(b, c, 2), _Block(c, d, 1))
        self.neck = nn.BatchNorm1d(EMBEDDING)
        self.elevation = nn.Linear(d, 1)
        nn.init.constant_(self.elevation.bias, 0.4)  # 36 degrees

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict identity and elevation.

        Args:
            images: Images from `letterbox`.  uint8 [N, SIDE, SIDE, 3]

        Returns:
            Pooled features [N, E], embedding after the neck [N, E], elevation in degrees [N].
        """
        return self.from_normalised(_normalise(images))

    def from_normalised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Same as `forward`, for the output of `_normalise`, float [N, 3, SIDE, SIDE]."""
        x = self.blocks(functional.relu(self.stem(x)))
        pooled = x.amax((2, 3)) + x.mean((2, 3))
        neck = self.neck(pooled)
        return pooled, neck, ELEVATION_SCALE * self.elevation(neck)[:, 0]


def _normalise(images: Tensor) -> Tensor:
    channels_last = torch.channels_last  # 20 % faster on a CPU
    return ((images.permute(0, 3, 1, 2).float() - GREY) / 64).contiguous(
        memory_format=channels_last
    )


@torch.no_grad()
def predict(network: Network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict identity embedding and elevation of images.

    Args:
        network: The observer.
        images: Images from `letterbox`.  uint8 [N, SIDE, SIDE, 3]

    Returns:
        Embeddings of unit norm, float32 [N, E], and elevations in degrees, float32 [N].
    """
    found = [network(torch.from_numpy(images[k : k + CHUNK])) for k in range(0, len(images), CHUNK)]
    embedding = torch.cat([functional.normalize(neck, dim=1) for _, neck, _ in found])
    return embedding.numpy(), torch.cat([degrees for *_, degrees in found]).numpy()


def train(
    images: np.ndarray,
    people: np.ndarray,
    elevation: np.ndarray,
    settings: Settings,
    seed: int,
    report: Callable[[int, dict], None] = lambda step, losses: None,
) -> Network:
    """Train an observer.

    Source: cross-entropy with a batch-normalised neck and batch-hard triplets, after Luo et al.
        (Bag of Tricks, CVPR Workshops 2019) and Hermans et al. (arXiv 1703.07737, 2017).

    Args:
        images: Images from `letterbox`.  uint8 [N, SIDE, SIDE, 3]
        people: Number of the person in each image, from 0.  int64 [N]
        elevation: Elevation of each camera, degrees.  float [N]
        settings: Training settings.
        seed: Seed of weights, batches and augmentation.
        report: Called after every step with its number and the losses.

    Returns:
        The network in evaluation mode; equal arguments and threads give equal weights.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    rng = np.random.default_rng(seed_of(seed, "observer"))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(seed, "observer weights"))
            network = Network().to(memory_format=torch.channels_last)
            classifier = nn.Linear(EMBEDDING, int(people.max()) + 1, bias=False)
        _optimise(network, classifier, images, people, elevation, settings, rng, report)
    finally:
        torch.set_num_threads(before)
    return network.eval()


def _optimise(network, classifier, images, people, elevation, settings: Settings, rng, report):
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
        labels = torch.from_numpy(people[rows])
        height = torch.from_numpy(elevation[rows]).float()
        augmented = _augment(_normalise(torch.from_numpy(images[rows])), rng)
        features, neck, degrees = network.from_normalised(augmented)
        losses = {
            "identity": functional.cross_entropy(
                classifier(neck), labels, label_smoothing=settings.smoothing
            ),
            "triplet": settings.triplet * _triplet_loss(features, labels),
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
        report(step, {"steps": steps, **{name: value.item() for name, value in losses.items()}})


def batches(people: np.ndarray, count: int, each: int, rng: np.random.Generator):
    """Endless batches of `each` images of `count` people, repeating images of people with fewer.

    Args:
        people: Number of the person in each image, from 0.  int64 [N]
        count: People per batch.
        each: Images per person.
        rng: Generator of the random choice.

    Yields:
        Row numbers.  int64 [count * each]
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


def _augment(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Random flip, shift, scale, colour gain and erasing."""
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


def _triplet_loss(features: Tensor, labels: Tensor) -> Tensor:
    """Batch-hard triplet loss with a soft margin."""
    distance = torch.cdist(functional.normalize(features), functional.normalize(features))
    same = labels[:, None] == labels[None]
    far = distance.masked_fill(~same, -1).amax(1)
    near = distance.masked_fill(same, 9).amin(1)
    return functional.softplus(8 * (far - near)).mean()


# ---- files ---------------------------------------------------------------------------------------


def fingerprint(rows: list[dict], settings: Settings, seed: int) -> str:
    """Hash of everything that determines the weights of an observer.

    Args:
        rows: Description of the training images, as JSON types.
        settings: Training settings.
        seed: Seed of the training.
    """
    text = json.dumps([REVISION, SIDE, WIDTHS, asdict(settings), seed, rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def save(network: Network, path: Path, mark: str) -> None:
    """Write an observer as safetensors.

    Args:
        network: The observer.
        path: Destination.
        mark: Fingerprint, stored in the metadata.
    """
    from safetensors.torch import save as to_bytes

    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    write(path, to_bytes(tensors, metadata={"observer": mark}))


def load(path: Path, mark: str | None = None) -> Network:
    """Load an observer that was written by `save`.

    Args:
        path: File of the observer.
        mark: Expected fingerprint; None = any.

    Raises:
        ValueError: If the file is not an observer or has another fingerprint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            found = (file.metadata() or {})["observer"]
            names = list(file.keys())  # `safe_open` itself is not iterable
            state = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, KeyError) as error:
        raise ValueError(
            f"{path} is not an observer of viewsynth ({error}); give another --observer file"
        ) from error
    if mark is not None and found != mark:
        raise ValueError(
            f"{path} was trained on another world or with other settings (fingerprint "
            f"{found[:12]}, expected {mark[:12]}); give another --observer file, or delete this "
            "one to train a new observer"
        )
    network = Network()
    network.load_state_dict(state)
    return network.eval()
