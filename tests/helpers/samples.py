# SPDX-License-Identifier: Apache-2.0
"""Samples without files: a query from above and its match on the ground."""

from pathlib import Path

from viewsynth.records import Sample


def sample(name: str, pid: str, view: str = "ground", camid: str = "1", **fields) -> Sample:
    path = Path(f"/data/{name}.jpg")
    return Sample(paths=(path,), name=f"{name}.jpg", pid=pid, view=view, camid=camid, **fields)


ONE, TWO = sample("q", "some/1", "aerial"), sample("g", "some/1", camid="2")
