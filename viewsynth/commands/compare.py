# SPDX-License-Identifier: Apache-2.0
"""Compare training arms by their results of `evaluate` over seeds, with intervals.

viewsynth compare outputs/benchmark/evaluate --floor a --ceiling f --treated e

The folder holds the outputs of `evaluate` as `<arm>/seed<k>`; arms may have any names. The output
folder gets `table.md` (printed as well), `table.json`, `bars.png` and `elevations.png`. The first
line of the table says whether the ceiling is above the floor by more than twice the half-width of
its interval: if not, the set-up cannot measure a gain.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from viewsynth.runtime.files import write

if TYPE_CHECKING:
    from viewsynth.evaluate.compare import runs

PROBE = "probe.json"


@dataclass(frozen=True)
class Config:
    """Outputs of evaluate in, one table with intervals and plots out."""

    results: tyro.conf.Positional[Path]
    """Folder with <arm>/seed<k>, each an output folder of evaluate."""
    floor: str = "a"
    """Arm without the data or method under test."""
    ceiling: str = "f"
    """Arm with the real data that the treated arm replaces; "" = none, so no gap is reported."""
    treated: str = ""
    """Arm under test; "" = none."""
    arms: tuple[str, ...] = ()
    """Arms to compare, in the order of the table; none = all."""
    words: tuple[str, ...] = ()
    """Descriptions of arms for table and plots, each as "arm=words"."""
    notes: tuple[str, ...] = ()
    """Notes on the set-up, for the table."""
    protocol: str = "A<->G"
    """Protocol whose mAP must separate the ceiling from the floor."""
    unit: Literal["person", "query"] = "person"
    """Unit of resampling: people with all their queries, or single queries."""
    probes: Path | None = None
    """Folder with <arm>/seed<k>/probe.json, outputs of viewsynth probe; None = none."""
    output: Path = Path("outputs/compare")
    """Folder of the table and the plots."""


def run(config: Config) -> int:
    """Read, compare, write and print; returns 0."""
    from viewsynth.evaluate.compare import plots, runs, summary, table

    words = _words(config.words)
    found = runs.read(config.results.expanduser(), config.arms)
    parts = summary.Roles(
        config.floor, config.ceiling, config.treated, config.protocol, config.unit
    )
    results = summary.summarise(found, parts)
    results["notes"] = [*config.notes, *results["notes"]]
    probes = read_probes(config.probes, found) if config.probes else []
    text = table.markdown(results, words, probes)
    output = config.output.expanduser()
    tree = results | {"words": words, "probes": probes}
    write(output / "table.json", (json.dumps(tree, indent=1) + "\n").encode())
    write(output / "table.md", text.encode())
    write(output / "bars.png", plots.bars(results, words))
    if curves := plots.elevations(results, words):
        write(output / "elevations.png", curves)
    sys.stdout.write(text)
    sys.stderr.write(f"wrote table.md, table.json and the plots to {output}\n")
    return 0


def _words(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {text: text.partition("=") for text in given}
    for text, (arm, mark, _) in pairs.items():
        if not arm or not mark:
            raise ValueError(
                f'words: expected "arm=words", got {text!r}; e.g. --words "a=real images only"'
            )
    return {arm: words for arm, _, words in pairs.values()}


def read_probes(folder: Path, found: runs.Runs) -> list[dict]:
    """Read the probes of the arms and average them over the seeds.

    Args:
        folder: Folder with `<arm>/seed<k>/probe.json`; arms may be missing.
        found: The arms and seeds.

    Returns:
        Rows with the keys of `table.PROBES`.

    Raises:
        FileNotFoundError: if no arm has a probe.
        ValueError: if a file cannot be read.
    """
    rows = []
    for arm in found.arms:
        paths = [folder / arm / f"seed{seed}" / PROBE for seed in found.seeds]
        every = [row for path in paths if path.is_file() for row in _probe(path)]
        for name in dict.fromkeys(row["apart"] for row in every):
            same = [row for row in every if row["apart"] == name]
            values, lows, highs = zip(*(row["accuracy"] for row in same), strict=True)
            over = [sum(values) / len(values), min(lows), max(highs)]
            rows.append({"arm": arm, **same[0], "accuracy": over})
    if not rows:
        raise FileNotFoundError(
            f"probes: {folder} holds no <arm>/seed<k>/{PROBE} of these arms "
            f"({', '.join(found.arms)}); write them with `viewsynth probe --output`"
        )
    return rows


def _probe(path: Path) -> list[dict]:
    from viewsynth.evaluate.compare import table

    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        return [{key: row[key] for key in table.PROBES if key != "arm"} for row in rows]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error!r}; run viewsynth probe again") from error
