# SPDX-License-Identifier: Apache-2.0
"""Run the two pose models, one image at a time: the same input gives the same bytes.

`find` (detector) and `parse` (landmarks) use this; the files come from `viewsynth.runtime.weights`.
LiteRT runs with one thread, because its sums depend on the number of threads; several cores are
used by worker processes. A `Model` cannot be pickled: each process loads its own.

| model | input | outputs |
|---|---|---|
| pose_landmark_full | [1, 256, 256, 3] RGB in [0, 1] | `landmarks` [39, 5]: x, y, z in pixels of the 256 square (z: relative to the hips, smaller = nearer), visibility and presence as logits; 33 body points, then 6 auxiliary. `presence` [1]: probability that a person is there. `mask` [256, 256]: logits. `heatmap` [64, 64, 39]. `world` [39, 3]: metres relative to the middle of the hips, camera axes (x right, y down, z away) |
| pose_detection | [1, 224, 224, 3] RGB in [-1, 1] | `boxes` [2254, 12], `scores` [2254]: see `find` |
"""  # noqa: E501

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np

# The tensors carry names like "Identity_1"; their sizes tell them apart.
OUTPUTS = {
    (1, 195): ("landmarks", (39, 5)),
    (1, 1): ("presence", (1,)),
    (1, 256, 256, 1): ("mask", (256, 256)),
    (1, 64, 64, 39): ("heatmap", (64, 64, 39)),
    (1, 117): ("world", (39, 3)),
    (1, 2254, 12): ("boxes", (2254, 12)),
    (1, 2254, 1): ("scores", (2254,)),
}


class Model:
    """A TFLite model that takes one float32 image.

    Args:
        path: The file.

    Attributes:
        size: Height and width of the input, pixels.

    Raises:
        ValueError: If LiteRT cannot read the file or it is not one of the two models.
    """

    def __init__(self, path: str | Path):
        # Imported here: the library's first import loads a shared object of 64 MB.
        from ai_edge_litert.interpreter import Interpreter

        with _quiet():
            try:
                self._interpreter = Interpreter(model_path=str(path), num_threads=1)
                self._interpreter.allocate_tensors()
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"{path} cannot be read as a TFLite model: {error}") from error
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._shape = tuple(map(int, self._interpreter.get_input_details()[0]["shape"]))
        self.size = self._shape[1:3]
        shapes = {d["index"]: tuple(map(int, d["shape"])) for d in self._outputs()}
        if unknown := [shape for shape in shapes.values() if shape not in OUTPUTS]:
            raise ValueError(
                f"{path} is not a known pose model: it has outputs {unknown}; expected "
                "pose_landmark_full.tflite or pose_detection.tflite of MediaPipe 0.10.21"
            )
        self._named = {index: OUTPUTS[shape] for index, shape in shapes.items()}

    def _outputs(self) -> list[dict]:
        return self._interpreter.get_output_details()

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Run the model.

        Args:
            image: In the range of the table above.  float32 [1, H, W, 3]

        Returns:
            Outputs by name, float32 copies.
        """
        if image.shape != self._shape:
            raise ValueError(f"the model takes {list(self._shape)}, got {list(image.shape)}")
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(image, np.float32))
        self._interpreter.invoke()
        return {
            name: self._interpreter.get_tensor(index).reshape(shape)
            for index, (name, shape) in self._named.items()
        }


@contextmanager
def _quiet():
    """Keep LiteRT's message about its CPU delegate off the terminal.

    It comes from C++ and cannot be turned off, so file descriptor 2 is redirected meanwhile.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all: nothing to keep quiet
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
