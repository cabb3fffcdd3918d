# SPDX-License-Identifier: Apache-2.0
"""Find the people in an image that is not a tight crop of one person.

data -> this module -> parse: a box per person. The detector returns the head of each person and a
circle around the whole body, from which an upright box is computed.

Source: MediaPipe's `pose_detection` (BlazePose detector, Bazarevsky et al., CVPRW 2020, arXiv
2006.10204; Apache-2.0) with the anchors, thresholds and key points of its published graph. It was
made for one or two people near the camera; the windows and the merging of their results are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from viewsynth.reconstruct.tflite import Model

SIDE = 224  # input of the detector, pixels
STRIDES = (8, 16, 32, 32, 32)
LEAST, SHORTEST, STEP = 0.0365, 60, 1.5  # share of the long side, pixels, ratio of two windows
WIDTH = 0.56  # half width of a box, in radii; hands of widely stretched arms are cut off
ROOM = (1.1, 1.2)  # above and below the hips, in radii; with less, 1 in 20 loses hair or shoes
# Height : width of a tight crop of one standing person (least, most), and up to which height in
# pixels: a small crop may be wide or cut at the knees, a larger one could be a photo of 4:3.
TIGHT = ((1.1, 4.0, 256), (1.45, 4.0, 640))


@dataclass(frozen=True)
class Found:
    """One detected person, in pixels of the image.

    Args:
        score: Confidence in [0, 1].
        head: left, top, right, bottom of the head.
        hips: Middle of the hips (x, y).
        end: Point (x, y) above the head, on the circle around `hips` that holds the whole body.
        whole: Whether the window in which the person was found holds that circle.
    """

    score: float
    head: tuple[float, float, float, float]
    hips: tuple[float, float]
    end: tuple[float, float]
    whole: bool = True

    @property
    def radius(self) -> float:
        """Radius of the circle around the whole body."""
        return math.dist(self.hips, self.end)

    def box(self) -> tuple[float, float, float, float]:
        """Upright box around the body, with some room, not clipped to the image."""
        dx, dy = self.end[0] - self.hips[0], self.end[1] - self.hips[1]
        x = max(abs(dx), WIDTH * self.radius)
        top, bottom = ROOM[0] * abs(dy), ROOM[1] * abs(dy)
        return self.hips[0] - x, self.hips[1] - top, self.hips[0] + x, self.hips[1] + bottom


def is_tight(image: np.ndarray) -> bool:
    """Whether an image has the shape of a tight crop of one standing person.

    That is: higher than wide, and as small as the crops of ReID data sets. A phone's photo (1.33
    or 1.78 times as high as wide) is larger.

    Args:
        image: uint8 [H, W, 3].
    """
    height, width = image.shape[:2]
    return any(a <= height / width <= b and height <= limit for a, b, limit in TIGHT)


def find(image: np.ndarray, model: Model, score: float = 0.5) -> list[tuple[int, int, int, int]]:
    """Find the whole, upright people in an image of any size.

    People smaller than 60 pixels or 1/27 of the longer side are not searched for, and those of whom
    more than a fifth of the height lies outside the image are left out. Of 60 people pasted into
    eight frames, 57 are found (`benchmarks/inputs.py`).

    Args:
        image: RGB.  uint8 [H, W, 3]
        model: The detector, `pose_detection.tflite`.
        score: Least confidence in (0, 1), in a search window and again in one around the person.

    Returns:
        Boxes (left, top, right, bottom) in pixels, inside the image, the largest first.
    """
    candidates = []
    for window in _windows(*image.shape[:2]):
        candidates += detect(image, model, window, score)
    confirmed = []
    for candidate in _merge(candidates):
        confirmed += _look_again(image, model, candidate, score)
    boxes = [_inside(found.box(), image.shape) for found in _merge(confirmed)]
    boxes = [box for box in boxes if box is not None]
    return sorted(boxes, key=lambda b: ((b[1] - b[3]) * (b[2] - b[0]), b))


def detect(
    image: np.ndarray, model: Model, window: tuple[float, float, float], score: float
) -> list[Found]:
    """Detect the upright people in one square window, with one pass of the detector.

    Args:
        image: RGB.  uint8 [H, W, 3]
        model: The detector.
        window: left, top, side of the square, pixels; black where it exceeds the image.
        score: Least confidence.

    Returns:
        The most confident first; each head once (two heads overlap by less than 0.3).
    """
    left, top, side = window
    outputs = model(_cut(image, window)[None])
    logits = np.clip(outputs["scores"].astype(np.float64), -100, 100)
    scores = 1 / (1 + np.exp(-logits))
    rows = np.flatnonzero(scores >= score)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    # Six points per row: centre and size of the head, then hips, end, shoulders, end of upper body.
    points = outputs["boxes"][rows].astype(np.float64).reshape(-1, 6, 2) / SIDE
    points[:, [0, 2, 3, 4, 5]] += ANCHORS[rows, None]
    points *= side
    points[:, [0, 2, 3, 4, 5]] += (left, top)
    result: list[Found] = []
    for confidence, (centre, size, hips, end, *_) in zip(scores[rows], points, strict=True):
        head = (*(centre - size / 2), *(centre + size / 2))
        radius = math.dist(hips, end)
        if end[1] - hips[1] > -0.7 * radius:  # leans by more than 45 degrees
            continue
        if all(_overlap(head, other.head) < 0.3 for other in result):
            whole = bool((abs(hips - (left + side / 2, top + side / 2)) <= side / 2 - radius).all())
            result.append(Found(float(confidence), head, tuple(hips), tuple(end), whole))
    return result


def _anchors() -> np.ndarray:
    """Centres of the detector's 2254 anchors, in units of the input, [2254, 2].

    Two anchors per cell and layer; layers of the same stride share a grid.
    """
    layers = []
    for stride in sorted(set(STRIDES)):
        count = SIDE // stride
        y, x = np.mgrid[:count, :count]
        grid = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) / count
        layers.append(np.repeat(grid, 2 * STRIDES.count(stride), axis=0))
    return np.concatenate(layers)


ANCHORS = _anchors()


def _windows(height: int, width: int) -> list[tuple[float, float, float]]:
    """Square windows that cover the image for every size of person that is searched for.

    The detector is best at people of about half the window's height: so the first window is larger
    than the image, and the smallest about 2.2 times as high as the smallest person.
    """
    long = max(height, width)
    result, side = [], 1.6 * long
    while side >= 2.2 * max(LEAST * long, SHORTEST):
        across = max(1, math.ceil((width - side / 2) / (side / 2)))
        down = max(1, math.ceil((height - side / 2) / (side / 2)))
        for j in range(down):
            for i in range(across):
                x = (width - side) * (i / (across - 1) if across > 1 else 0.5)
                y = (height - side) * (j / (down - 1) if down > 1 else 0.5)
                result.append((x, y, side))
        side /= STEP
    return result


def _cut(image: np.ndarray, window: tuple[float, float, float]) -> np.ndarray:
    """The window as input of the detector: [-1, 1], black beyond the image, [224, 224, 3]."""
    left, top, side = window
    height, width = image.shape[:2]
    inner = (max(left, 0), max(top, 0), min(left + side, width), min(top + side, height))
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        return np.full((SIDE, SIDE, 3), -1, np.float32)
    corners = [round((v - o) * SIDE / side) for v, o in zip(inner, (left, top) * 2, strict=True)]
    size = (max(corners[2] - corners[0], 1), max(corners[3] - corners[1], 1))
    # Whole pixels for the slice, so that a large image is not copied for every window.
    whole = [math.floor(inner[0]), math.floor(inner[1]), math.ceil(inner[2]), math.ceil(inner[3])]
    part = Image.fromarray(image[whole[1] : whole[3], whole[0] : whole[2]])
    box = tuple(v - o for v, o in zip(inner, whole[:2] * 2, strict=True))
    canvas = Image.new("RGB", (SIDE, SIDE))
    canvas.paste(part.resize(size, Image.Resampling.BILINEAR, box=box), tuple(corners[:2]))
    return np.asarray(canvas, np.float32) / 127.5 - 1


def _look_again(image: np.ndarray, model: Model, found: Found, score: float) -> list[Found]:
    """The same person in a window around them, if found there too."""
    side = 4.4 * found.radius
    window = (found.hips[0] - side / 2, found.hips[1] - side / 2, side)
    again = [f for f in detect(image, model, window, score) if _same(f, found)]
    return again[:1]


def _merge(found: list[Found]) -> list[Found]:
    """Each person once: of several detections a whole one, the most confident."""
    result: list[Found] = []
    for one in sorted(found, key=lambda f: (not f.whole, -f.score, f.hips)):
        if not any(_same(one, other) for other in result):
            result.append(one)
    return result


def _same(a: Found, b: Found) -> bool:
    """Whether two detections are one person: hips nearer than a fifth of a height."""
    return math.dist(a.hips, b.hips) < 0.4 * max(a.radius, b.radius)


def _overlap(a: tuple, b: tuple) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inner = width * height
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


def _inside(box: tuple, shape: tuple) -> tuple[int, int, int, int] | None:
    """The box clipped to the image, in whole pixels; None if too little of it is left."""
    left, top = max(math.floor(box[0]), 0), max(math.floor(box[1]), 0)
    right, bottom = min(math.ceil(box[2]), shape[1]), min(math.ceil(box[3]), shape[0])
    height = bottom - top
    if height < 40 or height < 0.75 * (box[3] - box[1]) or right - left < 0.6 * (box[2] - box[0]):
        return None
    return left, top, right, bottom
