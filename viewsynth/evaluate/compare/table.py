# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of a comparison, in per cent, with the verdict first."""

from __future__ import annotations

from collections.abc import Iterable

from viewsynth.evaluate.compare.summary import CLEAR
from viewsynth.evaluate.scoring import bin_words

SHOWN = {"mAP": "mAP", "rank1": "Rank-1"}
UNITS = {
    "person": "people, each with all their queries, × seeds",
    "query": "queries × seeds",
}
# Columns of the probe table and their headings.
PROBES = {
    "arm": "model of arm",
    "apart": "told apart",
    "accuracy": "accuracy",
    "chance": "chance",
    "people": "people",
    "pictures": "images",
}


def markdown(found: dict, words: dict[str, str], probes: list[dict]) -> str:
    """Write the tables of a comparison.

    Args:
        found: See `summary.summarise`.
        words: Descriptions of the arms by name.
        probes: Rows with the keys of `PROBES`, see `commands.compare`; empty = no such section.

    Returns:
        Markdown.
    """
    parts, seeds = found["parts"], found["seeds"]
    text = [f"# Arms {', '.join(found['arms'])}: what each finds", "", *_verdict(found), ""]
    text += [f"- {name}: {words[name]}" for name in found["arms"] if name in words]
    text += [
        f"- means over the seeds {', '.join(map(str, seeds))}, per cent [95 % interval: bootstrap "
        f"over {UNITS[parts['unit']]}, paired in all arms]",
    ]
    if parts["ceiling"]:
        text += [
            "- closure: share of the way from the floor to the ceiling, "
            f"(arm − {parts['floor']}) / ({parts['ceiling']} − {parts['floor']}); only given where "
            f"the gap is more than {CLEAR} half-widths of its interval"
        ]
    text += [f"- {note}" for note in found["notes"]]
    for task in found["tasks"]:
        text += ["", f"## {task['protocol']}: {task['direction']}", "", _counts(task), ""]
        text += _arms(task, parts)
        if task["bins"]:
            text += ["", "By elevation of the aerial query:", "", *_bins(task, parts)]
    if probes:
        text += ["", "## Shortcut alarm", "", *_probes(probes)]
    return "\n".join([*text, ""])


def _verdict(found: dict) -> list[str]:
    """Whether the gap between floor and ceiling is clear, and the treated arm's share of it."""
    gap, parts = found["verdict"], found["parts"]
    if gap is None:
        return [f"Floor: {parts['floor']}. There is no ceiling."]
    gap_text = (
        f"({parts['ceiling']}) − ({parts['floor']}) in {gap['protocol']} mAP: "
        f"{_signed_with_interval(gap['difference'])}, half-width {100 * gap['half']:.1f}"
    )
    if not gap["clear"]:
        return [
            f"**The set-up measures nothing.** {gap_text}: the gap is not more than {CLEAR} "
            "half-widths. No conclusion may be drawn from what follows; take more queries, more "
            "seeds or longer trainings."
        ]
    times = f"{gap['difference'][0] / gap['half']:.1f}" if gap["half"] else "any number of"
    text = [f"**The set-up tells floor from ceiling.** {gap_text}: {times} half-widths."]
    if parts["treated"]:
        task = next(t for t in found["tasks"] if t["protocol"] == gap["protocol"])
        arm = next(a for a in task["arms"] if a["arm"] == parts["treated"])
        if closed := arm.get("mAP_closure"):
            text += ["", f"**Gap closure of ({parts['treated']}): {_with_interval(closed, 0)} %**"]
    return text


def _counts(task: dict) -> str:
    return f"{task['queries']} queries of {task['people']} people."


def _arms(task: dict, parts: dict) -> list[str]:
    floor, ceiling, treated = (parts[key] for key in ("floor", "ceiling", "treated"))
    pairs = [(None, floor)] + ([(None, ceiling)] if ceiling else [])
    pairs += [(treated, None)] if treated else []
    heads = ["arm", *SHOWN.values()]
    heads += [f"mAP: {one or 'arm'} − {other or 'arm'}" for one, other in pairs]
    heads += [f"closure, {name}" for name in SHOWN.values()] if ceiling else []
    by = {(d["one"], d["other"]): d for d in task["differences"]}
    lines = [_row(heads), _row(["---"] * len(heads))]
    for arm in task["arms"]:
        name = arm["arm"]
        cells = [name, *(_with_interval(arm[key]) for key in SHOWN)]
        for one, other in pairs:
            difference = by.get((one or name, other or name))
            cells.append(_signed_with_interval(difference["mAP"]) if difference else "")
        closed = [arm.get(f"{key}_closure") for key in SHOWN] if ceiling else []
        cells += [_with_interval(share, 0) if share else "" for share in closed]
        lines.append(_row(cells))
    return lines


def _bins(task: dict, parts: dict) -> list[str]:
    arms = [arm["arm"] for arm in task["arms"]]
    ends = [(arm, parts["floor"]) for arm in (parts["treated"], parts["ceiling"]) if arm]
    heads = ["elevation", "queries", *(f"mAP {arm}" for arm in arms)]
    heads += [f"{one} − {other}" for one, other in ends]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for part in task["bins"]:
        by = {(d["one"], d["other"]): d["mAP"] for d in part["differences"]}
        where = bin_words("elevation", part["bin"])
        cells = [where, part["queries"], *(_with_interval(arm["mAP"]) for arm in part["arms"])]
        lines.append(_row([*cells, *(_signed_with_interval(by[pair]) for pair in ends)]))
    return lines


def _probes(probes: list[dict]) -> list[str]:
    lines = [
        "Accuracy of a linear probe that separates synthetic from real training images by their "
        "features, balanced, on people that the probe has not seen. Mean over seeds; the interval "
        "spans the intervals of all seeds. A model whose features encode where an image comes from "
        "is above the floor, which was trained without synthetic images.",
        "",
        _row(PROBES.values()),
        _row(["---"] * len(PROBES)),
    ]
    for probe in probes:
        shown = probe | {
            "accuracy": _with_interval(probe["accuracy"]),
            "chance": _percent(probe["chance"]),
        }
        lines.append(_row(shown[key] for key in PROBES))
    return lines


def _row(cells: Iterable) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _with_interval(found: list[float], digits: int = 1) -> str:
    value, low, high = (f"{100 * number:.{digits}f}" for number in found)
    return f"{value} [{low}, {high}]"


def _signed_with_interval(found: list[float]) -> str:
    value, low, high = (f"{100 * number:+.1f}" for number in found)
    return f"{value} [{low}, {high}]"
