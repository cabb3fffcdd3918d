# SPDX-License-Identifier: Apache-2.0
"""Who the people of our world are: adults, clothed, all different, and said in the right words."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from viewsynth import bodies, metrics
from viewsynth.world import cloth, colours, fabrics, outfits, people, words

COUNT = 3_000  # 4.5 million pairs
JND = 2.3  # a just noticeable difference of colours, in L*a*b*


@pytest.fixture(scope="module")
def crowd():
    return [people.identity(0, number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def body():
    return bodies.load("anny")


def garments_of(who):
    outfit = who.outfit
    worn = (outfit.top, outfit.outer, outfit.bottom, outfit.shoes, outfit.headwear)
    return [garment for garment in (*worn, *outfit.carried) if garment]


def test_a_person_is_a_function_of_seed_and_number(crowd):
    assert people.identity(0, 7) == crowd[7]
    assert people.identity(1, 7) != crowd[7]
    assert (crowd[7].pid, people.identity(0, 12345).pid) == ("0007", "12345")


def test_values_stay_in_their_ranges(crowd, body):
    for who in crowd:
        assert set(who.phenotype) == set(body.shapes) and set(who.local) == set(people.LOCAL)
        assert 2 / 3 - 1e-9 <= who.phenotype["age"] <= 1 and 18 <= who.years <= 88  # adults only
        assert all(0 <= value <= 1 for value in who.phenotype.values())
        assert all(-1 <= value <= 1 for value in who.local.values())
        assert who.hair.kind in people.HAIRS and not (who.female and who.hair.beard)
        for colour in (who.skin, who.lips, who.eyes, who.hair.colour, who.outfit.socks):
            assert all(0 <= value <= 1 for value in colour)


def test_everyone_is_clothed(crowd):
    for who in crowd:
        outfit = who.outfit
        assert outfit.top.kind in outfits.TOPS and outfit.top.length >= 0.38
        assert (outfit.bottom is None) == (outfit.top.kind == "dress")
        lower = outfit.bottom or outfit.top
        assert lower.kind == "dress" or lower.kind in outfits.BOTTOMS
        assert lower.length >= (0.33 if lower.kind == "shorts" else 0.38)
        for garment in garments_of(who):
            assert garment.neckline <= 0.12 and 0 <= garment.loose <= 0.05
            assert 0 <= garment.open <= 0.12 and garment.fabric.kind in fabrics.KINDS
        assert not outfit.top.open  # only what is worn over something stands open
        head = outfit.headwear.kind if outfit.headwear else ""
        if head == "hijab":
            long = lower.kind in ("trousers", "jeans") or lower.length > 0.85
            assert who.female and outfit.top.sleeve > 0.9 and outfit.top.neckline == 0 and long
        if head == "hood":
            assert outfit.outer.kind in ("hoodie", "coat")


def test_seasons_are_not_mixed(crowd):
    for who in crowd:
        outfit = who.outfit
        if outfit.outer and outfit.outer.kind == "coat":
            assert outfit.outer.sleeve > 0.9 and (
                not outfit.bottom or outfit.bottom.kind != "shorts"
            )
        if outfit.top.kind == "tank" and outfit.headwear:
            assert outfit.headwear.kind != "beanie" or outfit.outer


def test_bodies_have_the_stature_that_was_drawn(crowd, body):
    old = max(crowd, key=lambda who: who.phenotype["age"] * who.phenotype["weight"])
    chosen = [old, *crowd[:11]]
    shape = torch.tensor([[who.phenotype[name] for name in body.shapes] for who in chosen])
    y = body.vertices(shape.float(), torch.zeros(1, len(body.bones), 3))[..., 1]
    measured = (y.amax(1) - y.amin(1)).numpy() * [who.scale for who in chosen]
    np.testing.assert_allclose(measured, [who.stature for who in chosen], atol=0.006)


@pytest.mark.parametrize("female, mean", [(False, 1.75), (True, 1.62)])
def test_statures_and_builds_are_those_of_a_population(crowd, female, mean):
    group = [who for who in crowd if who.female == female]
    assert 0.48 < len(group) / COUNT < 0.52
    tall = np.array([who.stature for who in group])
    years, bulk = (np.array([getattr(who, key) for who in group]) for key in ("years", "bulk"))
    assert abs(tall.mean() - mean) < 0.015 and 0.055 < tall.std() < 0.08
    assert np.corrcoef(years, bulk)[0, 1] > 0.15 and np.corrcoef(years, tall)[0, 1] < -0.1
    assert (years < 30).mean() > 0.2 and (years > 65).mean() > 0.05
    values = {key: [who.phenotype[key] for who in group] for key in ("weight", "muscle")}
    assert np.corrcoef(values["weight"], bulk)[0, 1] > 0.7
    assert np.corrcoef(values["muscle"], bulk)[0, 1] < -0.1
    skins = metrics.lab(255 * np.array([who.skin for who in group]))[:, 0]
    dark = np.array([who.phenotype["african"] for who in group])
    assert -0.95 < np.corrcoef(skins, dark)[0, 1] < -0.5  # related, not determined
    grey = [colours.hair_name(who.hair.colour) in ("grey", "white") for who in group]
    assert np.mean(np.array(grey)[years > 70]) > 0.4 > 0.1 > np.mean(np.array(grey)[years < 40])


def looks(who):
    """What must be equal for two people to be mixed up, and colours in units of a JND."""
    outfit = who.outfit
    shown = [g for g in words._visible(who) if g.kind != "umbrella"]
    kinds = tuple((g.kind, g.fabric.kind, g.fabric.front, g.fabric.back) for g in shown)
    lengths = [round(g.length, 1) for g in shown[:3]]
    key = (who.female, who.hair.kind, outfit.glasses, kinds)
    tints = metrics.lab(
        255 * np.array([who.skin, who.hair.colour, *(g.fabric.colours[0] for g in shown)])
    )
    build = [who.stature / 0.02, who.bulk / 1.0, *(10 * np.array(lengths))]
    return key, np.concatenate([tints.ravel() / JND, build])


def test_people_are_distinguishable(crowd):
    groups = collections.defaultdict(list)
    for who in crowd:
        key, values = looks(who)
        groups[key].append(values)
    nearest = [
        cKDTree(np.array(rows)).query(rows, 2, p=np.inf)[0][:, 1]
        for rows in groups.values()
        if len(rows) > 1
    ]
    # Nobody is within a just noticeable difference of anybody in every colour and in build.
    assert np.concatenate(nearest).min() > 1


def test_some_people_look_alike(crowd):
    def roughly(who):
        worn = [who.outfit.outer or who.outfit.top, who.outfit.bottom]
        kinds = [(g.kind, colours.family(g.fabric.colours[0])) for g in worn if g]
        bags = [g.kind for g in who.outfit.carried]
        return who.female, words._hair(who), tuple(kinds), tuple(bags)

    seen = collections.Counter(roughly(who) for who in crowd)
    alike = np.mean([seen[roughly(who)] > 1 for who in crowd])
    assert 0.1 < alike < 0.6


def entropy(things):
    share = np.array(list(collections.Counter(things).values())) / len(things)
    return float(np.exp(-(share * np.log(share)).sum()))


def test_outfits_are_diverse(crowd):
    outer = [who.outfit.outer or who.outfit.top for who in crowd]
    lower = [who.outfit.bottom or who.outfit.top for who in crowd]
    assert entropy([g.kind for g in outer]) > 8
    assert entropy([g.kind for g in lower]) > 4
    assert entropy([colours.name(g.fabric.colours[0]) for g in outer]) > 13
    both = [
        (g.kind, colours.family(g.fabric.colours[0]))
        + (h.kind, colours.family(h.fabric.colours[0]))
        for g, h in zip(outer, lower, strict=True)
    ]
    assert entropy(both) > 400
    plain = [g.fabric.kind in ("plain", "knit", "heather") for g in outer]
    assert 0.6 < np.mean(plain) < 0.9


def test_colours_are_worn_as_often_as_in_the_street(crowd):
    outer = [
        colours.family((who.outfit.outer or who.outfit.top).fabric.colours[0]) for who in crowd
    ]
    share = {key: count / COUNT for key, count in collections.Counter(outer).items()}
    assert sum(share[name] for name in ("black", "grey", "white", "blue")) > 0.55
    assert set(share) == set(colours.FAMILIES) and min(share.values()) > 0.004
    lower = [who.outfit.bottom.fabric.colours[0] for who in crowd if who.outfit.bottom]
    assert np.mean(metrics.lab(255 * np.array(lower))[:, 0] < 45) > 0.65
    kinds = collections.Counter(g.kind for who in crowd for g in who.outfit.carried)
    for kind, about in (("backpack", 0.2), ("shoulder_bag", 0.12), ("tote", 0.08)):
        assert 0.65 * about < kinds[kind] / COUNT < 1.35 * about, kind
    assert 0.01 < kinds["umbrella"] / COUNT < 0.03


def test_every_kind_is_worn(crowd):
    kinds = {garment.kind for who in crowd for garment in garments_of(who)}
    assert kinds == {
        *outfits.TOPS,
        *outfits.OUTERS,
        *outfits.BOTTOMS,
        *outfits.SHOES,
        *outfits.HEADWEAR,
        *outfits.CARRIED,
    }
    assert {who.hair.kind for who in crowd} == set(people.HAIRS)
    worn = [garment.fabric for who in crowd for garment in garments_of(who)]
    assert {one.kind for one in worn} == set(fabrics.KINDS)
    assert {one.closing for one in worn} == set(fabrics.CLOSINGS)
    assert {side for one in worn for side in (one.front, one.back)} == set(fabrics.PRINTS)
    patterns = {p for _, table, _ in cloth.KINDS.values() for p in table.things}
    assert patterns == set(fabrics.KINDS)


def test_names_are_read_back_from_colours():
    for name, (_, percent) in colours.NAMED.items():
        assert colours.name(tuple(np.array(percent) / 100)) == name.replace("denim ", "")
    rng = np.random.default_rng(0)
    drawn = [colours.family(colours.jitter(rng, colours.NAMED["red"][1])) for _ in range(200)]
    assert drawn.count("red") > 170


def test_captions_say_what_is_seen(crowd):
    for who in crowd[:500]:
        caption, said = words.caption(who), words.words(who)
        assert caption.startswith(("A ", "An ")) and caption.endswith(".")
        for wrong in (" a a", " a o", "  ", "None", " and and ", " a trousers", " a jeans", ",,"):
            assert wrong not in caption, caption
        assert all(isinstance(word, str) and word for word in said)
        assert ("woman" in said) == who.female and (" woman " in caption) == who.female
        bottom = who.outfit.bottom
        if bottom and bottom.fabric.kind != "camouflage":
            assert colours.name(bottom.fabric.colours[0]) in caption
        outer = who.outfit.outer
        if outer and not outer.open and outer.kind != "vest":
            assert " over a" not in caption  # a closed coat hides the top
        if who.outfit.headwear and who.outfit.headwear.kind == "hijab":
            assert "hair" not in caption and "headscarf" in caption


def test_the_caption_of_a_known_person(crowd):
    def plain(kind, name, **more):
        percent = colours.NAMED[name][1]
        fabric = fabrics.Fabric(colours=(tuple(value / 100 for value in percent),))
        return outfits.Garment(kind=kind, fabric=fabric, **more)

    outfit = outfits.Outfit(
        top=plain("tshirt", "white"),
        outer=plain("jacket", "red", open=0.05, sleeve=1.0),
        bottom=plain("jeans", "dark blue", length=1.0),
        shoes=plain("sneakers", "white"),
        headwear=None,
        carried=(plain("backpack", "black"),),
        socks=(0.5,) * 3,
        glasses="",
    )
    hair = people.Hair(kind="long", colour=(0.1, 0.09, 0.08))
    who = dataclasses.replace(
        crowd[0], female=True, years=24, stature=1.62, bulk=21, hair=hair, outfit=outfit
    )
    assert words.caption(who) == (
        "A young woman with long black hair wears an open red jacket over a white T-shirt, "
        "dark blue jeans and white sneakers, and carries a black backpack."
    )
    yes = {n for n, a in zip(words.ATTRIBUTES, words.attributes(who), strict=True) if a}
    assert yes == {
        "female",
        "age 18-29",
        "medium height",
        "average build",
        "hair black",
        "long hair",
        "jacket",
        "tshirt",
        "open outer",
        "long sleeves",
        "upper red",
        "jeans",
        "lower blue",
        "sneakers",
        "feet white",
        "backpack",
    }


def test_attributes_are_answers(crowd):
    table = np.array([words.attributes(who) for who in crowd[:1500]])
    assert table.dtype == np.uint8 and table.shape[1] == len(words.ATTRIBUTES)
    assert len(set(words.ATTRIBUTES)) == len(words.ATTRIBUTES)
    column = {name: table[:, k] for k, name in enumerate(words.ATTRIBUTES)}
    assert (sum(v for n, v in column.items() if n.startswith("age ")) == 1).all()
    assert (column["short"] + column["medium height"] + column["tall"] == 1).all()
    for part in ("upper", "lower", "feet"):
        found = sum(column[f"{part} {family}"] for family in colours.FAMILIES)
        assert ((found >= 1) & (found <= 2)).all()
    answered = [name for name, values in column.items() if values.any()]
    assert len(answered) > len(words.ATTRIBUTES) - 4
