# SPDX-License-Identifier: Apache-2.0
"""Sample the fabric of a garment: colours, pattern, prints and closing by kind of garment.

colours, fabrics -> this module -> outfits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from viewsynth.world.colours import NAMED, Colour, Table, contrasting, jitter, sample_colour, table
from viewsynth.world.fabrics import Fabric

TOP = table(
    "black 21, white 17, light grey 5, grey 6, dark grey 6, navy blue 9, dark blue 4, blue 4.5, "
    "light blue 5, cream 3, beige 2.5, olive green 2, green 2, dark green 2, red 3.5, burgundy 2, "
    "pink 2.6, bright pink 0.7, purple 1, lilac 0.8, orange 1.1, yellow 1.1, mustard 1, brown 1.5, "
    "light brown 1, khaki 1, teal 1.4, light green 0.8"
)
SHIRT = table(
    "white 32, light blue 22, navy blue 9, dark blue 6, black 9, light grey 4, grey 3, pink 3, "
    "blue 3, burgundy 2, olive green 2, cream 2, green 1, teal 1, red 1"
)
OUTER = table(
    "black 33, navy blue 16, dark grey 11, grey 6, light grey 3, dark blue 4, olive green 6, "
    "beige 5, khaki 3, light brown 3, brown 3, blue 3, dark green 3, burgundy 2.5, red 2.6, "
    "white 1.5, cream 1.5, pink 1, mustard 1, orange 0.8, yellow 0.6, teal 0.8"
)
TROUSERS = table(
    "black 40, dark grey 15, navy blue 13, grey 7, beige 7, khaki 5, brown 2, olive green 4, "
    "white 2, light grey 2, dark blue 2, burgundy 0.6, cream 1, green 0.4"
)
DENIM = table(
    "dark blue 32, denim blue 33, navy blue 8, light blue 5, black 15, grey 4, dark grey 3"
)
SHORTS = table(
    "black 26, navy blue 14, dark grey 9, grey 9, beige 12, khaki 8, denim blue 11, olive green 4, "
    "white 4, blue 2, light blue 2, red 1.2, light grey 3"
)
SKIRT = table(
    "black 32, navy blue 12, dark grey 8, grey 4, denim blue 8, beige 7, white 5, burgundy 4, "
    "olive green 3, pink 3, red 3, brown 3, mustard 2, green 2, dark green 2, light blue 2"
)
DRESS = table(
    "black 22, navy blue 14, white 9, red 6, burgundy 4, blue 6, light blue 5, green 4, "
    "dark green 3, pink 5, yellow 2, mustard 2, beige 4, cream 4, grey 4, "
    "olive green 2, teal 2, purple 2, orange 2"
)
LEGGINGS = table("black 74, dark grey 12, navy blue 7, grey 4, burgundy 1, olive green 1, purple 1")
LEATHER = table("black 58, brown 18, dark brown 9, light brown 8, beige 4, navy blue 2, burgundy 1")
SNEAKERS = table(
    "white 36, black 30, grey 9, light grey 5, navy blue 5, blue 3, red 3, beige 3, pink 2, "
    "dark grey 3, bright pink 0.6, light green 0.4"
)
HAT = table("beige 22, black 24, cream 12, navy blue 10, light brown 9, grey 8, white 6, khaki 6")
CAP = table(
    "black 40, navy blue 17, white 10, grey 7, dark grey 6, red 6, beige 4, blue 4, khaki 3"
)
BEANIE = table(
    "black 38, grey 14, dark grey 12, navy blue 12, burgundy 5, mustard 4, red 3, cream 5"
)
HIJAB = table(
    "black 32, beige 13, grey 8, navy blue 8, cream 7, brown 5, light brown 4, pink 6, burgundy 5, "
    "white 4, light blue 3, olive green 3, lilac 2"
)
PACK = table(
    "black 50, navy blue 10, grey 8, dark grey 9, blue 4, red 4, olive green 4, khaki 2, brown 2, "
    "burgundy 2, green 1, pink 1.5, teal 1, yellow 0.8, orange 0.7"
)
BAG = table(
    "black 42, brown 14, light brown 12, beige 9, dark brown 5, navy blue 5, burgundy 3, grey 3, "
    "white 3, red 2, olive green 1, pink 1"
)
TOTE = table("cream 38, black 26, white 9, beige 8, navy blue 6, grey 4, red 2, green 2, yellow 1")
UMBRELLA = table("black 62, navy blue 15, red 6, grey 5, blue 4, green 3, yellow 2, pink 1")
INK = table(
    "white 34, black 16, red 9, yellow 5, light grey 8, blue 6, cream 6, orange 4, navy blue 5"
)
TRIM = table("white 55, black 20, navy blue 12, grey 8, red 8, light blue 5, cream 5, green 2")
SOLES = table("white 62, black 18, grey 6, beige 8, light brown 4")
BLOSSOM = table(
    "white 20, pink 14, red 12, yellow 8, light blue 10, lilac 8, orange 6, cream 12, green 10"
)
CAMOUFLAGE = {
    "olive green": ("khaki", "dark green", "dark brown"),
    "khaki": ("olive green", "beige", "brown"),
    "grey": ("dark grey", "light grey", "black"),
}
SAFETY = ((88, 86, 12), (93, 42, 6))  # high-visibility vests, sRGB in percent

# kind: (palette, patterns, mean of `Fabric.weave`)
KINDS: dict[str, tuple[Table, Table, float]] = {
    "tshirt": (
        TOP,
        table(
            "plain 66, heather 15, stripes 9, raglan 3.5, block 3, gradient 1.2, camouflage 1, "
            "dots 0.5"
        ),
        0.42,
    ),
    "shirt": (
        SHIRT,
        table("plain 64, checks 19, vertical 11, dots 2.5, stripes 1.5, floral 2"),
        0.70,
    ),
    "sweater": (TOP, table("knit 58, heather 18, stripes 15, block 5, gradient 2, raglan 2"), 0.30),
    "tank": (TOP, table("plain 80, heather 10, stripes 8, gradient 2"), 0.40),
    "polo": (TOP, table("plain 80, stripes 14, block 6"), 0.42),
    "blouse": (TOP, table("plain 66, dots 9, stripes 9, floral 14, checks 2"), 0.60),
    "dress": (
        DRESS,
        table("plain 52, floral 22, dots 8, stripes 10, checks 4, gradient 2, block 2"),
        0.55,
    ),
    "jacket": (OUTER, table("plain 84, block 9, checks 3, heather 2, camouflage 2"), 0.62),
    "coat": (OUTER, table("plain 90, checks 5, heather 5"), 0.48),
    "hoodie": (
        TOP,
        table("plain 68, heather 22, block 4, raglan 3, camouflage 2, gradient 1"),
        0.45,
    ),
    "vest": (OUTER, table("plain 96, heather 2, camouflage 2"), 0.35),
    "cardigan": (TOP, table("knit 84, stripes 8, heather 8"), 0.32),
    "trousers": (
        TROUSERS,
        table("plain 88, heather 6, checks 2.5, vertical 2, camouflage 1.5"),
        0.60,
    ),
    "jeans": (DENIM, table("denim 100"), 0.70),
    "shorts": (SHORTS, table("plain 86, heather 6, checks 4, camouflage 3, floral 1"), 0.50),
    "skirt": (SKIRT, table("plain 72, floral 10, checks 9, dots 4, stripes 4, vertical 1"), 0.50),
    "leggings": (LEGGINGS, table("plain 94, heather 4, camouflage 1, block 1"), 0.18),
    "shoes": (LEATHER, table("shoe 100"), 0.0),
    "sneakers": (SNEAKERS, table("shoe 100"), 0.0),
    "boots": (LEATHER, table("shoe 100"), 0.2),
    "cap": (CAP, table("plain 100"), 0.0),
    "beanie": (BEANIE, table("knit 84, stripes 16"), 0.1),
    "hat": (HAT, table("plain 100"), 0.0),
    "hijab": (HIJAB, table("plain 90, floral 6, dots 2, gradient 2"), 0.5),
    "backpack": (PACK, table("plain 84, block 14, camouflage 2"), 0.15),
    "shoulder_bag": (BAG, table("plain 100"), 0.05),
    "tote": (TOTE, table("plain 96, stripes 4"), 0.2),
    "umbrella": (UMBRELLA, table("plain 100"), 0.3),
}
# kind: prints in front and on the back
PRINTS = {
    "tshirt": (
        table("none 52, print 21, logo 20, band 4, number 3"),
        table("none 80, print 12, logo 4, number 4"),
    ),
    "hoodie": (
        table("none 48, print 18, logo 26, band 5, number 3"),
        table("none 76, print 19, logo 5"),
    ),
    "sweater": (table("none 82, print 6, logo 7, band 5"), table("none 100")),
    "tank": (table("none 74, print 15, logo 7, number 4"), table("none 90, print 4, number 6")),
    "polo": (table("none 55, logo 45"), table("none 94, logo 6")),
    "jacket": (table("none 84, logo 13, band 3"), table("none 93, logo 4, print 3")),
    "vest": (table("none 92, logo 8"), table("none 94, logo 6")),
    "tote": (table("none 50, print 40, logo 10"), table("none 100")),
    "backpack": (table("none 100"), table("none 60, logo 40")),
    "cap": (table("none 55, logo 45"), table("none 100")),
}
# pattern: range of its period, metres
PERIODS = {
    "stripes": (0.018, 0.085),
    "vertical": (0.014, 0.045),
    "checks": (0.025, 0.11),
    "camouflage": (0.07, 0.16),
    "dots": (0.022, 0.06),
    "floral": (0.035, 0.09),
}
# Most fading of a kind.
WEAR = {"jeans": 1.0, "tshirt": 0.35, "trousers": 0.3, "shorts": 0.5, "hoodie": 0.4, "jacket": 0.3}
LOUD = ("stripes", "vertical", "checks", "camouflage", "dots", "floral", "gradient")
DRAPES = ("skirt", "dress", "coat", "hijab")


def sample_fabric(
    rng: np.random.Generator,
    kind: str,
    style: str,
    female: bool,
    palette: Table | None = None,
    pattern: str = "",
) -> Fabric:
    """Sample the fabric of a garment.

    Args:
        rng: Generator of all random choices.
        kind: A key of `KINDS`.
        style: "casual", "smart", "sport", or "" if irrelevant.
        female: Sex of the person.
        palette: Names of colours; None = those of the kind, or of the style.
        pattern: One of `fabrics.KINDS`; "" = by the frequencies of the kind.

    Returns:
        The fabric.
    """
    usual, patterns, weave = KINDS[kind]
    if style == "smart" and kind in ("jacket", "tshirt", "sweater", "polo"):
        usual = TROUSERS if kind == "jacket" else SHIRT
    if kind == "trousers" and style == "sport":
        usual = LEGGINGS
    pattern = pattern or patterns.pick(rng)
    main = sample_colour(rng, palette or usual)
    if kind == "vest" and rng.random() < 0.15:
        main, pattern = jitter(rng, SAFETY[int(rng.random() < 0.4)], 0.4), "plain"
    if style == "smart" and pattern in ("camouflage", "block", "raglan", "gradient", "floral"):
        pattern = "plain" if not (female and pattern == "floral") else pattern
    low, high = PERIODS.get(pattern, (0.05, 0.05))
    front, back = _prints(rng, kind, style, pattern)
    closing = _closing(rng, kind, style)
    inked = front or back or closing in ("buttons", "belt")
    return Fabric(
        kind=pattern,
        colours=_colours(rng, kind, pattern, main),
        front=front,
        back=back,
        scale=float(low * (high / low) ** rng.random()),
        seed=int(rng.integers(1 << 30)),
        ink=contrasting(rng, INK, main, 0.28) if inked else main,
        closing=closing,
        weave=min(max(weave + 0.1 * float(rng.standard_normal()), 0.0), 1.0),
        wear=float(WEAR.get(kind, 0.1) * rng.random()),
        drape=float(kind in DRAPES),
    )


def loud(one: Fabric) -> bool:
    """Whether a fabric has a pattern that is rarely combined with another such fabric."""
    return one.kind in LOUD


def quiet(one: Fabric) -> Fabric:
    """The fabric in its main colour alone."""
    return replace(one, kind="plain", colours=one.colours[:1])


def without_prints(one: Fabric) -> Fabric:
    """The fabric as in trousers that match a jacket: without prints, with a fly."""
    kind = "plain" if one.kind in ("block", "raglan", "gradient") else one.kind
    return replace(one, kind=kind, front="", back="", closing="fly")


def recoloured(rng: np.random.Generator, one: Fabric, like: Fabric) -> Fabric:
    """A fabric with nearly the main colour of another one, and without most patterns."""
    main = jitter(rng, tuple(100 * c for c in like.colours[0]), 0.4)
    kind = one.kind if one.kind in ("heather", "knit") else "plain"
    return replace(one, kind=kind, colours=(main,), ink=contrasting(rng, INK, main, 0.28))


def _closing(rng: np.random.Generator, kind: str, style: str) -> str:
    share = rng.random()
    match kind:
        case "shirt" | "cardigan":
            return "buttons"
        case "jacket" | "coat":
            return "buttons" if style == "smart" or share < 0.3 else "zip"
        case "vest":
            return "zip"
        case "hoodie":
            return "zip" if share < 0.45 else ""
        case "jeans" | "shorts":
            return "fly"
        case "trousers":
            return "belt" if share < (0.7 if style == "smart" else 0.15) else "fly"
    return ""


def worn(rng: np.random.Generator, one: Fabric) -> Fabric:
    """The fabric after some wear: more faded and slightly different in tone."""
    colours = tuple(jitter(rng, tuple(100 * c for c in colour), 0.2) for colour in one.colours)
    return replace(one, colours=colours, wear=float(min(one.wear + 0.2 * rng.random(), 1)))


def _prints(rng: np.random.Generator, kind: str, style: str, pattern: str) -> tuple[str, str]:
    printable = pattern in ("plain", "heather", "raglan", "knit")
    if kind not in PRINTS or style == "smart" or not printable:
        return "", ""
    front, back = (prints.pick(rng) or "" for prints in PRINTS[kind])
    return front, "number" if front == "number" else back


def _colours(rng: np.random.Generator, kind: str, pattern: str, main: Colour) -> tuple[Colour, ...]:
    """The main colour, and the others that the pattern needs."""
    match pattern:
        case "shoe":
            sole = sample_colour(rng, SOLES) if kind == "sneakers" else jitter(rng, (9, 8, 8))
            if kind == "shoes" and rng.random() < 0.2:
                sole = sample_colour(rng, SOLES)
            laces = contrasting(rng, TRIM, main, 0.3) if kind == "sneakers" else main
            return main, sole, laces
        case "camouflage":
            options = tuple(CAMOUFLAGE)
            base = options[min(int(rng.random() * 4), 2) if rng.random() < 0.5 else 0]
            names = (base, *CAMOUFLAGE[base])
            return tuple(jitter(rng, NAMED[name][1], 0.7) for name in names)
        case "floral":
            first = contrasting(rng, BLOSSOM, main, 0.25)
            return main, first, contrasting(rng, BLOSSOM, main, 0.2), sample_colour(rng, BLOSSOM)
        case "checks":
            other = contrasting(rng, TRIM, main, 0.15)
            return main, other, contrasting(rng, TRIM, main, 0.2)
        case "vertical" if kind in ("trousers", "skirt"):  # pinstripes
            return main, tuple(0.7 * value + 0.17 for value in main)
        case "gradient" | "block" | "raglan" | "stripes" | "vertical" | "dots":
            palette = TOP if pattern in ("block", "raglan") and rng.random() < 0.6 else TRIM
            return main, contrasting(rng, palette, main, 0.12 if pattern == "vertical" else 0.2)
    return (main,)
