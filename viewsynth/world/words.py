# SPDX-License-Identifier: Apache-2.0
"""Descriptions of people: words, a caption and yes/no attributes.

people (identity) -> this module -> rows. All three describe only what a camera can see: clothes
under a closed coat, or hair under a headscarf, are left out.
"""

from __future__ import annotations

import numpy as np

from viewsynth.world import colours
from viewsynth.world.outfits import BOTTOMS, CARRIED, HEADWEAR, OUTERS, SHOES, TOPS, Garment
from viewsynth.world.people import Identity

NOUNS = {
    "tshirt": "T-shirt",
    "tank": "tank top",
    "polo": "polo shirt",
    "shoulder_bag": "shoulder bag",
    "tote": "tote bag",
    "hijab": "headscarf",
}
PLURAL = ("trousers", "jeans", "shorts", "leggings", "shoes", "sneakers", "boots")
PATTERNS = {
    "stripes": "striped",
    "vertical": "striped",
    "checks": "checked",
    "dots": "polka-dot",
    "floral": "floral",
    "camouflage": "camouflage",
}
# hair: (phrase with its colour, whether it is visible below a hat)
STYLES = {
    "crop": ("cropped {} hair", False),
    "short": ("short {} hair", False),
    "curly": ("curly {} hair", True),
    "afro": ("a {} afro", True),
    "bob": ("chin-length {} hair", True),
    "long": ("long {} hair", True),
    "ponytail": ("{} hair in a ponytail", True),
    "bun": ("{} hair in a bun", False),
    "fringe": ("{} hair with a fringe", True),
}
AGES = (("18-29", 30), ("30-44", 45), ("45-59", 60), ("60+", 200))
HAIR_FAMILIES = {
    "black": "black",
    "dark brown": "brown",
    "brown": "brown",
    "light brown": "brown",
    "blond": "blond",
    "red": "red",
    "dark red": "red",
    "grey": "grey",
    "white": "grey",
    "pink": "dyed",
    "blue": "dyed",
}
# female: stature of short and of tall people, metres; bulk likewise, see `people.Identity`.
HEIGHTS = {True: (1.55, 1.68), False: (1.68, 1.82)}
BULKS = {True: (19.0, 24.5), False: (21.3, 27.5)}

# group -> names. A person has at most one of a group, but for the groups of `SEVERAL`.
GROUPS = {
    "sex": ("female",),
    "age": tuple(name for name, _ in AGES),
    "height": ("short", "medium", "tall"),
    "build": ("slim", "average", "heavy"),
    "hair colour": ("hidden", "black", "brown", "blond", "red", "grey", "dyed"),
    "hair": ("bald", "short", "long", "tied", "curly"),
    "beard": ("yes",),
    "glasses": ("clear", "sunglasses"),
    "headwear": HEADWEAR,
    "top": TOPS,
    "outer": OUTERS,
    "front": ("open",),
    "sleeves": ("none", "short", "long"),
    "upper colour": colours.FAMILIES,
    "upper pattern": ("striped", "checked", "floral or dots", "camouflage", "two-tone"),
    "print": ("front", "back"),
    "bottom": BOTTOMS,
    "lower colour": colours.FAMILIES,
    "lower": ("short",),
    "shoes": SHOES,
    "shoe colour": colours.FAMILIES,
    "carried": CARRIED,
}
SEVERAL = ("upper colour", "lower colour", "print", "carried")
ATTRIBUTES = tuple(f"{group}:{name}" for group, names in GROUPS.items() for name in names)


def words(identity: Identity) -> list[str]:
    """Visible properties of a person, such as "woman", "short brown hair", "black hoodie".

    Args:
        identity: The person.

    Returns:
        One entry per property.
    """
    seen = [_sex(identity), *_adjectives(identity)]
    if hair := _hair(identity):
        seen.append(hair)
    if identity.hair.beard > 0:
        seen.append(_beard(identity))
    seen += [_thing(garment) for garment in _visible(identity)]
    seen += [f"{_noun(_outermost(identity))} with {one}" for one in _prints(_outermost(identity))]
    if identity.outfit.glasses:
        seen.append("glasses" if identity.outfit.glasses == "clear" else "sunglasses")
    return seen


def caption(identity: Identity) -> str:
    """A description of a person in one sentence.

    Args:
        identity: The person.

    Returns:
        The sentence.
    """
    outfit = identity.outfit
    features = [hair for hair in [_hair(identity)] if hair]
    if identity.hair.beard > 0:
        features.append(_beard(identity))
    if outfit.glasses:
        features.append("glasses" if outfit.glasses == "clear" else "sunglasses")
    bald = ["bald"] if _bald(identity) else []
    subject = " ".join([*bald, *_adjectives(identity), _sex(identity)])
    sentence = f"{_article(subject).capitalize()} {subject}"
    if features:
        sentence += f" with {_list([_with_article(one) for one in features])}"
    upper = _upper(identity)
    clothes = [upper] + [_described(g) for g in (outfit.bottom, outfit.shoes) if g]
    if outfit.headwear and outfit.headwear.kind != "hood":
        clothes.append(_described(outfit.headwear))
    sentence += f" wears {_list(clothes)}"
    if outfit.carried:
        sentence += f", and carries {_list([_described(one) for one in outfit.carried])}"
    return sentence + "."


def attributes(identity: Identity) -> np.ndarray:
    """Values of `ATTRIBUTES`.

    Source: the names follow the soft attributes of aerial-ground data sets, without ancestry.

    Args:
        identity: The person.

    Returns:
        1 = yes, 0 = no.  uint8 [len(ATTRIBUTES)]
    """
    outfit, upper = identity.outfit, _outermost(identity)
    yes = {"sex:female"} if identity.female else set()
    yes.add("age:" + next(name for name, end in AGES if identity.years < end))
    sleeve = max(g.sleeve for g in (outfit.top, outfit.outer) if g)
    for group, value, limits in (
        ("height", identity.stature, HEIGHTS[identity.female]),
        ("build", identity.bulk, BULKS[identity.female]),
        ("sleeves", sleeve, (0.15, 0.7)),
    ):
        yes.add(f"{group}:{_grade(value, limits, GROUPS[group])}")
    yes |= _hair_attributes(identity)
    if outfit.glasses:
        yes.add("glasses:clear" if outfit.glasses == "clear" else "glasses:sunglasses")
    visible = {garment.kind for garment in _visible(identity)}
    visible |= {outfit.headwear.kind} if outfit.headwear else set()
    for group in ("headwear", "top", "outer", "bottom", "shoes", "carried"):
        yes |= {f"{group}:{kind}" for kind in visible & set(GROUPS[group])}
    if outfit.outer and outfit.outer.open:
        yes.add("front:open")
    lower = outfit.bottom or outfit.top
    yes |= {f"upper colour:{family}" for family in _families(upper)}
    yes |= {f"lower colour:{family}" for family in _families(lower)}
    yes |= {"lower:short"} if lower.length < 0.62 else set()
    yes.add(f"shoe colour:{colours.family(outfit.shoes.fabric.colours[0])}")
    yes |= _pattern_attributes(upper)
    return np.array([name in yes for name in ATTRIBUTES], np.uint8)


def _pattern_attributes(upper: Garment) -> set[str]:
    yes = {"print:front"} if upper.fabric.front and upper.open < 0.02 else set()
    yes |= {"print:back"} if upper.fabric.back else set()
    if upper.fabric.kind in ("block", "raglan", "gradient"):
        yes.add("upper pattern:two-tone")
    match PATTERNS.get(upper.fabric.kind):
        case "floral" | "polka-dot":
            yes.add("upper pattern:floral or dots")
        case str(pattern):
            yes.add(f"upper pattern:{pattern}")
    return yes


def _hair_attributes(identity: Identity) -> set[str]:
    yes = {"beard:yes"} if identity.hair.beard >= 0.5 else set()
    if _bald(identity):
        return yes | {"hair:bald"}
    if not _hair(identity):
        return yes | {"hair colour:hidden"}
    style = {
        "long": "long",
        "ponytail": "tied",
        "bun": "tied",
        "curly": "curly",
        "afro": "curly",
    }.get(identity.hair.kind, "short")
    colour = HAIR_FAMILIES[colours.hair_name(identity.hair.colour)]
    return yes | {f"hair:{style}", f"hair colour:{colour}"}


def _grade(value: float, limits: tuple[float, float], names: tuple[str, str, str]) -> str:
    return names[(value >= limits[0]) + (value > limits[1])]


def _families(garment: Garment) -> set[str]:
    """Colour families of a garment; two if both colours cover much of it."""
    fabric = garment.fabric
    if fabric.kind == "camouflage":
        return {colours.family(fabric.colours[0]), colours.family(fabric.colours[1])}
    two = fabric.kind in ("stripes", "block", "gradient")
    return {colours.family(colour) for colour in fabric.colours[: 1 + two]}


def _outermost(identity: Identity) -> Garment:
    return identity.outfit.outer or identity.outfit.top


def _visible(identity: Identity) -> list[Garment]:
    """Visible garments from head to foot; a closed outer garment hides the top."""
    outfit = identity.outfit
    shown = outfit.outer is None or outfit.outer.open or outfit.outer.kind == "vest"
    worn = [outfit.headwear if outfit.headwear and outfit.headwear.kind != "hood" else None]
    worn += [outfit.outer, outfit.top if shown else None, outfit.bottom, outfit.shoes]
    return [garment for garment in worn if garment is not None] + list(outfit.carried)


def _upper(identity: Identity) -> str:
    outer, top = identity.outfit.outer, identity.outfit.top
    if outer is None:
        return _described(top)
    own = _described(outer, "open" if outer.open else "")
    if identity.outfit.headwear and identity.outfit.headwear.kind == "hood":
        own += " with the hood up"
    return f"{own} over {_described(top, under=True)}" if top in _visible(identity) else own


def _described(garment: Garment, adjective: str = "", under: bool = False) -> str:
    """Phrase for a garment; prints of a garment under another one are left out."""
    thing = " ".join(word for word in (adjective, _thing(garment)) if word)
    more = [] if under else _prints(garment)
    if garment.fabric.kind == "raglan" and not under:
        more.insert(0, f"{colours.name(garment.fabric.colours[1])} sleeves")
    if more:
        thing += f" with {_list(more)}"
    return thing if garment.kind in PLURAL else _with_article(thing)


def _prints(garment: Garment) -> list[str]:
    front, back = garment.fabric.front, garment.fabric.back
    if garment.kind in ("tote", "cap", "backpack"):
        return []
    ink, phrases = colours.name(garment.fabric.ink), []
    if front == "band":
        phrases.append(f"{_with_article(ink)} band across the chest")
    elif front and front == back:
        phrases.append(f"{_with_article(ink)} {front} on chest and back")
        back = ""
    elif front and garment.open < 0.02:
        phrases.append(f"{_with_article(ink)} {front} on the chest")
    if back:
        phrases.append(f"{_with_article(ink)} {back} on the back")
    return phrases


def _thing(garment: Garment) -> str:
    fabric, main = garment.fabric, colours.name(garment.fabric.colours[0])
    match fabric.kind:
        case "camouflage":
            return f"camouflage {_noun(garment)}"
        case "stripes" | "vertical" | "block" | "gradient":
            other = colours.name(fabric.colours[1])
            main = main if main == other else f"{main} and {other}"
    return " ".join(w for w in (main, PATTERNS.get(fabric.kind, ""), _noun(garment)) if w)


def _noun(garment: Garment) -> str:
    return NOUNS.get(garment.kind, garment.kind)


def _sex(identity: Identity) -> str:
    return "woman" if identity.female else "man"


def _adjectives(identity: Identity) -> list[str]:
    """Adjectives of height, build and age, unless average."""
    adjectives = []
    if (tall := _grade(identity.stature, HEIGHTS[identity.female], ("short", "", "tall"))) != "":
        adjectives.append(tall)
    if (bulk := _grade(identity.bulk, BULKS[identity.female], ("slim", "", "heavy-set"))) != "":
        adjectives.append(bulk)
    ages = ((30, "young"), (45, ""), (65, "middle-aged"), (200, "elderly"))
    if age := next(name for end, name in ages if identity.years < end):
        adjectives.append(age)
    return adjectives


def _bald(identity: Identity) -> bool:
    return identity.hair.kind == "bald" and identity.outfit.headwear is None


def _hair(identity: Identity) -> str:
    """Phrase for the visible hair, or ""."""
    head = identity.outfit.headwear.kind if identity.outfit.headwear else ""
    if identity.hair.kind == "bald" or head in ("hijab", "hood"):
        return ""
    phrase, below_hat = STYLES[identity.hair.kind]
    return phrase.format(colours.hair_name(identity.hair.colour)) if below_hat or not head else ""


def _beard(identity: Identity) -> str:
    colour = colours.hair_name(identity.hair.colour)
    return f"{colour} beard" if identity.hair.beard >= 0.5 else f"{colour} stubble"


def _article(text: str) -> str:
    return "an" if text[0].lower() in "aeio" else "a"


def _with_article(text: str) -> str:
    no_article = text.startswith(("a ", "an ")) or text.endswith(("hair", "glasses", "stubble"))
    no_article = no_article or " hair " in text
    return text if no_article else f"{_article(text)} {text}"


def _list(things: list[str]) -> str:
    """Phrases joined as "a, b and c"."""
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
