# SPDX-License-Identifier: Apache-2.0
"""Geometry of clothes, cut from the suit around a body.

outfits, mannequin -> this module -> hair, carried, character. Each garment is the suit, offset by
the garment's thickness and looseness from what is worn under it, smoothed to bridge hollows, and
cut along fields of rest coordinates (hem, sleeve, neckline, opening). Garments that hang free of
the legs (skirts, dresses, coat tails, long shirts) are a `Tube`, which `drape` places around the
posed legs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from viewsynth.world import LABELS
from viewsynth.world.fabrics import Fabric
from viewsynth.world.mannequin import Mannequin
from viewsynth.world.outfits import Garment, Outfit
from viewsynth.world.shells import Shell, cut, normals, swell

BOTTOM, SHOES = (LABELS.index(name) for name in ("bottom", "shoes"))
# kind: thickness of the cloth in metres, looseness (0 to 1, see `shells.swell`), height of the
# collar above the shoulders in metres
CLOTH = {
    "tshirt": (0.007, 0.8, 0.062),
    "shirt": (0.008, 0.7, 0.09),
    "sweater": (0.013, 0.9, 0.07),
    "tank": (0.006, 0.4, 0.04),
    "polo": (0.007, 0.7, 0.085),
    "blouse": (0.007, 0.9, 0.06),
    "dress": (0.007, 0.6, 0.055),
    "jacket": (0.013, 0.9, 0.095),
    "coat": (0.015, 0.95, 0.1),
    "hoodie": (0.015, 0.95, 0.08),
    "vest": (0.02, 0.9, 0.075),
    "cardigan": (0.011, 0.9, 0.06),
    "trousers": (0.007, 0.7, 0.0),
    "jeans": (0.007, 0.45, 0.0),
    "shorts": (0.008, 0.7, 0.0),
    "skirt": (0.007, 0.5, 0.0),
    "leggings": (0.004, 0.1, 0.0),
}
WAIST = 0.12  # height of the waist of bottoms above the hip joints, metres
COVERED = 0.01  # depth under a garment from which skin is left out, metres


@dataclass(frozen=True)
class Piece:
    """Description of a part of a dressed person.

    Args:
        label: Index into `LABELS`.
        fabric: The fabric; None = skin or hair.
        name: Kind of the garment or thing.
    """

    label: int
    fabric: Fabric | None
    name: str


@dataclass(frozen=True, eq=False)
class Tube:
    """A sheet that hangs around the legs from a ring of the suit.

    Args:
        piece: Description of the part.
        top, end: Heights of the upper and lower end in rest coordinates, metres.
        inner: The surface under the tube in the template: the suit's vertices.  [S, 3]
        tuck: How far the upper ring is tucked under what is worn above it, metres.
        flare: Increase of the radius per metre downwards; negative = the tube narrows.
        ripple: Depth of the folds at the hem as a share of the radius.
        open: Half of the angle of the opening in front, degrees.
    """

    piece: Piece
    top: float
    end: float
    inner: np.ndarray
    tuck: float
    flare: float
    ripple: float
    open: float


@dataclass
class Dressing:
    """State of a person who is dressed layer by layer, from the skin outwards.

    Args:
        mannequin: The mannequin.
        suit: Outer surface of what is worn so far, on the suit's triangles.
        normal: Normals of the suit.  [S, 3]
        layers: Shells and their descriptions.
        cover: Per layer, the depth of points under it: a function of a shell -> metres [N].
        hidden: Likewise, of what is on the head.
        tubes: Garments that hang free.
    """

    mannequin: Mannequin
    suit: Shell
    normal: np.ndarray
    layers: list[tuple[Shell, Piece]]
    cover: list
    hidden: list
    tubes: list[Tube]

    def wear(self, piece: Piece, fields: list, thickness: np.ndarray, hang) -> np.ndarray:
        """Put on one layer.

        Args:
            piece: Description of the layer.
            fields: Functions of a shell that are positive on the garment; their minimum is the
                distance from the border of the garment.
            thickness: Distance from what is worn under it, metres.  [S]
            hang: See `shells.swell`.  float or [S]

        Returns:
            The layer on the whole suit, before it is cut.  [S, 3]
        """
        inside = np.min([field(self.suit) for field in fields], axis=0)
        under, mean = self.suit.points, self.mannequin.suit_mean
        cloth = swell(under, self.normal, thickness, hang + 0 * thickness, mean)
        shell = self.suit.moved(cloth)
        for field in fields:
            shell = cut(shell, field(shell))
        self.suit = self.suit.moved(np.where(inside[:, None] > -0.01, cloth, under))
        self.normal = normals(self.suit.points, self.suit.faces)
        self.layers.append((shell, piece))
        self.cover.append(lambda shell: np.min([field(shell) for field in fields], axis=0))
        return cloth


def dress(m: Mannequin, outfit: Outfit, template: np.ndarray) -> Dressing:
    """Put all clothes of an outfit on a person.

    Args:
        m: The mannequin.
        outfit: The outfit.
        template: The person's base mesh, see `Mannequin.template`.  [V, 3]

    Returns:
        The dressed person, without hair, headwear and carried things.
    """
    suit, normal = m.suit_of(template)
    on = Dressing(m, suit, normal, [], [], [], [])
    _shoes(on, outfit, under=True)
    if outfit.bottom is not None:
        _bottom(on, outfit.bottom)
    else:
        _lining(on, outfit.top.fabric, m.down(0.25))
    _shoes(on, outfit, under=False)
    for garment in (outfit.top, outfit.outer):
        if garment is not None:
            _top(on, garment, outfit)
    return on


def hem(m: Mannequin, garment: Garment) -> float:
    """Height of the lower end of a garment in rest coordinates, metres."""
    hip = float(m.line("hip")[1])
    match garment.kind:
        case "dress" | "skirt" | "shorts":
            return m.down(max(garment.length, 0.2))
        case "trousers" | "jeans" | "leggings":
            return m.down(garment.length) - 0.035 * (garment.length > 0.9)
        case "coat":
            return hip - 0.04 - garment.length * (hip - m.down(0.62))
        case _:
            return hip + 0.13 - 0.3 * garment.length


def _shoes(on: Dressing, outfit: Outfit, under: bool) -> None:
    """Put on shoes: they go under trousers, but boots go over tight bottoms."""
    m, shoes = on.mannequin, outfit.shoes
    ankle, knee = m.line("ankle")[1], m.line("knee")[1]
    tight = outfit.bottom is None or outfit.bottom.kind in ("jeans", "leggings", "skirt", "shorts")
    boots = shoes.kind == "boots" and tight
    if under == boots:
        return
    low = shoes.kind != "boots"
    end = ankle + (0.0 if low else 0.04 + shoes.length * (knee - ankle - 0.1))
    rest = on.suit.rest
    sole = np.exp(-(((rest[:, 1] - 0.01) / 0.02) ** 2))
    toe = np.clip((rest[:, 2] - 0.05) / 0.1, 0, 1) * np.exp(-(((rest[:, 1] - 0.04) / 0.03) ** 2))
    thickness = 0.007 + 0.005 * sole + 0.004 * toe
    on.wear(Piece(SHOES, shoes.fabric, shoes.kind), [lambda s: end - s.rest[:, 1]], thickness, 0.6)


def _bottom(on: Dressing, garment: Garment) -> None:
    m = on.mannequin
    thick, hang, _ = CLOTH[garment.kind]
    waist, end = m.line("hip")[1] + WAIST, hem(m, garment)
    piece = Piece(BOTTOM, garment.fabric, garment.kind)
    if garment.kind == "skirt":
        _lining(on, garment.fabric, max(end + 0.08, m.down(0.45)))
        on.tubes.append(_tube(piece, garment, waist, end, on.suit.points, tuck=0.015))
        return
    down = np.clip((m.line("hip")[1] - on.suit.rest[:, 1]) / (m.line("hip")[1] - m.down(1)), 0, 1)
    room = {"trousers": 0.6, "jeans": 0.4, "shorts": 1.0, "leggings": 0.0}[garment.kind]
    thickness = thick + garment.loose * room * (0.25 + 0.75 * np.sqrt(down))
    if garment.kind == "trousers":  # wider over the shoe
        thickness = thickness + 0.008 * np.clip(down / 0.9, 0, 1) ** 4
    fields = [lambda s: waist - s.rest[:, 1], lambda s: s.rest[:, 1] - end]
    on.wear(piece, fields, thickness.astype(np.float32), hang)


def _lining(on: Dressing, fabric: Fabric, end: float) -> None:
    """Put on shorts under skirts and dresses, so that every person is clothed."""
    waist = on.mannequin.line("hip")[1] + 0.05
    fields = [lambda s: waist - s.rest[:, 1], lambda s: s.rest[:, 1] - end]
    on.wear(Piece(BOTTOM, fabric, "lining"), fields, np.full(len(on.normal), 0.004), 0.1)


def _top(on: Dressing, garment: Garment, outfit: Outfit) -> None:
    m = on.mannequin
    skirt = outfit.bottom is not None and outfit.bottom.kind == "skirt"
    under = garment is outfit.top and garment.kind != "dress"
    tucked = under and (skirt or outfit.outer is not None)
    thick, hang, neck = CLOTH[garment.kind]
    hip, shoulder, wrist = m.line("hip")[1], m.line("shoulder"), m.line("wrist")
    end, rest = hem(m, garment), on.suit.rest
    if tucked:
        end = max(end, hip + WAIST - 0.025 if skirt else hip + 0.01)
    label = LABELS.index("top")
    piece = Piece(label, garment.fabric, garment.kind)
    free = end < hip  # below the hip joints the garment is a tube
    low = hip + 0.02 if free else end
    arm = shoulder[0] + garment.sleeve * (wrist[0] - shoulder[0])
    arm += -0.025 if garment.kind in ("tank", "vest") and garment.sleeve < 0.1 else 0.012
    x = np.abs(rest[:, 0])
    room = np.full(len(rest), 0.5 * garment.loose, np.float32)
    sleeve = np.clip((x - shoulder[0]) / 0.1, 0, 1)
    short = np.clip((0.75 - garment.sleeve) / 0.3, 0, 1)  # short sleeves are wider
    room *= 1 - 0.5 * sleeve
    room += sleeve * garment.loose * (0.05 + 0.7 * short * np.clip((x - shoulder[0]) / 0.15, 0, 1))
    # Cloth lies on the shoulders, and nearly on the arms in long sleeves.
    top = np.clip((rest[:, 1] - shoulder[1] + 0.03) / 0.05, 0, 1)
    room *= 1 - 0.75 * top * np.clip(1.6 - sleeve, 0, 1)
    thick = thick * (1 - 0.5 * np.clip((x - shoulder[0] + 0.08) / 0.08, 0, 1))
    puffy = garment.kind == "vest"
    if puffy:
        room = room + 0.008 * (np.sin(rest[:, 1] * 2 * np.pi / 0.09) > -0.5)
    fields = [
        lambda s: s.rest[:, 1] - low,
        lambda s: arm - np.abs(s.rest[:, 0]),
        lambda s: _neck(s.rest, shoulder, neck, garment.neckline),
    ]
    if garment.open:
        fields.append(lambda s: _opening(s, shoulder, garment.open))
    cloth = on.wear(piece, fields, thick + room, hang * (1 - 0.6 * sleeve))
    if free:
        # From half a width to an angle at a radius of 0.17 m, the hips.
        angle = np.rad2deg(garment.open / 0.17) * 1.2 if garment.open else 0
        on.tubes.append(_tube(piece, garment, low + 0.05, end, cloth, tuck=0.008, angle=angle))


def _tube(
    piece: Piece,
    garment: Garment,
    top: float,
    end: float,
    inner: np.ndarray,
    tuck: float,
    angle: float = 0.0,
) -> Tube:
    """The free part of a garment; looser garments are wider at the hem, up to a limit."""
    flare = float(np.interp(garment.loose, [0.0, 0.02, 0.05], [-0.1, 0.06, 0.3]))
    flare = min(flare, 0.11 / max(top - end, 0.2))
    ripple = float(np.clip(0.5 * flare, 0, 0.08))
    return Tube(piece, top, end, inner, tuck, flare, ripple, angle)


def _neck(rest: np.ndarray, shoulder: np.ndarray, up: float, deep: float) -> np.ndarray:
    """Depth under the neckline, which is lower in front, metres, [N]."""
    front = np.clip((rest[:, 2] - shoulder[2]) / 0.06, 0, 1)
    drop = front * (deep + 0.02) * np.clip(1.5 - np.abs(rest[:, 0]) / 0.07, 0, 1)
    return shoulder[1] + up - drop - rest[:, 1]


def _opening(shell: Shell, shoulder: np.ndarray, half: float) -> np.ndarray:
    """Distance from the opening in front, which widens upwards, metres, [N]."""
    wide = half * (0.75 + 0.5 * np.clip((shell.rest[:, 1] - 1.0) / 0.45, 0, 1))
    return np.maximum(
        np.abs(shell.points[:, 0]) - wide, (shoulder[2] + 0.02 - shell.rest[:, 2]) * 2
    )
