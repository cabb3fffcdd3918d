# SPDX-License-Identifier: Apache-2.0
"""CP2108: eight places by day and night, 22 ground cameras and 17 drones, 2,108 people.

Source: SVPR-ReID, AAAI 2026, and the loader in its repository, ahu-xhao/SVPR-ReID. **Announced: the
images were not released when this was written**, so that this loader has never read them.

Layout: the lists of `LISTS`, whose rows are paths in `images_v100`, where the images are named
`0012_3_0_5_000123.jpg` = identity, camera, time, place, and more. Cameras below 23 are on the
ground. People change clothes between times, so the time is the outfit. Identity -1 is junk and left
out.

Optional JSON files in the root: `TRAITS`, `{"0012_0_1": {"Upper Color": "black", ...}}`, and
`CAPTIONS`, `{"0012_0_1": "A man ..."}`; the key is identity, view (0 ground, 1 aerial), time. A
trait becomes the attribute "upper color:black"; a list of such texts is taken as it is. Language
models wrote the traits of each view, and they may contradict each other, so those of the ground
view count for all images of an identity and time, as in the authors' loader, and those of the
aerial view where there are no others. `OF_THE_IMAGE` are left out. A caption is that of the image's
own view, else of the other. Unlike there, nothing is taken from the other time.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

from viewsynth.data import layout
from viewsynth.records import Dataset, Published
from viewsynth.runtime.licences import Passport

PASSPORT = Passport(
    name="CP2108",
    licence="unknown",
    redistribute="unknown",
    citation="SVPR-ReID, AAAI 2026",
)

IMAGES = "images_v100"
LISTS = {split: f"split_v100/{split}_v100.txt" for split in ("train", "query", "gallery")}
TRAITS, CAPTIONS = "attributes_labeled_qwen.json", "attribute_captions_doubao.json"
PARTS = ("split_v100", IMAGES)
EXAMPLE = "0012_3_0_5_000123.jpg"
NAME = re.compile(r"(-?\d+)_(\d+)_(\d+)_(\d+)_", re.ASCII)
FIRST_DRONE, CAMERAS = 23, 39
VIEWS = ("ground", "aerial")  # by their number in the keys
OF_THE_IMAGE = ("View", "Illumination")  # traits of an image, not of a person
PUBLISHED = (
    Published(what="images", count=142_817, source="paper"),
    Published(what="identities", count=2_108, source="paper"),
)

Texts = dict[tuple[int, str, int], object]  # (identity, view, time) -> caption or traits


def load(root: str | Path) -> Dataset:
    """CP2108 with the protocols of `layout.directions`.

    Args:
        root: Folder of the release, or one that it is nested in.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if there is no folder `root`.
        ValueError: if a list is not text.
        layout.LayoutError: if `root` does not hold this data set.
    """
    root, warnings = layout.find_root(root, PARTS), []
    tables = [root / TRAITS, root / CAPTIONS]
    tree = layout.scan(root, [IMAGES], [*(root / file for file in LISTS.values()), *tables])
    splits = _splits(tree, warnings)
    traits, captions = (_keyed(path, warnings) for path in tables)
    parse = functools.partial(_parse, splits, traits, captions)
    found = layout.samples(tree, parse, EXAMPLE)
    samples = [sample for sample in found if sample.name in splits]
    if not samples:
        raise layout.LayoutError(f"{root}: the lists name no image like {EXAMPLE} in {IMAGES}")
    if unlisted := len(found) - len(samples):
        tree.rejects.append(layout.skip(IMAGES, "images that no list names", unlisted))
    query, gallery = ([s for s in samples if s.split == split] for split in ("query", "gallery"))
    return Dataset(
        name="cp2108",
        root=root,
        samples=samples,
        protocols=layout.directions(query, gallery),
        rejects=tree.rejects,
        warnings=warnings,
        published=PUBLISHED,
        fingerprint=layout.fingerprint(tree.sizes),
    )


def _splits(tree: layout.Tree, warnings: list[str]) -> dict[str, str]:
    """The split of every image that a list names; other rows become rejects."""
    splits, files = {}, set(tree.files)
    rejected = {reject.source for reject in tree.rejects}
    for split, file in LISTS.items():
        if not (tree.root / file).is_file():
            warnings.append(f"there is no list {tree.root / file}: the split {split} is empty")
            continue
        for line, row in layout.read_list(tree.root / file):
            name, where = f"{IMAGES}/{row}", f"{file}:{line}"
            if name in splits:
                tree.rejects.append(layout.bad(where, f"{row} was named before, in an earlier row"))
            elif name in files:
                splits[name] = split
            elif name not in rejected:  # else the image has a reject of its own
                reason = f"there is no image {row} in {tree.root / IMAGES}"
                tree.rejects.append(layout.bad(where, reason))
    return splits


def _parse(
    splits: dict[str, str], traits: Texts, captions: Texts, name: str, file: str
) -> dict | str:
    pid, camera, time, place = map(int, layout.match_name(NAME, file, EXAMPLE).groups())
    if not 1 <= camera <= CAMERAS:
        raise layout.FileNameError(f"camera {camera} is not one of 1 to {CAMERAS}")
    if pid < 0:
        return str(pid)
    aerial = camera >= FIRST_DRONE
    views = VIEWS[::-1] if aerial else VIEWS
    caption = next((captions[pid, v, time] for v in views if (pid, v, time) in captions), "")
    return {
        "pid": f"cp2108/{pid:04d}",
        "camid": str(camera),
        "split": splits.get(name, "train"),
        "outfit": str(time),
        "session": str(place),
        "platform": "drone" if aerial else "cctv",
        "view": VIEWS[aerial],
        "attributes": next(
            (_attributes(traits[pid, v, time]) for v in VIEWS if (pid, v, time) in traits), ()
        ),
        "caption": caption if isinstance(caption, str) else "",
    }


def _attributes(traits: object) -> tuple[str, ...]:
    if isinstance(traits, dict):
        own = {key: value for key, value in traits.items() if key not in OF_THE_IMAGE}
        return tuple(f"{key}:{value}".lower() for key, value in own.items())
    return tuple(map(str, traits)) if isinstance(traits, list) else ()


def _keyed(path: Path, warnings: list[str]) -> Texts:
    """The values of a JSON file by identity, view and time; problems become warnings."""
    if not path.exists():
        return {}
    example = "0012_0_1"
    try:
        if path.is_symlink():
            raise ValueError(layout.LINK)
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (ValueError, RecursionError) as error:
        warnings.append(
            f"{path.name} is left out: expected a JSON object with keys like {example}; {error}"
        )
        return {}
    found: Texts = {}
    wrong = []
    for key, value in content.items():
        parts = key.split("_")[:3]
        if len(parts) == 3 and all(p.isdecimal() for p in parts) and int(parts[1]) < len(VIEWS):
            found[int(parts[0]), VIEWS[int(parts[1])], int(parts[2])] = value
        else:
            wrong.append(key)
    if wrong:
        warnings.append(
            f"{path.name}: {len(wrong)} keys are not like {example} (identity, view 0 or 1, time) "
            f"and left out, e.g. {wrong[0]!r}"
        )
    return found
