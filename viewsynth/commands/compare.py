# SPDX-License-Identifier: Apache-2.0
"""Compare arms of training by what `evaluate` found for each, over seeds, with intervals.

viewsynth compare outputs/benchmark/evaluate --floor a --ceiling f --treated e

The folder holds the outputs of `evaluate` as `<arm>/seed<k>`; arms may have any names. The output
folder gets `table.md` (printed as well), `table.json`, `bars.png` and `elevations.png`. What comes
first is whether the ceiling is above the floor by more than twice its interval's half-width: if
not, the set-up measures nothing.
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
    """Folder with <arm>/seed<k>, each an output of evaluate."""
    floor: str = "a"
    """The arm without what is asked about."""
    ceiling: str = "f"
    """The arm that has what the treated one replaces; "" = there is none, no gap is closed."""
    treated: str = ""
    """The arm that is asked about; none = only the others."""
    arms: tuple[str, ...] = ()
    """Which arms, in the order of the table; none = all."""
    words: tuple[str, ...] = ()
    """What arms are, for table and plots, each as "arm=words"."""
    notes: tuple[str, ...] = ()
    """What the table should say of the set-up."""
    protocol: str = "A<->G"
    """The protocol whose mAP must tell the ceiling from the floor."""
    unit: Literal["person", "query"] = "person"
    """What is drawn again: people with all their queries, or single queries."""
    probes: Path | None = None
    """Folder with <arm>/seed<k>/probe.json, outputs of viewsynth probe."""
    output: Path = Path("outputs/compare")
    """Folder of the table and the plots."""


def run(config: Config) -> int:
    """Read, compare, write and print; returns 0."""
    from viewsynth.evaluate.compare import plots, runs, summary, table

    words = _words(config.words)
    found = runs.read(config.results.expanduser(), config.arms)
    parts = summary.Parts(
        config.floor, config.ceiling, config.treated, config.protocol, config.unit
    )
    told = summary.summary(found, parts)
    told["notes"] = [*config.notes, *told["notes"]]
    probes = read_probes(config.probes, found) if config.probes else []
    text = table.markdown(told, words, probes)
    output = config.output.expanduser()
    tree = told | {"words": words, "probes": probes}
    write(output / "table.json", (json.dumps(tree, indent=1) + "\n").encode())
    write(output / "table.md", text.encode())
    write(output / "bars.png", plots.bars(told, words))
    if curves := plots.elevations(told, words):
        write(output / "elevations.png", curves)
    sys.stdout.write(text)
    sys.stderr.write(f"wrote table.md, table.json and the plots to {output}\n")
    return 0


def _words(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {text: text.partition("=") for text in given}
    for text, (arm, mark, _) in pairs.items():
        if not arm or not mark:
            raise ValueError(
                f'words: expected "arm=words", got {text!r}; e.g. --words "a=real pictures only"'
            )
    return {arm: words for arm, _, words in pairs.values()}


def read_probes(folder: Path, found: runs.Runs) -> list[dict]:
    """The probes of the arms that have some, over their seeds: rows of `table.PROBES`.

    Raises: ValueError, FileNotFoundError: if there is none, or one cannot be read.
    """
    rows = []
    for arm in found.arms:
        paths = [folder / arm / f"seed{seed}" / PROBE for seed in found.seeds]
        told = [_probe(path) for path in paths if path.is_file()]
        for name in dict.fromkeys(row["apart"] for one in told for row in one):
            same = [row for one in told for row in one if row["apart"] == name]
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
