# SPDX-License-Identifier: Apache-2.0
"""Clothes of revision 2: sampled by the frequencies of real wardrobes.

outfits (kinds, cuts), cloth (fabrics) -> this module -> people. The tables count the identity
labels of two public attribute files, by sex: those of Market-1501 (1,501 people on a campus in
summer) and of DukeMTMC-reID (1,812 people on a campus in winter), both by Lin et al. 2019
(arXiv 1703.07220). Mild seasons draw from both. The labels name eight or nine colours; the shades
of each are ours. What the files do not count is set by hand: kinds under "Ours".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from viewsynth.world import cloth, outfits
from viewsynth.world.colours import Table, sample_colour, table
from viewsynth.world.outfits import Garment, Outfit

SEASON = table("summer 32, mild 32, winter 36")
# Colour of the upper and of the lower body, shares in per cent; "many" = labelled with no colour.
UPPER = {
    ("summer", False): table(
        "white 25.3, black 15.6, grey 15.5, blue 8.8, red 8.6, yellow 7, green 6.6, purple 3.7, "
        "many 8.9"
    ),
    ("summer", True): table(
        "white 33.8, black 13.7, red 12.3, grey 9.3, green 6.9, yellow 5.8, blue 3.7, purple 3.5, "
        "many 11"
    ),
    ("winter", False): table(
        "black 62.5, grey 13, blue 10.7, white 5.9, red 4.7, brown 1.4, green 1, purple 0.2, "
        "many 0.6"
    ),
    ("winter", True): table(
        "black 58, grey 10.6, white 9.7, blue 7.6, red 6.3, brown 2.6, green 2.6, purple 1.8, "
        "many 0.8"
    ),
}
LOWER = {
    ("summer", False): table(
        "black 43.2, grey 22.2, blue 16, brown 9.5, white 4.6, green 1.4, pink 0.7, many 2.4"
    ),
    ("summer", True): table(
        "black 32.8, blue 21.6, white 10.5, grey 9.3, pink 6.6, brown 5.6, green 3.4, "
        "yellow 1.7, purple 0.3, many 8.2"
    ),
    ("winter", False): table(
        "blue 34.9, black 34.6, grey 11.7, pale 11.3, brown 7.1, green 0.6, red 0.5"
    ),
    ("winter", True): table(
        "black 62.1, blue 24.1, grey 6.3, pale 3.3, red 3.3, brown 1.4, green 0.3"
    ),
}
# Shares of people: with a backpack, a bag at the side, a bag in the hand, something on the head.
CARRY = {
    ("summer", False): (0.297, 0.155, 0.086, 0.018),
    ("summer", True): (0.206, 0.364, 0.136, 0.043),
    ("winter", False): (0.710, 0.094, 0.029, 0.236),
    ("winter", True): (0.592, 0.269, 0.046, 0.085),
}
BOOTS = {("winter", False): 0.055, ("winter", True): 0.548}  # shares of people with boots
SHORT = {False: 0.58, True: 0.69}  # shares of people with short lower clothes in summer
SKIRT = 0.30  # share of women in a skirt or dress in summer

# ---- Ours ------------------------------------------------------------------------------------

# Shades of each label, names in `colours.NAMED`. "pale" are the trousers that the winter file calls
# white: we take most of them for khaki and beige.
SHADES = {
    "black": table("black 84, dark grey 7, navy blue 6, dark brown 2, dark green 1"),
    "white": table("white 86, cream 8, light grey 6"),
    "pale": table("khaki 36, beige 40, cream 12, white 12"),
    "grey": table("grey 46, dark grey 24, light grey 30"),
    "blue": table("navy blue 34, dark blue 26, blue 20, light blue 20"),
    "red": table("red 42, burgundy 26, pink 14, orange 12, bright pink 6"),
    "pink": table("pink 60, burgundy 20, red 20"),
    "purple": table("purple 35, lilac 35, pink 30"),
    "yellow": table("yellow 42, mustard 20, beige 24, orange 14"),
    "green": table("olive green 32, dark green 20, green 20, teal 14, light green 14"),
    "brown": table("khaki 28, brown 26, light brown 26, beige 20"),
}
DENIM = table("dark blue 32, denim blue 40, navy blue 12, light blue 16")
ANY = table("white 28, black 24, grey 18, blue 14, red 8, green 5, brown 3")
# Patterns of what has no one colour.
TOP_PATTERNS = table("stripes 36, checks 28, floral 16, dots 8, block 10, camouflage 2")
BOTTOM_PATTERNS = table("floral 44, checks 40, dots 10, camouflage 6")
TOP = {
    ("summer", False): table("tshirt 72, polo 14, shirt 11, tank 3"),
    ("summer", True): table("tshirt 58, blouse 22, tank 10, shirt 6, polo 4"),
    ("winter", False): table("sweater 42, tshirt 26, shirt 32"),
    ("winter", True): table("sweater 56, blouse 24, tshirt 20"),
}
OUTER = {
    ("summer", False): table("none 96, jacket 2, hoodie 2"),
    ("summer", True): table("none 93, cardigan 5, jacket 2"),
    ("winter", False): table("jacket 48, hoodie 26, coat 12, none 9, vest 4, cardigan 1"),
    ("winter", True): table("jacket 44, coat 26, hoodie 14, none 9, cardigan 6, vest 1"),
}
LONG_COAT = 0.45  # share of coats that reach to the knees
QUILTED = {"jacket": 0.34, "coat": 0.30, "vest": 0.9}  # shares in winter
WARM = table("beanie 62, cap 28, hat 10")
HOODED = 0.4  # share of what is on the head in winter that is a hood
SUN = table("cap 78, hat 22")


def sample_outfit(rng: np.random.Generator, female: bool, years: float) -> Outfit:
    """Sample the outfit of one person.

    Args:
        rng: Generator of all random choices.
        female: Sex of the person.
        years: Age, which changes style, glasses and carried things.

    Returns:
        The outfit.
    """
    season = SEASON.pick(rng)
    worn = season if season != "mild" else str(rng.choice(("summer", "winter")))
    style = outfits.STYLE.pick(rng)
    if style == "sport" and years > 62:
        style = "casual"
    modest = female and rng.random() < outfits.HIJAB
    kind = OUTER[worn, female].pick(rng)
    shade = UPPER[worn, female].pick(rng)
    outer = _coloured(rng, kind, shade, worn, style, female) if kind else None
    kind = "dress" if _wears_dress(rng, worn, female) else TOP[worn, female].pick(rng)
    shade = ANY.pick(rng) if outer else shade
    top = _coloured(rng, kind, shade, worn, style, female)
    bottom = None if kind == "dress" else _bottom(rng, worn, style, female)
    if modest:
        top, bottom = outfits.covered(rng, top, bottom, season, style)
        top, bottom = _detailed(rng, top, worn), bottom and _detailed(rng, bottom, worn)
    boots = rng.random() < BOOTS.get((worn, female), 0.02)
    feet = "shoes" if style == "smart" and rng.random() < 0.7 else "sneakers"
    shoes = _detailed(
        rng, outfits.sample_garment(rng, "boots" if boots else feet, season, style, female), worn
    )
    return Outfit(
        top=top,
        outer=outer,
        bottom=bottom,
        shoes=shoes,
        headwear=_headwear(rng, worn, female, modest, outer or top),
        carried=_carried(rng, worn, female, years),
        socks=sample_colour(rng, outfits.SOCKS),
        glasses=outfits.sample_glasses(rng, season, years),
    )


def _wears_dress(rng: np.random.Generator, worn: str, female: bool) -> bool:
    return bool(rng.random() < {"summer": 0.4 * SKIRT, "winter": 0.02}[worn] * female)


def _coloured(
    rng: np.random.Generator, kind: str, label: str, season: str, style: str, female: bool
) -> Garment:
    """A garment of a kind whose main colour has a label of the tables."""
    palette: Table = SHADES[ANY.pick(rng) if label == "many" else label]
    garment = outfits.sample_garment(rng, kind, season, style, female, palette)
    if label == "many" and kind not in ("jacket", "coat", "vest", "jeans"):
        pattern = (BOTTOM_PATTERNS if kind in outfits.BOTTOMS else TOP_PATTERNS).pick(rng)
        fabric = cloth.sample_fabric(rng, kind, "", female, palette, pattern)
        garment = replace(garment, fabric=fabric)
    if kind == "coat" and rng.random() > LONG_COAT:
        garment = replace(garment, length=0.35 * garment.length)
    return _detailed(rng, garment, season)


def _bottom(rng: np.random.Generator, worn: str, style: str, female: bool) -> Garment:
    """A bottom: its colour first, because blue ones are mostly denim."""
    label = LOWER[worn, female].pick(rng)
    short = worn == "summer" and rng.random() < SHORT[female]
    draw = rng.random()
    skirt = female and draw < (0.6 * SKIRT if worn == "summer" else 0.05)
    tight = female and not short and draw > (0.8 if worn == "summer" else 0.66)
    if skirt:
        kind = "skirt"
    elif short:
        kind = "shorts"
    elif tight and label in ("black", "grey"):
        kind = "leggings"
    elif style != "sport" and (label == "blue" or rng.random() < 0.25):
        kind = "jeans"
    else:
        kind = "trousers"
    palette = DENIM if label == "blue" and kind in ("jeans", "shorts") else None
    if palette is None:
        return _coloured(rng, kind, label, worn, style, female)
    garment = outfits.sample_garment(rng, kind, worn, style, female, palette)
    if kind == "shorts" and rng.random() < 0.6:
        garment = replace(garment, fabric=replace(garment.fabric, kind="denim"))
    return _detailed(rng, garment, worn)


def _detailed(rng: np.random.Generator, garment: Garment, season: str) -> Garment:
    """The garment with seams, creases, and for some winter clothes quilting."""
    fabric = garment.fabric
    quilted = season == "winter" and rng.random() < QUILTED.get(garment.kind, 0.0)
    plain = fabric.kind in ("plain", "heather", "block")
    return replace(
        garment,
        fabric=replace(
            fabric,
            weave=float(min(fabric.weave * rng.uniform(1.0, 1.6), 1.2)),
            seams=float(rng.uniform(0.4, 1.0)),
            crease=float(rng.uniform(0.15, 0.5)),
            quilt=float(rng.uniform(0.05, 0.11)) if quilted and plain else 0.0,
        ),
    )


def _headwear(
    rng: np.random.Generator, worn: str, female: bool, modest: bool, outer: Garment
) -> Garment | None:
    if modest:
        return Garment(kind="hijab", fabric=cloth.sample_fabric(rng, "hijab", "", True))
    if rng.random() >= CARRY[worn, female][3]:
        return None
    if worn == "winter" and outer.kind in ("hoodie", "coat", "jacket") and rng.random() < HOODED:
        return Garment(kind="hood", fabric=outer.fabric, loose=outer.loose)
    kind = WARM.pick(rng) if worn == "winter" else SUN.pick(rng)
    return Garment(kind=kind, fabric=cloth.sample_fabric(rng, kind, "", female))


def _carried(rng: np.random.Generator, worn: str, female: bool, years: float) -> tuple:
    """Up to two bags, or an umbrella; the counted people are students, others carry less."""
    pack, side, hand, _ = CARRY[worn, female]
    less = 1.0 if years < 35 else 0.55
    kinds = ["backpack"] if rng.random() < less * pack else []
    kinds += ["shoulder_bag"] if rng.random() < side else []
    kinds += ["tote"] if len(kinds) < 2 and rng.random() < hand else []
    if len(kinds) < 2 and "tote" not in kinds and rng.random() < 0.02:
        kinds.append("umbrella")
    return tuple(
        Garment(
            kind=kind, fabric=cloth.sample_fabric(rng, kind, "", female), length=float(rng.random())
        )
        for kind in kinds
    )
