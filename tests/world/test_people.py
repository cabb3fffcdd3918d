# SPDX-License-Identifier: Apache-2.0
"""Identities of the world's people: adults, clothed, distinguishable, correctly described."""

import collections
import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from viewsynth import bodies, metrics
from viewsynth.world import cloth, colours, fabrics, outfits, people, words

COUNT = 3_000  # 4.5 million pairs
JND = 2.3  # just noticeable difference of colours in L*a*b*


@pytest.fixture(scope="module")
def crowd():
    return [people.identity(0, number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def body():
    return bodies.load("anny")


def garments_of(person):
    outfit = person.outfit
    worn = (outfit.top, outfit.outer, outfit.bottom, outfit.shoes, outfit.headwear)
    return [garment for garment in (*worn, *outfit.carried) if garment]


def test_a_person_is_a_function_of_seed_and_number(crowd):
    assert people.identity(0, 7) == crowd[7]
    assert people.identity(1, 7) != crowd[7]
    assert (crowd[7].pid, people.identity(0, 12345).pid) == ("0007", "12345")


def test_values_stay_in_their_ranges(crowd, body):
    for person in crowd:
        assert set(person.phenotype) == set(body.shapes) and set(person.local) == set(people.LOCAL)
        assert (
            2 / 3 - 1e-9 <= person.phenotype["age"] <= 1 and 18 <= person.years <= 88
        )  # adults only
        assert all(0 <= value <= 1 for value in person.phenotype.values())
        assert all(-1 <= value <= 1 for value in person.local.values())
        assert person.hair.kind in people.HAIRS and not (person.female and person.hair.beard)
        for colour in (
            person.skin,
            person.lips,
            person.eyes,
            person.hair.colour,
            person.outfit.socks,
        ):
            assert all(0 <= value <= 1 for value in colour)


def test_everyone_is_clothed(crowd):
    for person in crowd:
        outfit = person.outfit
        assert outfit.top.kind in outfits.TOPS and outfit.top.length >= 0.38
        assert (outfit.bottom is None) == (outfit.top.kind == "dress")
        lower = outfit.bottom or outfit.top
        assert lower.kind == "dress" or lower.kind in outfits.BOTTOMS
        assert lower.length >= (0.33 if lower.kind == "shorts" else 0.38)
        for garment in garments_of(person):
            assert garment.neckline <= 0.12 and 0 <= garment.loose <= 0.05
            assert 0 <= garment.open <= 0.12 and garment.fabric.kind in fabrics.KINDS
        assert not outfit.top.open  # only outer garments are open
        head = outfit.headwear.kind if outfit.headwear else ""
        if head == "hijab":
            long = lower.kind in ("trousers", "jeans") or lower.length > 0.85
            assert person.female and outfit.top.sleeve > 0.9 and outfit.top.neckline == 0 and long
        if head == "hood":
            assert outfit.outer.kind in ("hoodie", "coat", "jacket")


def test_seasons_are_not_mixed(crowd):
    for person in crowd:
        outfit = person.outfit
        if outfit.outer and outfit.outer.kind == "coat":
            assert outfit.outer.sleeve > 0.9 and (
                not outfit.bottom or outfit.bottom.kind != "shorts"
            )
        if outfit.top.kind == "tank" and outfit.headwear:
            assert outfit.headwear.kind != "beanie" or outfit.outer


def test_bodies_have_the_sampled_stature(crowd, body):
    old = max(crowd, key=lambda person: person.phenotype["age"] * person.phenotype["weight"])
    chosen = [old, *crowd[:11]]
    shape = torch.tensor([[person.phenotype[name] for name in body.shapes] for person in chosen])
    y = body.vertices(shape.float(), torch.zeros(1, len(body.bones), 3))[..., 1]
    measured = (y.amax(1) - y.amin(1)).numpy() * [person.scale for person in chosen]
    np.testing.assert_allclose(measured, [person.stature for person in chosen], atol=0.006)


@pytest.mark.parametrize("female, mean", [(False, 1.75), (True, 1.62)])
def test_statures_and_builds_are_those_of_a_population(crowd, female, mean):
    group = [person for person in crowd if person.female == female]
    assert 0.48 < len(group) / COUNT < 0.52
    tall = np.array([person.stature for person in group])
    years, bulk = (
        np.array([getattr(person, key) for person in group]) for key in ("years", "bulk")
    )
    assert abs(tall.mean() - mean) < 0.015 and 0.055 < tall.std() < 0.08
    assert np.corrcoef(years, bulk)[0, 1] > 0.15 and np.corrcoef(years, tall)[0, 1] < -0.1
    assert (years < 30).mean() > 0.2 and (years > 65).mean() > 0.05
    values = {key: [person.phenotype[key] for person in group] for key in ("weight", "muscle")}
    assert np.corrcoef(values["weight"], bulk)[0, 1] > 0.7
    assert np.corrcoef(values["muscle"], bulk)[0, 1] < -0.1
    skins = metrics.lab(255 * np.array([person.skin for person in group]))[:, 0]
    dark = np.array([person.phenotype["african"] for person in group])
    assert -0.95 < np.corrcoef(skins, dark)[0, 1] < -0.5  # related, not determined
    grey = [colours.hair_name(person.hair.colour) in ("grey", "white") for person in group]
    assert np.mean(np.array(grey)[years > 70]) > 0.4 > 0.1 > np.mean(np.array(grey)[years < 40])


def looks(person):
    """Categories of a person's appearance, and colours and build in units of a JND."""
    outfit = person.outfit
    shown = [g for g in words._visible(person) if g.kind != "umbrella"]
    kinds = tuple((g.kind, g.fabric.kind, g.fabric.front, g.fabric.back) for g in shown)
    lengths = [round(g.length, 1) for g in shown[:3]]
    key = (person.female, person.hair.kind, outfit.glasses, kinds)
    tints = metrics.lab(
        255 * np.array([person.skin, person.hair.colour, *(g.fabric.colours[0] for g in shown)])
    )
    build = [person.stature / 0.02, person.bulk / 1.0, *(10 * np.array(lengths))]
    return key, np.concatenate([tints.ravel() / JND, build])


def test_people_are_distinguishable(crowd):
    groups = collections.defaultdict(list)
    for person in crowd:
        key, values = looks(person)
        groups[key].append(values)
    nearest = [
        cKDTree(np.array(rows)).query(rows, 2, p=np.inf)[0][:, 1]
        for rows in groups.values()
        if len(rows) > 1
    ]
    # Any two people differ by more than a JND in at least one colour or in build.
    assert np.concatenate(nearest).min() > 1


def test_some_people_look_alike(crowd):
    def coarse(person):
        worn = [person.outfit.outer or person.outfit.top, person.outfit.bottom]
        kinds = [(g.kind, colours.family(g.fabric.colours[0])) for g in worn if g]
        bags = [g.kind for g in person.outfit.carried]
        return person.female, words._hair(person), tuple(kinds), tuple(bags)

    seen = collections.Counter(coarse(person) for person in crowd)
    alike = np.mean([seen[coarse(person)] > 1 for person in crowd])
    assert 0.1 < alike < 0.6


def entropy(things):
    share = np.array(list(collections.Counter(things).values())) / len(things)
    return float(np.exp(-(share * np.log(share)).sum()))


def test_outfits_are_diverse(crowd):
    outer = [person.outfit.outer or person.outfit.top for person in crowd]
    lower = [person.outfit.bottom or person.outfit.top for person in crowd]
    assert entropy([g.kind for g in outer]) > 7
    assert entropy([g.kind for g in lower]) > 4
    assert entropy([colours.name(g.fabric.colours[0]) for g in outer]) > 11
    both = [
        (g.kind, colours.family(g.fabric.colours[0]))
        + (h.kind, colours.family(h.fabric.colours[0]))
        for g, h in zip(outer, lower, strict=True)
    ]
    assert entropy(both) > 350
    plain = [g.fabric.kind in ("plain", "knit", "heather") for g in outer]
    assert 0.6 < np.mean(plain) < 0.9


def test_colours_of_revision_1_are_as_frequent_as_in_street_images():
    crowd = [people.identity(0, number, revision=1) for number in range(COUNT)]
    outer = [
        colours.family((person.outfit.outer or person.outfit.top).fabric.colours[0])
        for person in crowd
    ]
    share = {key: count / COUNT for key, count in collections.Counter(outer).items()}
    assert sum(share[name] for name in ("black", "grey", "white", "blue")) > 0.55
    assert set(share) == set(colours.FAMILIES) and min(share.values()) > 0.004
    lower = [person.outfit.bottom.fabric.colours[0] for person in crowd if person.outfit.bottom]
    assert np.mean(metrics.lab(255 * np.array(lower))[:, 0] < 45) > 0.65
    kinds = collections.Counter(g.kind for person in crowd for g in person.outfit.carried)
    for kind, about in (("backpack", 0.2), ("shoulder_bag", 0.12), ("tote", 0.08)):
        assert 0.65 * about < kinds[kind] / COUNT < 1.35 * about, kind
    assert 0.01 < kinds["umbrella"] / COUNT < 0.03


def test_every_kind_occurs(crowd):
    kinds = {garment.kind for person in crowd for garment in garments_of(person)}
    assert kinds == {
        *outfits.TOPS,
        *outfits.OUTERS,
        *outfits.BOTTOMS,
        *outfits.SHOES,
        *outfits.HEADWEAR,
        *outfits.CARRIED,
    }
    assert {person.hair.kind for person in crowd} == set(people.HAIRS)
    worn = [garment.fabric for person in crowd for garment in garments_of(person)]
    assert {one.kind for one in worn} == set(fabrics.KINDS)
    assert {one.closing for one in worn} == set(fabrics.CLOSINGS)
    assert {side for one in worn for side in (one.front, one.back)} == set(fabrics.PRINTS)
    patterns = {p for _, table, _ in cloth.KINDS.values() for p in table.things}
    assert patterns == set(fabrics.KINDS)


def test_names_are_recovered_from_colours():
    for name, (_, percent) in colours.NAMED.items():
        assert colours.name(tuple(np.array(percent) / 100)) == name.replace("denim ", "")
    rng = np.random.default_rng(0)
    families = [colours.family(colours.jitter(rng, colours.NAMED["red"][1])) for _ in range(200)]
    assert families.count("red") > 170


def test_captions_describe_what_is_visible(crowd):
    for person in crowd[:500]:
        caption, found = words.caption(person), words.words(person)
        assert caption.startswith(("A ", "An ")) and caption.endswith(".")
        for wrong in (" a a", " a o", "  ", "None", " and and ", " a trousers", " a jeans", ",,"):
            assert wrong not in caption, caption
        assert all(isinstance(word, str) and word for word in found)
        assert ("woman" in found) == person.female and (" woman " in caption) == person.female
        bottom = person.outfit.bottom
        if bottom and bottom.fabric.kind != "camouflage":
            assert colours.name(bottom.fabric.colours[0]) in caption
        outer = person.outfit.outer
        if outer and not outer.open and outer.kind != "vest":
            assert " over a" not in caption  # a closed coat hides the top
        if person.outfit.headwear and person.outfit.headwear.kind == "hijab":
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
    person = dataclasses.replace(
        crowd[0], female=True, years=24, stature=1.62, bulk=21, hair=hair, outfit=outfit
    )
    assert words.caption(person) == (
        "A young woman with long black hair wears an open red jacket over a white T-shirt, "
        "dark blue jeans and white sneakers, and carries a black backpack."
    )
    yes = {n for n, a in zip(words.ATTRIBUTES, words.attributes(person), strict=True) if a}
    assert yes == {
        "sex:female",
        "age:18-29",
        "height:medium",
        "build:average",
        "hair colour:black",
        "hair:long",
        "outer:jacket",
        "top:tshirt",
        "front:open",
        "sleeves:long",
        "upper colour:red",
        "bottom:jeans",
        "lower colour:blue",
        "shoes:sneakers",
        "shoe colour:white",
        "carried:backpack",
    }


def test_attributes_are_consistent(crowd):
    table = np.array([words.attributes(person) for person in crowd[:1500]])
    assert table.dtype == np.uint8 and table.shape[1] == len(words.ATTRIBUTES)
    assert len(set(words.ATTRIBUTES)) == len(words.ATTRIBUTES)
    column = {name: table[:, k] for k, name in enumerate(words.ATTRIBUTES)}
    for group, names in words.GROUPS.items():
        found = sum(column[f"{group}:{name}"] for name in names)
        assert group in words.SEVERAL or (found <= 1).all(), group
        if group in ("age", "height", "build", "sleeves"):
            assert (found == 1).all(), group
        if group.endswith(" colour") and group != "hair colour":
            assert ((found >= 1) & (found <= 2)).all(), group
    present = [name for name, values in column.items() if values.any()]
    assert len(present) > len(words.ATTRIBUTES) - 4
