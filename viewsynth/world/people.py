# SPDX-License-Identifier: Apache-2.0
"""Identities of the world's people: age, build, skin, hair and outfit.

this module, with outfits and cloth -> words (descriptions), garments and hair (geometry) -> shots.
All people are adults and clothed. A person depends on (seed, number) alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viewsynth.records import seed_of
from viewsynth.world import outfits, revisions, wardrobe
from viewsynth.world.colours import HAIR, Colour, jitter, table
from viewsynth.world.outfits import Outfit

HAIRS = ("bald", "crop", "short", "curly", "afro", "bob", "long", "ponytail", "bun", "fringe")
# Local changes of the shape, each in [-1, 1], for what the phenotype does not cover.
LOCAL = (
    *("stomach", "hips", "shoulders", "chest_depth", "thighs", "shanks", "upper_arms"),
    *("forearms", "neck", "head", "buttocks", "torso_length", "leg_length"),
)
ANCESTRY = ("african", "asian", "caucasian")  # Anny's names; a person is a mixture of them
YOUNG, OLD = 2 / 3, 1.0  # Anny's age at 25 and at 90 years

# Statures of Anny at height 0.5 by female, metres (measured; a test repeats it): rows young and
# old, columns `ANCESTRY`. Stature is linear in the phenotypes; weight and muscle do not change it.
_STATURE = {
    False: np.array([[2.0010, 1.8110, 1.9316], [1.9655, 1.7774, 1.8979]]),
    True: np.array([[1.8529, 1.6758, 1.7883], [1.8373, 1.6744, 1.7821]]),
}
_PER_HEIGHT = 1.0911  # metres of stature per unit of the height phenotype
# Bulk of Anny by female, see `Identity`: rows weight 0, 0.5, 1; columns muscle 0, 0.5, 1.
_BULK = {
    False: np.array([[15.0, 20.5, 19.3], [25.1, 22.5, 21.2], [41.3, 24.6, 32.0]]),
    True: np.array([[12.8, 16.6, 16.8], [21.4, 19.6, 19.2], [33.6, 22.2, 24.3]]),
}
# Mean stature by female and ancestry, and standard deviation, metres.
_TALL = {False: np.array([1.755, 1.715, 1.775]), True: np.array([1.625, 1.590, 1.640])}
_SPREAD = {False: 0.066, True: 0.061}
_LEAN = {False: 24.0, True: 21.4}  # mean bulk at 40 years; Anny's women have less volume

# Skin from light to dark, sRGB in percent at melanin 0, 0.25, 0.5, 0.75, 1.
_MELANIN = (0.0, 0.25, 0.5, 0.75, 1.0)
_SKIN = np.array([[91, 76, 68], [81, 62, 51], [66, 47, 36], [46, 31, 23], [28, 19, 15]]) / 100

_NATURAL = {
    "african": table("black 88, dark brown 12"),
    "asian": table("black 80, dark brown 20"),
    "caucasian": table("black 12, dark brown 32, brown 26, light brown 14, blond 13, red 3"),
}
_DYED = table("light brown 26, blond 30, red 14, dark brown 12, dark red 12, pink 3, blue 3")
_CUTS = {
    "men": table("crop 40, short 46, curly 6, fringe 4, long 2, ponytail 1, bun 1"),
    "african men": table("crop 76, afro 8, short 10, curly 4, bun 2"),
    "women": table("long 35, ponytail 21, bob 17, bun 11, fringe 7, short 5, curly 4"),
    "older women": table("bob 30, short 40, long 9, bun 9, curly 6, fringe 3, ponytail 3"),
    "african women": table("afro 18, bun 22, curly 18, crop 10, ponytail 14, long 12, bob 6"),
}
_EYES = {"dark": (18, 12, 9), "blue": (38, 48, 58), "green": (36, 40, 30), "hazel": (34, 24, 14)}
_LIGHT_EYES = table("dark 38, hazel 22, blue 28, green 12")


@dataclass(frozen=True, kw_only=True)
class Hair:
    """Hair of head and face.

    Args:
        kind: One of `HAIRS`.
        colour: sRGB in [0, 1].
        length: 0 = shortest, 1 = longest of its kind.
        volume: 0 to 1.
        beard: 0 (none) to 1 (full).
    """

    kind: str
    colour: Colour
    length: float = 0.5
    volume: float = 0.5
    beard: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person.

    Args:
        number: Number of the person in the population of a seed.
        pid: The number as text, four digits or more.
        female: Sex.
        years: Age, 18 to 88.
        stature: Height of the standing body without shoes and local changes, metres.
        bulk: Mass of the body's volume at 1000 kg/m3 over the square of the stature, kg/m2.
        phenotype: Values by name of `AnnyBody.shapes`.
        local: Values in [-1, 1] by name of `LOCAL`.
        scale: Uniform scale in addition to the phenotype, about 1.
        skin, lips, eyes: sRGB in [0, 1].
        hair: Hair of head and face.
        outfit: Everything that the person wears and carries.
    """

    number: int
    pid: str
    female: bool
    years: float
    stature: float
    bulk: float
    phenotype: dict[str, float]
    local: dict[str, float]
    scale: float
    skin: Colour
    lips: Colour
    eyes: Colour
    hair: Hair
    outfit: Outfit


def identity(seed: int, number: int, revision: int = revisions.NEWEST) -> Identity:
    """Sample a person of the population of a seed.

    Source: ours. Distributions are set by hand after published statistics of adults (stature, age,
    greying) and after street images (clothes); no real person is copied.

    Args:
        seed: Seed of the population.
        number: Number of the person.
        revision: Of the world; it changes the clothes.

    Returns:
        The person.
    """
    rng = np.random.default_rng(seed_of(seed, "identity", number))
    female = bool(rng.random() < 0.5)
    years = 18 + 70 * float(rng.beta(1.15, 2.1))
    mixture = _mixture(rng)
    scale = float(np.clip(rng.normal(1, 0.012), 0.97, 1.03))
    stature = _stature(rng, female, years, mixture)
    bulk = _bulk(rng, female, years)
    melanin = float(np.clip(rng.normal(mixture @ [0.76, 0.37, 0.17], 0.11), 0.0, 1.0))
    skin, lips = _skin(rng, melanin)
    return Identity(
        number=number,
        pid=f"{number:04d}",
        female=female,
        years=years,
        stature=stature,
        bulk=bulk,
        phenotype=_phenotype(rng, female, years, mixture, stature / scale, bulk),
        local=_local(rng, years, bulk - _LEAN[female]),
        scale=scale,
        skin=skin,
        lips=lips,
        eyes=jitter(rng, _EYES[_LIGHT_EYES.pick(rng) if melanin < 0.3 else "dark"], 0.5),
        hair=_hair(rng, female, years, ANCESTRY[int(mixture.argmax())]),
        outfit=_outfit(seed, number, female, years, revision),
    )


def _outfit(seed: int, number: int, female: bool, years: float, revision: int) -> Outfit:
    """An individual outfit, or for a few people a uniform that others wear too."""
    rng = np.random.default_rng(seed_of(seed, "outfit", number))
    numbers = revisions.of(revision)
    sample = outfits.sample_outfit if revision == 1 else wardrobe.sample_outfit
    own = sample(rng, female, years)
    if rng.random() > numbers.alike:
        return own
    team = int(rng.integers(numbers.teams))
    team_rng = np.random.default_rng(seed_of(seed, "uniform", team, int(female)))
    return outfits.shared(own, sample(team_rng, female, years=30), rng)


def _mixture(rng: np.random.Generator) -> np.ndarray:
    """Shares of `ANCESTRY`, mostly one of them, [3]."""
    main = np.array([0.25, 0.55, 1.0]).searchsorted(rng.random())
    share = rng.standard_gamma(np.where(np.arange(3) == main, 5.0, 0.35))
    return share / share.sum()


def _stature(rng: np.random.Generator, female: bool, years: float, mixture: np.ndarray) -> float:
    """Stature, metres; older people are smaller."""
    mean = _TALL[female] @ mixture + 0.012 - 0.0006 * (years - 18) - 0.0009 * max(0, years - 60)
    return float(mean + _SPREAD[female] * np.clip(rng.standard_normal(), -2.7, 2.7))


def _bulk(rng: np.random.Generator, female: bool, years: float) -> float:
    """Bulk, kg/m2: a skewed distribution whose mean rises with age up to about 60."""
    mean = _LEAN[female] - 0.9 + 0.055 * (min(years, 60) - 40) - 0.04 * max(0, years - 70)
    return float(mean * np.exp(np.clip(rng.gamma(4, 0.075) - 0.262, -0.24, 0.42)))


def _phenotype(
    rng: np.random.Generator,
    female: bool,
    years: float,
    mixture: np.ndarray,
    stature: float,
    bulk: float,
) -> dict[str, float]:
    """Phenotype of Anny for which the body has this stature and bulk."""
    age = YOUNG + (OLD - YOUNG) * max(0.0, years - 25) / 65
    excess = (bulk - _LEAN[female]) / 4
    muscle = rng.normal(0.40 - 0.1 * max(excess, 0) - 0.0015 * (years - 40), 0.1)
    # Anny has no target for old, heavy and muscular: above 0.5 the stature would be wrong.
    muscle = float(np.clip(muscle, 0.08, 0.5 if years > 25 else 0.75))
    low, mid, high = _BULK[female]
    if bulk > mid[1]:  # more muscle narrows the range of bulk that weight can reach
        muscle = min(muscle, float(np.interp(-bulk, -high[:2], [0.03, 0.5]) - 0.03))
    else:
        muscle = min(muscle, float(np.interp(bulk, low[:2], [0.0, 0.5])))
    column = [np.interp(muscle, [0, 0.5, 1], row) for row in (low, mid, high)]
    weight = float(np.interp(bulk, column, [0.0, 0.5, 1.0]))
    sex = min(abs(float(rng.normal(0, 0.1))), 0.3)  # 0 = male, 1 = female

    def by_age(rows: np.ndarray) -> float:
        return np.interp(age, [YOUNG, OLD], rows @ mixture)

    base = (1 - sex) * by_age(_STATURE[female]) + sex * by_age(_STATURE[not female])
    cup = rng.normal(0.42 + 0.08 * excess, 0.18) if female else 0.5
    firm = 0.6 - 0.35 * (age - YOUNG) / (OLD - YOUNG)
    return {
        "gender": 1 - sex if female else sex,
        "age": float(age),
        "muscle": muscle,
        "weight": weight,
        "height": float(0.5 + (stature - base) / _PER_HEIGHT),
        "proportions": float(np.clip(rng.normal(0.5, 0.15), 0.1, 0.9)),
        "cupsize": float(np.clip(cup, 0.05, 0.9)),
        "firmness": float(np.clip(rng.normal(firm, 0.12), 0, 1)),
        **dict(zip(ANCESTRY, mixture.tolist(), strict=True)),
    }


def _local(rng: np.random.Generator, years: float, excess: float) -> dict[str, float]:
    """Values of `LOCAL`: independent, except for parts that grow with age and bulk."""
    values = dict(zip(LOCAL, rng.normal(0, 0.33, len(LOCAL)).tolist(), strict=True))
    values["stomach"] += 0.10 * excess + 0.008 * (years - 42)
    for name in ("hips", "thighs", "upper_arms", "neck", "head"):
        values[name] += 0.05 * excess
    return {name: min(max(value, -1.0), 1.0) for name, value in values.items()}


def _skin(rng: np.random.Generator, melanin: float) -> tuple[Colour, Colour]:
    """Colours of skin and lips."""
    base = np.array([np.interp(melanin, _MELANIN, column) for column in _SKIN.T])
    pink, light = rng.normal(0, 0.018), rng.normal(1, 0.03)
    skin = np.clip(base * light * [1 + 0.4 * pink, 1 - pink, 1 - 1.4 * pink], 0.08, 0.95)
    lips = skin * [0.86, 0.62, 0.64]
    return tuple(skin.tolist()), tuple(lips.tolist())


def _hair(rng: np.random.Generator, female: bool, years: float, ancestry: str) -> Hair:
    name = _NATURAL[ancestry].pick(rng)
    grey = 1 / (1 + np.exp(-(years - 54 - 9 * rng.standard_normal()) / 4.5))
    dyed = female and rng.random() < (0.12 if years < 40 else 0.5)
    if dyed and ancestry == "african" and rng.random() < 0.6:
        dyed = False
    if dyed:
        name, grey = _DYED.pick(rng), 0.0
    own = np.array(jitter(rng, HAIR[name], 0.7))
    grey_name = "white" if years > 68 and rng.random() < 0.6 else "grey"
    silver = np.array(jitter(rng, HAIR[grey_name], 0.5))
    colour = own + (silver - own) * grey
    return Hair(
        kind=_cut(rng, female, years, ancestry),
        colour=tuple(colour.tolist()),
        length=float(rng.random()),
        volume=float(rng.beta(2.5, 2.5)),
        beard=0.0 if female else _beard(rng, years),
    )


def _cut(rng: np.random.Generator, female: bool, years: float, ancestry: str) -> str:
    if not female:
        shaved = {"african": 0.16, "asian": 0.03, "caucasian": 0.05}[ancestry]
        bald = np.interp(years, [25, 40, 60, 85], [0.0, 0.08, 0.24, 0.38])
        if rng.random() < shaved + bald:
            return "bald"
    group = "women" if female else "men"
    if ancestry == "african":
        group = f"african {group}"
    elif female and rng.random() < np.interp(years, [45, 65], [0, 0.9]):
        group = "older women"
    return _CUTS[group].pick(rng)


def _beard(rng: np.random.Generator, years: float) -> float:
    """Beard of a man: none for half of them, stubble for a third of the others."""
    number = rng.random()
    if number < 0.52 or (years < 21 and number < 0.75):
        return 0.0
    return float(rng.uniform(0.15, 0.4) if number < 0.72 else rng.uniform(0.5, 1.0))
