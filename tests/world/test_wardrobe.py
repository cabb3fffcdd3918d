# SPDX-License-Identifier: Apache-2.0
"""Clothes of revision 2: frequencies of the sources, seams, creases and quilting."""

from collections import Counter

import numpy as np
import pytest

from viewsynth.world import colours, fabrics, outfits, people, seams, wardrobe
from viewsynth.world.fabrics import Fabric
from viewsynth.world.outfits import BOTTOMS

COUNT = 1500
DARK = Fabric(colours=((0.5, 0.5, 0.5),))


def sample(season, female, count=COUNT):
    """Outfits of one season."""
    table, wardrobe.SEASON = wardrobe.SEASON, colours.table(f"{season} 1")
    try:
        rng = np.random.default_rng(3)
        return [wardrobe.sample_outfit(rng, female, 25) for _ in range(count)]
    finally:
        wardrobe.SEASON = table


@pytest.mark.parametrize("season", ["summer", "winter"])
@pytest.mark.parametrize("female", [False, True])
def test_colours_and_bags_have_the_counted_frequencies(season, female):
    worn = sample(season, female)
    pack, side, _, head = wardrobe.CARRY[season, female]
    kinds = [{one.kind for one in outfit.carried} for outfit in worn]
    assert abs(np.mean(["backpack" in k for k in kinds]) - pack) < 0.05
    assert abs(np.mean(["shoulder_bag" in k for k in kinds]) - side) < 0.05
    modest = outfits.HIJAB if female else 0.0
    assert abs(np.mean([o.headwear is not None for o in worn]) - (head + modest)) < 0.04
    # "black" is what an annotator calls black, and the darkest shades of other labels.
    upper = [(o.outer or o.top).fabric.colours[0] for o in worn]
    dark = np.mean([colours.lightness(colour) < 0.24 for colour in upper])
    shares = dict(zip(wardrobe.UPPER[season, female].things, _shares(season, female), strict=True))
    assert shares["black"] - 0.06 < dark < shares["black"] + shares.get("blue", 0) + 0.16
    jeans = np.mean([o.bottom is not None and o.bottom.kind == "jeans" for o in worn])
    assert jeans > 0.05


def _shares(season, female):
    upto = np.array(wardrobe.UPPER[season, female].upto)
    return np.diff(upto, prepend=0) / upto[-1]


def test_summer_is_short_and_winter_is_long():
    for female in (False, True):
        summer, winter = sample("summer", female, 600), sample("winter", female, 600)
        short = [o.bottom is None or o.bottom.kind in ("shorts", "skirt") for o in summer]
        assert abs(np.mean(short) - wardrobe.SHORT[female]) < 0.12
        assert not any(o.bottom and o.bottom.kind == "shorts" for o in winter)
        assert np.mean([o.outer is not None for o in winter]) > 0.8
        assert any((o.outer or o.top).fabric.quilt for o in winter)
        assert not any(g.fabric.quilt for o in summer for g in (o.top, o.outer) if g)


def test_people_dress_alike_as_often_as_the_labelled_ones():
    """Two people of the files share the labels of both colours in 3.6 % (summer), 13 % (winter)."""

    def pairs(season):
        both = Counter()
        for outfit in sample(season, True) + sample(season, False):
            upper, lower = outfit.outer or outfit.top, outfit.bottom or outfit.top
            both[tuple(colours.family(one.fabric.colours[0]) for one in (upper, lower))] += 1
        return sum((count / both.total()) ** 2 for count in both.values())

    assert 0.02 < pairs("summer") < 0.05 and 0.05 < pairs("winter") < 0.15


def test_a_body_is_the_same_in_both_revisions():
    first, second = (people.identity(0, 4, revision) for revision in (1, 2))
    assert (first.phenotype, first.hair, first.skin) == (
        second.phenotype,
        second.hair,
        second.skin,
    )
    assert first.outfit != second.outfit
    neutral = [g.fabric for g in (first.outfit.top, first.outfit.shoes)]
    assert all((f.seams, f.crease, f.quilt) == (0, 0, 0) for f in neutral)
    assert second.outfit.top.fabric.seams > 0


def points(**at):
    """Fabric coordinates of points of which some coordinates are given."""
    count = len(next(iter(at.values())))
    rest = np.zeros((count, 3), np.float32)
    rest[:] = (0.1, 1.2, 0.1)
    for name, values in at.items():
        rest[:, "xyz".index(name)] = values
    return rest


def sewn(rest, closing="", seed=0):
    colour = np.ones((len(rest), 3), np.float32)
    seams.sew(colour, fabrics._Points(rest, 0.0), 1.0, closing, seed)
    return colour[:, 0]


def test_seams_are_lines_where_pieces_meet():
    across = np.linspace(-0.1, 0.14, 481, dtype=np.float32)
    side = sewn(points(z=across))
    assert (side < 1).any() and (np.abs(across[side < 1] - seams.SIDE) < 0.0035).all()
    collar = sewn(points(y=np.float32([1.3, 1.54])), seed=1)
    assert collar[1] < collar[0] == 1
    cuff = sewn(points(x=np.float32([0.5, 0.72]), y=np.float32([1.45, 1.45])))
    assert cuff[1] < cuff[0]
    legs = sewn(points(y=np.float32([0.5, 0.5]), x=np.float32([0.005, 0.09])), closing="fly")
    assert legs[0] < legs[1]


@pytest.mark.parametrize("seed, closing, lines", [(0, "zip", 2), (2, "", 2), (4, "", 0)])
def test_pockets_depend_on_the_seed(seed, closing, lines):
    x = np.linspace(-0.145, 0.145, 1161, dtype=np.float32)
    row = sewn(points(x=x, y=np.full(len(x), 1.345 if closing else 1.12)), closing, seed)
    assert (np.diff((row < 1).astype(int)) == 1).sum() == lines


def test_quilting_has_one_dark_seam_a_period_and_bulges_between():
    along = np.linspace(1.0, 1.3, 3001, dtype=np.float32)
    left, slope = seams.quilt(along, 0.1)
    dark = left < 0.8
    assert (np.diff(dark.astype(int)) == 1).sum() == 3 and left.min() >= 0.5
    middle = np.abs((along / 0.1) % 1 - 0.5) < 0.01
    assert np.abs(slope[middle]).max() < 0.01 < 0.4 < np.abs(slope).max()


def test_creases_darken_only_the_lower_side_of_a_fold():
    change = np.float32([[0, 0.3, 0], [0, 0, 0], [0, -0.3, 0], [0, -3, 0]])
    fabric = Fabric(colours=((0.5, 0.5, 0.5),), crease=0.5)
    left = fabrics.creased(fabric, change)[:, 0]
    assert left[0] == left[1] == 1 and left[2] < 1 and left[3] == pytest.approx(0.65)


def test_bottoms_have_the_kinds_of_the_tables():
    kinds = {o.bottom.kind for o in sample("mild", True, 400) if o.bottom}
    assert kinds == set(BOTTOMS)
