# SPDX-License-Identifier: Apache-2.0
"""How much of the identity of real people is left in their views, by a network trained on people.

    python benchmarks/identity.py ladder --air AIR --ground GROUND --network FILE.xml [FILE.xml ...]
    python benchmarks/identity.py views --air AIR --ground GROUND --run RUN --network FILE.xml ...

AIR/<pid>/*.png or *.jpg are true aerial crops, the queries; GROUND/<pid>/ ground crops of the same
people. The crops are yours: none are part of the project, and nothing made from them is written.

`ladder` finds the step at which identity is lost between a photo and the drawn person: each rung is
at the camera of the crop itself, and all but the first are before the same foreign background.
`views` compares the views of a run of `generate` on GROUND, with elevations of 30 to 60 and 90
degrees and several azimuths, with the ground crops and with cut-outs: the person alone before
foreign backgrounds, because two photos of one person often match by their place.

The gallery has one vector per person, the mean of the features of the images; those of two kinds
count the same. Intervals are 95 % bootstraps over people. Networks are OpenVINO IR files, e.g.
person-reidentification-retail-0277 and -0286 of Intel's Open Model Zoo, which know ground cameras
only; docs/results/identity.md says how to get them and how to read the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import identity_images
import numpy as np
import torch
from identity_images import View
from identity_scores import InputError, Network, cells, centre, scores, unit

from viewsynth import bodies, reconstruct
from viewsynth.reconstruct.parse import parse
from viewsynth.reconstruct.tflite import Model
from viewsynth.runtime import weights

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]
Images = dict[str, list[np.ndarray]]  # of each person
TURNS = ((0, 30), (30, 60), (60, 90), (90, 180))  # degrees between a view and the nearest crop


# ---- ladder --------------------------------------------------------------------------------------


def rungs(drawn: identity_images.Drawn, backdrop: np.ndarray) -> dict[str, np.ndarray]:
    """The images of one crop, from the photo to the person drawn from all crops.

    Args:
        drawn: The crop, and the person drawn at its camera.
        backdrop: Background of another person.  uint8 [h, w, 3]
    """
    image, person = drawn.image.astype(np.float32), identity_images.soft(drawn.mask)
    covered = np.minimum(person, drawn.alone.coverage)
    layers = {
        "cut out by the mask": (image * person[..., None], person),
        "the same pixels where the person is drawn": (image * covered[..., None], covered),
        "drawn from this crop alone": (drawn.alone.colour, drawn.alone.coverage),
        "drawn from all crops": (drawn.fused.colour, drawn.fused.coverage),
    }
    before = identity_images.before
    return {"photo": drawn.image} | {k: before(*layer, backdrop) for k, layer in layers.items()}


def climb(ground: Images, tools: reconstruct.Tools) -> tuple[dict[str, Images], dict]:
    """The images of all rungs, and how well each drawn person fits the mask.

    Args:
        ground: Crops of at least two people.  uint8 [H, W, 3] each
        tools: See `reconstruct.load`.

    Returns:
        The images of each person of each rung; and of each person the mean IoU of the mask and what
        is drawn, from each crop alone and from all. People who cannot be reconstructed are missing.
    """
    pids, made, fits = list(ground), {}, {}
    places = {}
    for pid in pids:
        mask = parse(ground[pid][0], tools.pose_model).mask
        places[pid] = identity_images.background(ground[pid][0], mask)
    for number, pid in enumerate(pids):
        drawn = identity_images.reconstructed(ground[pid], tools)
        backdrop = places[pids[(number + len(pids) // 2) % len(pids)]]
        for one in drawn:
            for rung, image in rungs(one, backdrop).items():
                made.setdefault(rung, {}).setdefault(pid, []).append(image)
        if drawn:
            fits[pid] = (
                float(np.mean([identity_images.overlap(one.alone, one.mask) for one in drawn])),
                float(np.mean([identity_images.overlap(one.fused, one.mask) for one in drawn])),
            )
    return made, fits


def ladder(air: Images, ground: Images, made: dict[str, Images], fits: dict, embed: Embed) -> None:
    """Print the scores of all rungs, and how well each drawn person fits the mask.

    Args:
        air: True aerial crops.  uint8 [H, W, 3] each
        ground: Ground crops.  uint8 [H, W, 3] each
        made: See `climb`.
        fits: See `climb`.
        embed: Features of images, of unit length.  float32 [N, D]
    """
    used = enough(list(ground), [pid for pid in ground if pid not in fits], "usable ground crop")
    queries = [embed(air[pid]) for pid in used]
    _print_heading(air, ground, used)
    print("| | mAP | rank-1 | margin | share of the photo's |\n|---|---|---|---|---|")
    base = None
    for rung, of_rung in made.items():
        found = scores(queries, np.stack([centre(embed(of_rung[pid])) for pid in used]))
        base = found if base is None else base
        print(f"| {rung} | {cells(found, base)} |", flush=True)
    print("\n| IoU with the mask | crops used | from one crop | from all |\n|---|---|---|---|")
    for pid, (alone, fused) in fits.items():
        crops = f"{len(made['photo'][pid])} of {len(ground[pid])}"
        print(f"| {pid} | {crops} | {alone:.2f} | {fused:.2f} |")
    alone, fused = np.mean(list(fits.values()), 0)
    print(f"| mean of the people | | {alone:.2f} | {fused:.2f} |")


# ---- views ---------------------------------------------------------------------------------------


def views(
    air: Images, ground: Images, made: dict[str, list[View]], pose: Model, embed: Embed
) -> None:
    """Print the tables of views: by kind of gallery, and by their angle to the nearest crop.

    Args:
        air: True aerial crops.  uint8 [H, W, 3] each
        ground: Ground crops.  uint8 [H, W, 3] each
        made: Views of each person.
        pose: The pose model, for the masks.
        embed: Features of images, of unit length.  float32 [N, D]
    """
    chosen = {
        pid: ([v for v in own if oblique(v)], [v for v in own if above(v)])
        for pid, own in made.items()
    }
    missing = [pid for pid, both in chosen.items() if not all(both)]
    used = enough(list(air), missing, "view at both 30-60 and 90 degrees")
    masks = {pid: [parse(image, pose).mask for image in ground[pid]] for pid in air}
    cut = identity_images.cut_outs({pid: ground[pid] for pid in air}, masks)
    queries = [embed(air[pid]) for pid in used]
    single = {
        "ground crops": [embed(ground[pid]) for pid in used],
        "cut-outs": [embed(cut[pid]) for pid in used],
        "our views at 30-60": [embed([v.image for v in chosen[pid][0]]) for pid in used],
        "our views at 90": [embed([v.image for v in chosen[pid][1]]) for pid in used],
    }
    _print_heading(air, ground, used)
    _print_galleries(queries, single)
    turns = [np.array([view.turn for view in chosen[pid][0]]) for pid in used]
    _print_turns(queries, single, turns)


def oblique(view: View) -> bool:
    """Whether a view has an elevation of 30 to 60 degrees."""
    return 30 <= round(view.elevation) <= 60


def above(view: View) -> bool:
    """Whether a view is from straight above."""
    return round(view.elevation) == 90


def _print_galleries(queries: list[np.ndarray], single: dict[str, list[np.ndarray]]) -> None:
    """Print the retrieval of aerial crops among vectors of each kind."""
    of_kind = {kind: np.stack([centre(f) for f in own]) for kind, own in single.items()}
    ground, cut, ours, nadir = of_kind.values()
    galleries = {
        "ground crops": ground,
        "cut-outs": cut,
        "ground crops + cut-outs": unit(ground + cut),
        "our views at 30-60": ours,
        "our views at 90": nadir,
        "ground crops + our views at 30-60": unit(ground + ours),
    }
    found = {kind: scores(queries, gallery) for kind, gallery in galleries.items()}
    bases = found["ground crops"], found["cut-outs"]
    print("| gallery | mAP | rank-1 | margin | share of ground's | share of cut-outs' |")
    print("|---|---|---|---|---|---|")
    for kind, each in found.items():
        print(f"| {kind} | {cells(each, *bases)} |", flush=True)


def _print_turns(queries: list[np.ndarray], single: dict, turns: list[np.ndarray]) -> None:
    """Print how well single images find the aerial crops of their person."""
    gallery = np.stack([centre(own) for own in queries])
    own = single["our views at 30-60"]
    kinds = {kind: single[kind] for kind in ("ground crops", "cut-outs", "our views at 30-60")}
    for low, high in TURNS:
        inside = [(low <= turn) & ((turn < high) | (high == 180)) for turn in turns]
        kinds[f"... {low} to {high} from the nearest crop"] = [
            features[some] for features, some in zip(own, inside, strict=True)
        ]
    base = scores(kinds["cut-outs"], gallery)
    heads = "images", "people", "mAP", "rank-1", "margin", "share of cut-outs'"
    print(f"\n| single images as queries | {' | '.join(heads)} |\n|---|---|---|---|---|---|---|")
    for kind, features in kinds.items():
        counts = [len(one) for one in features]
        found = scores(features, gallery)
        print(f"| {kind} | {sum(counts)} | {np.count_nonzero(counts)} | {cells(found, base)} |")


# ---- command -------------------------------------------------------------------------------------


def enough(pids: list[str], missing: list[str], what: str) -> list[str]:
    """The people who are not left out; prints who is.

    Args:
        pids: All people.
        missing: Who is left out.
        what: What they lack.

    Raises:
        InputError: If fewer than `identity_images.FEWEST` remain.
    """
    if missing:
        print(f"left out, without a {what}: {', '.join(missing)}")
    if len(pids) - len(missing) < identity_images.FEWEST:
        raise InputError(
            f"{len(pids) - len(missing)} of {len(pids)} people have a {what}, expected at least "
            f"{identity_images.FEWEST}; add people, or give the others what they lack"
        )
    return [pid for pid in pids if pid not in missing]


def _print_heading(air: Images, ground: Images, used: list[str]) -> None:
    queries, crops = (sum(len(images[pid]) for pid in used) for images in (air, ground))
    print(f"{len(used)} people, {queries} aerial queries, {crops} ground crops\n")


def arguments() -> argparse.ArgumentParser:
    """The parser of the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--air", type=Path, required=True, help="AIR/<pid>/*.png, true aerial crops"
    )
    shared.add_argument(
        "--ground", type=Path, required=True, help="GROUND/<pid>/*.png, ground crops"
    )
    shared.add_argument(
        "--network", type=Path, nargs="+", required=True, help=".xml of an OpenVINO IR"
    )
    shared.add_argument(
        "--threads", type=int, default=1, help="results may depend on it in the last digit"
    )
    shared.add_argument("--complete", default="learned", help="as reconstruct.complete of generate")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("ladder", parents=[shared], help="where identity is lost, step by step")
    one = commands.add_parser("views", parents=[shared], help="views of a run next to ground crops")
    one.add_argument("--run", type=Path, required=True, help="output of `generate` on GROUND")
    return parser


def measure(given: argparse.Namespace) -> None:
    """Read the inputs, load the models and print the tables.

    Args:
        given: The command line.
    """
    files = identity_images.crop_files(given.air, given.ground)
    air, ground = (identity_images.read_all(some) for some in files)
    if given.what == "views":
        made = identity_images.read_views(given.run, list(air))
    torch.set_num_threads(given.threads)
    embed = Network(given.network, given.threads)
    if given.what == "views":
        views(air, ground, made, Model(weights.pose_model()), embed)
        return
    tools = reconstruct.load(bodies.load("anny", "cpu"), weights.reconstruction(given.complete))
    ladder(air, ground, *climb(ground, tools), embed)


def main() -> None:
    parser = arguments()
    given = parser.parse_args()
    try:
        measure(given)
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
