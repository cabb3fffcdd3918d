# SPDX-License-Identifier: Apache-2.0
"""One thread for every test: sums depend on the number of threads, and cores are shared."""

import os

import pytest
import releases
import torch
from hypothesis import settings

from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights

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


def _model(file):
    try:
        return Model(file())
    except weights.MissingWeightsError as error:
        pytest.skip(f"the pose models cannot be had: {error}")


@pytest.fixture
def release(tmp_path):
    """Makes the small release of a data set in a folder of any name: `release(name, place)`."""
    return lambda name, place="release": releases.write(name, tmp_path / place)
