# SPDX-License-Identifier: Apache-2.0
"""One thread for every test: sums depend on the number of threads, and cores are shared."""

import os
from concurrent.futures import ThreadPoolExecutor

os.environ["HF_HUB_OFFLINE"] = "1"  # read at import; unknown hub ids fail without retries

import pytest
import releases
import torch
from hypothesis import settings

from viewsynth import bodies, reconstruct
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights
from viewsynth.runtime.writer import Writer
from viewsynth.world import writer

torch.set_num_threads(1)
# New examples at a desk; the same ones in CI, so that a change is judged by the change.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def pose_model():
    """The landmark model; needs no network once it is cached."""
    return _model(weights.pose_model)


@pytest.fixture(scope="session")
def detector():
    """The model that finds people."""
    return _model(weights.detector_model)


@pytest.fixture(scope="session")
def tools(pose_model, detector):
    """The default body and the pose models, loaded once for all tests."""
    return reconstruct.load(bodies.load("anny"), weights.reconstruction())


@pytest.fixture(scope="session")
def instant(tmp_path_factory):
    """Person 1 of the world at one instant: folder of the images, person row, image rows."""
    folder = tmp_path_factory.mktemp("instant")
    with ThreadPoolExecutor(1) as pool:
        files = Writer(folder, pool)
        person, rows = writer._person(writer.PersonTask(1, (0, 0), (0, 1)), 0, 2, files.put)
        files.finish()
    return folder, person, rows


def _model(file):
    try:
        return Model(file())
    except weights.MissingWeightsError as error:
        pytest.skip(f"the pose models cannot be had: {error}")


@pytest.fixture
def release(tmp_path):
    """Makes the small release of a data set in a folder of any name: `release(name, place)`."""
    return lambda name, place="release": releases.write(name, tmp_path / place)
