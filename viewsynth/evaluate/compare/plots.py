# SPDX-License-Identifier: Apache-2.0
"""Plots of a comparison as PNG; equal values and matplotlib versions give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence

from viewsynth.evaluate.compare.table import SHOWN
from viewsynth.evaluate.scoring import bin_words

DPI = 110
WIDTH = 0.8  # share of a group's space that its bars or points take


def bars(found: dict, words: dict[str, str]) -> bytes:
    """Bar charts of mAP and Rank-1 of every arm, with intervals, grouped by protocol.

    Args:
        found: See `summary.summarise`.
        words: Descriptions of the arms by name.

    Returns:
        PNG.
    """
    tasks, arms = found["tasks"], found["arms"]
    figure = _figure(max(6.0, 1.2 + 0.32 * len(arms) * len(tasks)), 6.0)
    for place, axes in zip(SHOWN, figure.subplots(2, 1, sharex=True), strict=True):
        for n, arm in enumerate(arms):
            values = [task["arms"][n][place] for task in tasks]
            at = [k + WIDTH * ((n + 0.5) / len(arms) - 0.5) for k in range(len(tasks))]
            heights, errors = _errors(values)
            axes.bar(
                at,
                heights,
                WIDTH / len(arms),
                color=_colour(n),
                label=_label(arm, words),
                yerr=errors,
                error_kw={"elinewidth": 1, "capsize": 2},
            )
        axes.set_ylabel(f"{SHOWN[place]}, %")
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(tasks)), [task["protocol"] for task in tasks])
        axes.grid(axis="y", alpha=0.3)
    return _png(figure, axes)


def elevations(found: dict, words: dict[str, str]) -> bytes | None:
    """Line charts of mAP of every arm over the elevation of aerial queries.

    Args:
        found: See `summary.summarise`.
        words: Descriptions of the arms by name.

    Returns:
        PNG; None if the elevation of the queries is unknown.
    """
    tasks = [task for task in found["tasks"] if task["bins"]]
    if not tasks:
        return None
    arms = len(found["arms"])
    figure = _figure(max(6.0, max(4.2, 0.4 * arms) * len(tasks)), 3.4 + 0.1 * arms)
    every = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for task, axes in zip(tasks, every, strict=True):
        for n, arm in enumerate(found["arms"]):
            shift = WIDTH / 2 * ((n + 0.5) / arms - 0.5)
            at = [k + shift for k in range(len(task["bins"]))]
            heights, errors = _errors([part["arms"][n]["mAP"] for part in task["bins"]])
            axes.errorbar(
                at,
                heights,
                errors,
                color=_colour(n),
                label=_label(arm, words),
                marker="o",
                markersize=3,
                linewidth=1.2,
                elinewidth=0.8,
                capsize=2,
            )
        names = [
            f"{bin_words('elevation', part['bin'])}\n{part['queries']} q" for part in task["bins"]
        ]
        axes.set_xticks(range(len(names)), names)
        axes.set_title(task["protocol"])
        axes.grid(axis="y", alpha=0.3)
    every[0].set_ylim(bottom=0)  # for all axes; setting it earlier would fix the upper limit too
    every[0].set_ylabel("mAP, %")
    return _png(figure, every[0])


def rows(found: dict[str, dict], arms: Sequence[str]) -> bytes:
    """A row of bars for each of some comparisons, by the mAP of the first arm.

    Args:
        found: Name -> a task of `summary.summarise`.
        arms: The arms to show.

    Returns:
        PNG.
    """
    values = {
        name: {one["arm"]: one["mAP"] for one in task["arms"]} for name, task in found.items()
    }
    names = sorted(values, key=lambda name: values[name][arms[0]][0])
    figure = _figure(7.0, 1.5 + 0.14 * (len(arms) + 0.6) * len(names))
    axes = figure.subplots()
    for n, arm in enumerate(arms):
        at = [k - WIDTH * ((n + 0.5) / len(arms) - 0.5) for k in range(len(names))]
        lengths, errors = _errors([values[name][arm] for name in names])
        axes.barh(
            at,
            lengths,
            WIDTH / len(arms),
            color=_colour(n),
            label=arm,
            xerr=errors,
            error_kw={"elinewidth": 1, "capsize": 2},
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("mAP, %")
    axes.grid(axis="x", alpha=0.3)
    return _png(figure, axes)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # pyplot would keep a global state

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _errors(values: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Values in per cent, and the lower and upper lengths of the error bars."""
    heights = [100 * value for value, _, _ in values]
    down = [100 * max(value - low, 0) for value, low, _ in values]
    return heights, [down, [100 * max(high - value, 0) for value, _, high in values]]


def _colour(number: int) -> tuple:
    """Colour of an arm: ten dark colours, then their ten light variants."""
    from matplotlib import colormaps

    return colormaps["tab20"]((2 * number + number // 10) % 20)


def _label(arm: str, words: dict[str, str]) -> str:
    return f"{arm}: {words[arm]}" if arm in words else arm


def _png(figure, axes) -> bytes:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    out = io.BytesIO()
    # tight: a legend that is wider than the axes is not cropped
    figure.savefig(out, format="png", bbox_inches="tight", metadata={"Software": None})
    return out.getvalue()
