# SPDX-License-Identifier: Apache-2.0
"""One thread for every test: sums depend on the number of threads, and cores are shared."""

import os

import pytest
import releases
import torch
from hypothesis import settings

torch.set_num_threads(1)
# New examples at a desk; the same ones in CI, so that a change is judged by the change.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture
def release(tmp_path):
    """Makes the small release of a data set in a folder of any name: `release(name, place)`."""
    return lambda name, place="release": releases.write(name, tmp_path / place)
