# SPDX-License-Identifier: Apache-2.0
"""Features of a ReID network in OpenVINO's format, and retrieval scores of each person.

`identity.py` calls this module with images; everything but `Network` works on features alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from viewsynth import metrics

DRAWS = 2000  # resamples of a bootstrap
INSTALL = 'pip install -c constraints.txt -e ".[openvino]"'
Cell = tuple[float, float, float]  # value, lower and upper end of its 95 % interval


class InputError(ValueError):
    """An input that cannot be used; the message says what to do."""


class Network:
    """Features of one or several ReID networks, concatenated.

    Images are resized to the input of each network and given as BGR in [0, 255]; the features of an
    image and of its mirror image are added. Each network counts the same.

    Args:
        files: IR files (.xml, each with its .bin next to it).
        threads: Of each network; the last bits of features may depend on it.

    Raises:
        InputError: If openvino is not installed, a file cannot be read, or a network has another
            input than one image, or several outputs.
    """

    def __init__(self, files: Sequence[Path], threads: int = 1):
        try:
            import openvino
        except ImportError as error:
            raise InputError(f"openvino is not installed; install it: {INSTALL}") from error
        core = openvino.Core()
        self._networks = []
        for file in files:
            if not file.is_file():
                raise InputError(f"--network {file}: there is no such file; give the .xml of an IR")
            try:
                model = core.read_model(file)
            except RuntimeError as error:
                why = str(error).strip().splitlines()[-1]
                raise InputError(
                    f"--network {file} cannot be read ({why}); give the .xml of an OpenVINO IR "
                    "with its .bin next to it"
                ) from error
            size = _input_size(file, model)
            # Else bfloat16 where the CPU has it: features would depend on the machine.
            options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
            self._networks.append((core.compile_model(model, "CPU", options), size))

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Features of images.

        Args:
            images: RGB, at least one.  uint8 [H, W, 3] each

        Returns:
            Of unit length.  float32 [N, D]
        """
        parts = [
            np.concatenate([self._features(network, size, image) for image in images])
            for network, size in self._networks
        ]
        return unit(np.concatenate([unit(part) for part in parts], 1)).astype(np.float32)

    @staticmethod
    def _features(network, size: tuple[int, int], image: np.ndarray) -> np.ndarray:
        """Features of an image plus those of its mirror image, float32 [1, D]."""
        resized = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(resized, np.float32)[..., ::-1].transpose(2, 0, 1)[None]
        both = (np.ascontiguousarray(x) for x in (pixels, pixels[..., ::-1]))
        return sum(np.array(network(x)[network.output(0)]).reshape(1, -1) for x in both)


def _input_size(file: Path, model) -> tuple[int, int]:
    """Height and width of the images that a network takes."""
    shapes = [
        tuple(each.partial_shape.to_string() for each in side)
        for side in (model.inputs, model.outputs)
    ]
    shape = model.inputs[0].partial_shape if len(model.inputs) == 1 else None
    fits = shape is not None and shape.is_static and len(shape) == 4
    if not fits or tuple(shape.to_shape())[:2] != (1, 3) or len(model.outputs) != 1:
        raise InputError(
            f"--network {file}: expected one input [1,3,height,width] and one output, got inputs "
            f"{', '.join(shapes[0])} and outputs {', '.join(shapes[1])}; give a ReID network such "
            "as person-reidentification-retail-0277"
        )
    return tuple(shape.to_shape())[2:]


def unit(features: np.ndarray) -> np.ndarray:
    """Features scaled to length 1, [..., D]."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def centre(features: np.ndarray) -> np.ndarray:
    """The mean of features, scaled to length 1.

    Args:
        features: [N, D]
    """
    return unit(features.mean(0))


def scores(queries: Sequence[np.ndarray], gallery: np.ndarray) -> np.ndarray:
    """Mean average precision, rank-1 and margin of each person.

    Each query is compared with one vector of each person. The margin of a query is its cosine with
    its own person minus its mean cosine with the others. A person's values are the means over the
    person's queries, so that people count alike.

    Args:
        queries: Features of each person's queries, of unit length; may be none.  [n, D] each
        gallery: One vector of each of at least two people, of unit length.  [P, D]

    Returns:
        NaN for a person without a query.  float64 [P, 3]
    """
    found = np.full((len(gallery), 3), np.nan)
    people = np.arange(len(gallery))
    for person, own in enumerate(queries):
        if not len(own):
            continue
        cosine = own @ gallery.T
        same = np.full(len(own), person)
        cameras = [np.zeros(len(own), int), np.ones(len(gallery), int)]
        rows = metrics.rank_rows(-cosine, same, people, *cameras)
        others = (cosine.sum(1) - cosine[:, person]) / (len(gallery) - 1)
        margin = cosine[:, person] - others
        found[person] = rows.ap.mean(), (rows.rank == 1).mean(), margin.mean()
    return found


def share(values: np.ndarray, base: np.ndarray, seed: int = 0) -> Cell:
    """Ratio of two means over people and its 95 % interval: paired percentile bootstrap.

    Resamples in which the mean of the base is not positive are left out.

    Args:
        values: One value of each person, NaN = none.  [P]
        base: Likewise; people without a value in either are left out.  [P]
        seed: Seed of the resamples.

    Returns:
        Ratio, lower and upper end; NaN if the mean of the base is not positive.
    """
    both = ~(np.isnan(values) | np.isnan(base))
    values, base = values[both], base[both]
    if not len(base) or base.mean() <= 0:
        return (float("nan"),) * 3
    draws = np.random.default_rng(seed).integers(0, len(base), (DRAWS, len(base)))
    above, below = values[draws].mean(1), base[draws].mean(1)
    low, high = np.percentile(above[below > 0] / below[below > 0], [2.5, 97.5])
    return float(values.mean() / base.mean()), float(low), float(high)


def cells(found: np.ndarray, *bases: np.ndarray) -> str:
    """A row of a table: mAP, rank-1 and margin, then the shares of the margins of `bases`.

    Args:
        found: Of `scores`.  [P, 3]
        *bases: Likewise, what the margin is compared with.
    """
    own = [interval_cell(metrics.interval(column), 3) for column in found.T]
    return " | ".join(own + [interval_cell(share(found[:, 2], base[:, 2]), 2) for base in bases])


def interval_cell(cell: Cell, digits: int) -> str:
    """A value and its interval as text; "-" for none.

    Args:
        cell: The value, lower and upper end.
        digits: Decimal places.
    """
    value, low, high = (f"{number:.{digits}f}" for number in cell)
    return "-" if value == "nan" else f"{value} [{low}, {high}]"
