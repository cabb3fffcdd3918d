# SPDX-License-Identifier: Apache-2.0
"""Distributing the tasks of a run over the launcher's processes (ranks) and their workers.

Ranks share files only: each computes every n-th task, and all but the first leave the rejects of
dead workers in `ranks/<rank>.json`, for which the first rank waits.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from viewsynth import manifest
from viewsynth.generate import worker
from viewsynth.records import to_dict
from viewsynth.runtime.files import lines, write
from viewsynth.runtime.workers import Progress, hired, spread

FOLDER = "ranks"


def compute(
    todo: Sequence[manifest.Task],
    job: worker.Job,
    load: Callable,
    make: Callable,
    rank: int,
    ranks: int,
) -> list[dict]:
    """Compute the tasks of one rank; the first rank then waits for all others.

    Args:
        todo: The tasks of all ranks.
        job: What the workers need.
        load: Passed to `worker.start`.
        make: Passed to `worker.start`.
        rank: Index of this rank.
        ranks: Number of ranks.

    Returns:
        Rejects of the people whose worker died: of all ranks in the first rank, else of this one.
    """
    mine, folder = todo[rank::ranks], job.run / FOLDER
    lost: list[dict] = []
    parts = {job.run / "parts" / f"{task.part}.jsonl": task.people for task in todo}
    workers = hired(job.device, job.config.workers, len(mine), ranks)
    with Progress(parts if rank == 0 else {}) as progress:
        for outcome in spread(mine, worker.start, (job, load, make), workers):
            progress.update()
            if outcome is not None and outcome[1]:
                task, why = outcome
                lost += [to_dict(reject) for reject in worker.all_failed(task, job, why)]
        while rank == 0 and len(list(folder.glob("[0-9]*.json"))) < ranks - 1:
            progress.update()
            time.sleep(0.5)
        progress.update()
    if rank:
        write(folder / f"{rank}.json", lines(lost))
        return lost
    return lost + _lost_by_others(folder, ranks)


def _lost_by_others(folder: Path, ranks: int) -> list[dict]:
    texts = [(folder / f"{rank}.json").read_text() for rank in range(1, ranks)]
    return [json.loads(line) for line in "".join(texts).splitlines()]
