# SPDX-License-Identifier: Apache-2.0
"""Sample what people wear and carry, by season, style and sex.

cloth (fabrics) -> this module (kinds, cuts) -> people, words, garments. Every outfit covers torso
and hips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from viewsynth.world import cloth
from viewsynth.world.colours import Colour, Table, sample_colour, table
from viewsynth.world.fabrics import Fabric

TOPS = ("tshirt", "shirt", "sweater", "tank", "polo", "blouse", "dress")
OUTERS = ("jacket", "coat", "hoodie", "vest", "cardigan")
BOTTOMS = ("trousers", "jeans", "shorts", "skirt", "leggings")
SHOES = ("shoes", "sneakers", "boots")
HEADWEAR = ("cap", "beanie", "hat", "hijab", "hood")
CARRIED = ("backpack", "shoulder_bag", "tote", "umbrella")


@dataclass(frozen=True, kw_only=True)
class Garment:
    """One thing that is worn or carried.

    Args:
        kind: A name in the tuples above.
        fabric: The fabric.
        loose: Distance between body and cloth beyond the cloth's thickness, metres, [0, 0.05].
        length: 0 to 1. Tops and outer garments: 0 = waist, 0.5 = hip joints, 1 = mid-thigh; coat:
            0 = hip, 1 = below the knee; dress, skirt, shorts, trousers: 0 = hip, 1 = ankle; boots:
            0 = ankle, 1 = knee; carried things: size, 0 = small.
        sleeve: 0 = ends at the shoulder, 1 = at the wrist.
        neckline: Depth in front, metres, [0, 0.12].
        open: Half width of the opening in front, metres; 0 = closed.
    """

    kind: str
    fabric: Fabric
    loose: float = 0.01
    length: float = 0.5
    sleeve: float = 0.0
    neckline: float = 0.0
    open: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """Everything that one person wears and carries.

    Args:
        top: A garment of `TOPS`, which include dresses.
        outer: A garment of `OUTERS`.
        bottom: A garment of `BOTTOMS`; None with a dress.
        shoes: A garment of `SHOES`.
        headwear: A garment of `HEADWEAR`.
        carried: Up to 2 things of `CARRIED`.
        socks: sRGB in [0, 1].
        glasses: "" (none), "clear" or "dark".
    """

    top: Garment
    outer: Garment | None
    bottom: Garment | None
    shoes: Garment
    headwear: Garment | None
    carried: tuple[Garment, ...]
    socks: Colour
    glasses: str


SEASON = table("summer 38, mild 37, winter 25")
STYLE = table("casual 58, smart 24, sport 18")
# (season, style or both; female) -> kinds; the entry of a style precedes that of the season.
TOP = {
    ("summer", False): table("tshirt 64, polo 14, shirt 18, tank 4"),
    ("summer", True): table("tshirt 36, tank 13, blouse 18, dress 17, shirt 9, polo 4, sweater 2"),
    ("mild", False): table("tshirt 38, shirt 28, sweater 24, polo 9"),
    ("mild", True): table("tshirt 28, sweater 27, blouse 22, shirt 11, dress 10"),
    ("winter", False): table("sweater 48, shirt 27, tshirt 24"),
    ("winter", True): table("sweater 54, blouse 15, tshirt 20, dress 6"),
    ("smart", False): table("shirt 82, sweater 8, polo 6, tshirt 4"),
    ("smart", True): table("blouse 48, shirt 20, sweater 12, dress 15, tshirt 5"),
    ("sport", False): table("tshirt 86, tank 8, sweater 6"),
    ("sport", True): table("tshirt 74, tank 18, sweater 8"),
}
OUTER = {
    ("summer", False): table("none 94, vest 2, jacket 2, hoodie 2"),
    ("summer", True): table("none 90, cardigan 6, vest 1, jacket 3"),
    ("mild", False): table("none 42, hoodie 21, jacket 28, cardigan 3, vest 3, coat 3"),
    ("mild", True): table("none 42, hoodie 12, jacket 23, cardigan 14, vest 2, coat 7"),
    ("winter", False): table("coat 36, jacket 44, hoodie 14, vest 3, none 3"),
    ("winter", True): table("coat 52, jacket 34, hoodie 7, cardigan 5, none 2"),
    ("smart mild", False): table("none 50, jacket 42, coat 6, vest 2"),
    ("smart mild", True): table("none 50, jacket 30, cardigan 12, coat 8"),
    ("smart winter", False): table("coat 70, jacket 28, none 2"),
    ("smart winter", True): table("coat 78, jacket 18, none 4"),
    ("sport mild", False): table("none 55, hoodie 26, jacket 19"),
    ("sport mild", True): table("none 55, hoodie 25, jacket 20"),
}
BOTTOM = {
    ("summer", False): table("shorts 44, jeans 30, trousers 26"),
    ("summer", True): table("shorts 22, jeans 27, trousers 19, skirt 20, leggings 12"),
    ("mild", False): table("jeans 54, trousers 42, shorts 4"),
    ("mild", True): table("jeans 50, trousers 24, leggings 14, skirt 11, shorts 1"),
    ("winter", False): table("jeans 56, trousers 44"),
    ("winter", True): table("jeans 54, trousers 29, leggings 13, skirt 4"),
    ("smart", False): table("trousers 92, jeans 8"),
    ("smart", True): table("trousers 68, skirt 24, jeans 8"),
    ("sport summer", False): table("shorts 72, trousers 28"),
    ("sport summer", True): table("shorts 38, leggings 50, trousers 12"),
    ("sport", False): table("trousers 78, shorts 20, jeans 2"),
    ("sport", True): table("leggings 66, trousers 26, shorts 8"),
}
FEET = {
    "summer": table("sneakers 66, shoes 32, boots 2"),
    "mild": table("sneakers 62, shoes 28, boots 10"),
    "winter": table("sneakers 40, shoes 26, boots 34"),
    "smart": table("shoes 80, sneakers 10, boots 10"),
    "sport": table("sneakers 100"),
}
# kind: ranges of (loose, length, sleeve, neckline)
CUTS = {
    "tshirt": ((0.006, 0.030), (0.44, 0.72), (0.22, 0.42), (0.02, 0.06)),
    "shirt": ((0.008, 0.024), (0.46, 0.80), (0.92, 0.97), (0.0, 0.05)),
    "sweater": ((0.010, 0.030), (0.42, 0.66), (0.93, 0.98), (0.0, 0.05)),
    "tank": ((0.003, 0.016), (0.42, 0.62), (0.03, 0.06), (0.04, 0.09)),
    "polo": ((0.008, 0.026), (0.46, 0.68), (0.26, 0.40), (0.0, 0.03)),
    "blouse": ((0.008, 0.030), (0.40, 0.70), (0.28, 0.97), (0.02, 0.09)),
    "dress": ((0.006, 0.040), (0.40, 0.90), (0.05, 0.60), (0.02, 0.09)),
    "jacket": ((0.010, 0.030), (0.40, 0.70), (0.97, 1.0), (0.0, 0.03)),
    "coat": ((0.016, 0.042), (0.15, 1.0), (0.98, 1.0), (0.0, 0.03)),
    "hoodie": ((0.016, 0.036), (0.45, 0.70), (0.97, 1.0), (0.0, 0.02)),
    "vest": ((0.008, 0.020), (0.40, 0.60), (0.0, 0.02), (0.0, 0.04)),
    "cardigan": ((0.010, 0.030), (0.45, 0.80), (0.95, 1.0), (0.02, 0.06)),
    "trousers": ((0.006, 0.032), (0.95, 1.0), (0, 0), (0, 0)),
    "jeans": ((0.002, 0.024), (0.94, 1.0), (0, 0), (0, 0)),
    "shorts": ((0.010, 0.040), (0.34, 0.58), (0, 0), (0, 0)),
    "skirt": ((0.004, 0.045), (0.38, 0.92), (0, 0), (0, 0)),
    "leggings": ((0.0, 0.002), (0.88, 0.99), (0, 0), (0, 0)),
    "boots": ((0.004, 0.012), (0.05, 0.90), (0, 0), (0, 0)),
}
# Probability that a garment is worn open.
OPEN = {"jacket": 0.40, "coat": 0.30, "hoodie": 0.22, "vest": 0.40, "cardigan": 0.80}
HEADS = {
    ("summer", False): table("none 82, cap 14, hat 4"),
    ("summer", True): table("none 89, cap 5, hat 6"),
    ("mild", False): table("none 89, cap 9, beanie 2"),
    ("mild", True): table("none 95, cap 3, beanie 1, hat 1"),
    ("winter", False): table("none 71, beanie 20, cap 6, hat 3"),
    ("winter", True): table("none 78, beanie 18, hat 4"),
}
BAGS = {
    False: table("none 84, shoulder_bag 4.5, tote 4"),
    True: table("none 62, shoulder_bag 22, tote 13"),
}
SOCKS = table("white 42, black 40, grey 8, dark grey 5, navy blue 5")
HIJAB = 0.045  # share of women with a headscarf


def _of(tables: dict, season: str, style: str, female: bool) -> Table:
    for key in (f"{style} {season}", style, season):
        if (key, female) in tables:
            return tables[key, female]
    raise ValueError(f"no table for {season}, {style}")


def sample_outfit(rng: np.random.Generator, female: bool, years: float) -> Outfit:
    """Sample the outfit of one person.

    Source: ours; frequencies of kinds and colours are set by hand after street and campus images.

    Args:
        rng: Generator of all random choices.
        female: Sex of the person.
        years: Age, which changes style, glasses and carried things.

    Returns:
        The outfit.
    """
    season = SEASON.pick(rng)
    style = STYLE.pick(rng)
    if style == "sport" and years > 62 and rng.random() < 0.6:
        style = "casual"
    modest = female and rng.random() < HIJAB
    top = sample_garment(rng, _of(TOP, season, style, female).pick(rng), season, style, female)
    kind = _of(OUTER, season, style, female).pick(rng)
    outer = sample_garment(rng, kind, season, style, female) if kind else None
    kind = None if top.kind == "dress" else _of(BOTTOM, season, style, female).pick(rng)
    if kind == "shorts" and outer and outer.kind == "coat":
        kind = "jeans"
    bottom = sample_garment(rng, kind, season, style, female) if kind else None
    if modest:
        top, bottom = covered(rng, top, bottom, season, style)
    top, outer, bottom = _matched(rng, style, top, outer, bottom)
    if bottom and cloth.loud(top.fabric) and cloth.loud(bottom.fabric) and rng.random() < 0.9:
        bottom = replace(bottom, fabric=cloth.quiet(bottom.fabric))
    feet = FEET.get(style) or FEET[season]
    shoes = sample_garment(rng, feet.pick(rng), season, style, female)
    return Outfit(
        top=top,
        outer=outer,
        bottom=bottom,
        shoes=shoes,
        headwear=_headwear(rng, season, female, modest, outer or top),
        carried=_carried(rng, season, female, years),
        socks=sample_colour(rng, SOCKS),
        glasses=sample_glasses(rng, season, years),
    )


def shared(own: Outfit, team: Outfit, rng: np.random.Generator) -> Outfit:
    """A person's version of a uniform: its top, outer garment and bottom, with own shoes and bags.

    Args:
        own: The person's own outfit.
        team: The uniform.
        rng: Generator of the differences between the pieces of the team.

    Returns:
        The outfit; `own` if its headwear does not go with the uniform.
    """
    if own.headwear and own.headwear.kind in ("hijab", "hood"):
        return own

    def worn(one: Garment | None) -> Garment | None:
        return one and replace(one, fabric=cloth.worn(rng, one.fabric))

    return replace(own, top=worn(team.top), outer=worn(team.outer), bottom=worn(team.bottom))


def sample_garment(
    rng: np.random.Generator,
    kind: str,
    season: str,
    style: str,
    female: bool,
    palette: Table | None = None,
) -> Garment:
    """Sample a garment of a kind.

    Args:
        rng: Generator of all random choices.
        kind: A name in the tuples above.
        season: A name in `SEASON`.
        style: A name in `STYLE`.
        female: Sex of the person.
        palette: Names of colours; None = those of the kind.

    Returns:
        The garment.
    """
    fabric = cloth.sample_fabric(rng, kind, style, female, palette)
    loose, length, sleeve, neckline = (
        float(low + rng.random() * (high - low)) for low, high in CUTS.get(kind, CUTS["boots"])
    )
    if kind == "shirt" and season == "summer" and rng.random() < 0.5:
        sleeve = float(rng.uniform(0.28, 0.62))  # short, or rolled up
    if kind == "dress" and season != "summer":
        sleeve = float(rng.uniform(0.6, 0.97))
    opened = rng.random() < OPEN.get(kind, 0.0)
    return Garment(
        kind=kind,
        fabric=fabric,
        loose=loose,
        length=length,
        sleeve=sleeve,
        neckline=neckline,
        open=float(rng.uniform(0.025, 0.10)) if opened else 0.0,
    )


def covered(
    rng: np.random.Generator, top: Garment, bottom: Garment | None, season: str, style: str
) -> tuple[Garment, Garment | None]:
    """A top and bottom with long sleeves and a high neckline that reach to the ankles."""
    if top.kind in ("tank", "tshirt", "polo"):
        top = sample_garment(rng, "blouse", season, style, True)
    top = replace(top, sleeve=0.96, neckline=0.0)
    if top.kind == "dress":
        return replace(top, length=float(rng.uniform(0.88, 0.98))), None
    if bottom.kind in ("shorts", "leggings"):
        bottom = sample_garment(rng, "trousers", season, style, True)
    if bottom.kind == "skirt":
        bottom = replace(bottom, length=float(rng.uniform(0.86, 0.96)))
    return replace(top, length=max(top.length, 0.6)), bottom


def _matched(
    rng: np.random.Generator,
    style: str,
    top: Garment,
    outer: Garment | None,
    bottom: Garment | None,
) -> tuple[Garment, Garment | None, Garment | None]:
    """Let some garments have the same colour, as in suits and tracksuits."""
    if bottom is None:
        return top, outer, bottom
    draw = rng.random()
    if outer and outer.kind in ("jacket", "hoodie") and bottom.kind == "trousers":
        if draw < {"smart": 0.55, "sport": 0.35, "casual": 0.03}[style]:
            one = cloth.without_prints(bottom.fabric if style == "smart" else outer.fabric)
            jacket = outer.fabric
            if style != "sport":
                jacket = replace(one, closing=outer.fabric.closing)
            return top, replace(outer, fabric=jacket), replace(bottom, fabric=one)
    elif outer is None and draw < 0.06:
        return replace(top, fabric=cloth.recoloured(rng, top.fabric, bottom.fabric)), outer, bottom
    return top, outer, bottom


def _headwear(
    rng: np.random.Generator, season: str, female: bool, modest: bool, outer: Garment
) -> Garment | None:
    if modest:
        return Garment(kind="hijab", fabric=cloth.sample_fabric(rng, "hijab", "", True))
    hooded = outer.kind in ("hoodie", "coat")
    if hooded and rng.random() < (0.13 if outer.kind == "hoodie" else 0.06):
        return Garment(kind="hood", fabric=outer.fabric, loose=outer.loose)
    kind = HEADS[season, female].pick(rng)
    if kind == "beanie" and outer.sleeve < 0.6:
        kind = "cap"
    return kind and Garment(kind=kind, fabric=cloth.sample_fabric(rng, kind, "", female))


def _carried(
    rng: np.random.Generator, season: str, female: bool, years: float
) -> tuple[Garment, ...]:
    kinds = []
    if rng.random() < (0.27 if years < 35 else 0.16):
        kinds.append("backpack")
    if (kind := BAGS[female].pick(rng)) and not (kinds and rng.random() < 0.7):
        kinds.append(kind)
    if len(kinds) < 2 and season != "summer" and rng.random() < 0.033:
        kinds.append("umbrella")
    return tuple(
        Garment(
            kind=kind, fabric=cloth.sample_fabric(rng, kind, "", female), length=float(rng.random())
        )
        for kind in kinds
    )


def sample_glasses(rng: np.random.Generator, season: str, years: float) -> str:
    """Glasses of a person of some age: "", "clear" or "dark"."""
    number = rng.random()
    dark = {"summer": 0.16, "mild": 0.06, "winter": 0.02}[season]
    if number < dark:
        return "dark"
    return "clear" if number < dark + 0.17 + 0.006 * (years - 18) else ""
