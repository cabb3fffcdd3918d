# SPDX-License-Identifier: Apache-2.0
"""Fill the texels that no crop saw, and write the seen map.

In this order, each step only where the one before gives nothing:
1. mirror: the same place on the other side of the body (seen 0.5);
2. profile: the median colour of the same garment at the same height, so that stripes, waistbands
   and hems continue around the body while prints, necklines and straps stay where they are (0.3);
3. neighbour: a part that is not seen at all takes the colour of an adjacent part (seen 0).
The head is treated apart: hair takes its colour from hair, skin from skin.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from viewsynth.reconstruct.texture import GROUPS, SIZE, Atlas, Paint

BAND = 0.012  # metres of height with one colour of the profile
MIRRORED, INFERRED = 0.5, 0.3
# Which parts give a part that no crop saw its colour, in this order.
RELATIVES = {
    "neck": ("skin",),
    "torso": ("upper_arm", "thigh"),
    "upper_arm": ("torso", "forearm"),
    "forearm": ("hand", "upper_arm"),
    "hand": ("skin",),
    "thigh": ("shank", "torso"),
    "shank": ("thigh",),
    "foot": (),
}
SHOE = np.array([70.0, 68, 68])
SKIN = np.array([176.0, 136, 116])


def complete(paint: Paint, atlas: Atlas) -> tuple[np.ndarray, np.ndarray, dict]:
    """Complete the atlas of one person.

    Args:
        paint: The fused crops.
        atlas: The texels.

    Returns:
        Texture, uint8 [T, T, 3]; seen map, uint8 [T, T], 255 = observed; and notes: the share of
        the texels that were observed, hair and skin colour, and whether the two look alike.
    """
    paint = _plain_limbs(paint, atlas)
    sure = np.clip((paint.weight - 0.05) / 0.35, 0, 1)
    profile, backing = _profiles(paint, atlas)
    skin = _skin(paint, atlas)
    hair, bald = _hair(paint, atlas, skin)
    profile, backing = _head(paint, atlas, profile, backing, hair, skin)
    mirror = sure[atlas.mirror] * _mirrors(atlas)
    fill = profile * (1 - mirror[:, None]) + paint.colour[atlas.mirror] * mirror[:, None]
    guess = np.maximum(mirror * MIRRORED, backing * INFERRED)
    colour = paint.colour * sure[:, None] + fill * (1 - sure[:, None])
    seen = sure + guess * (1 - sure)
    texture = np.clip(colour, 0, 255)[atlas.gutter].reshape(SIZE, SIZE, 3).round().astype(np.uint8)
    seen_map = np.zeros(SIZE * SIZE)
    seen_map[atlas.texel] = seen
    notes = {
        "seen_texels": round(float((sure > 0.5).mean()), 4),
        "hair": [round(float(v)) for v in hair],
        "skin": [round(float(v)) for v in skin],
        "bald": bool(bald),
    }
    return texture, (seen_map.reshape(SIZE, SIZE) * 255).round().astype(np.uint8), notes


def _plain_limbs(paint: Paint, atlas: Atlas) -> Paint:
    """Reduce the weight of texels that differ from the rest of their limb at that height.

    Sleeves and legs are plain at the resolution of ReID crops; another colour is background between
    the legs, the strap of a bag, or another person's arm.
    """
    limbs = [GROUPS.index(name) for name in ("upper_arm", "forearm", "thigh", "shank")]
    band = _band(atlas)
    weight = paint.weight.copy()
    for number in limbs:
        mine = (atlas.group == number) & (paint.weight > 0.05)
        if mine.sum() < 40:
            continue
        usual = _curve(paint.colour[mine], band[mine], band.max() + 1, smooth=4.0)[band[mine]]
        apart = np.abs(paint.colour[mine] - usual).max(1)
        weight[mine] /= 1 + (apart / 45) ** 4
    # A hand has about three pixels; those that do not look like skin show the background.
    hand = atlas.group == GROUPS.index("hand")
    weight[hand] /= 1 + (np.abs(paint.colour[hand] - _skin(paint, atlas)).max(1) / 60) ** 4
    return Paint(paint.colour, weight)


def _band(atlas: Atlas) -> np.ndarray:
    """The band of height on the standing body that each texel lies in, [M]."""
    return ((atlas.position[:, 1] - atlas.position[:, 1].min()) / BAND).astype(int)


def _mirrors(atlas: Atlas) -> np.ndarray:
    """How far each texel may be copied from its mirror image, [M]; 0 in the middle of the trunk."""
    aside = np.clip(np.abs(atlas.position[:, 0]) / 0.05, 0, 1)
    return np.where(atlas.group == GROUPS.index("torso"), aside, 1.0)


def _profiles(paint: Paint, atlas: Atlas) -> tuple[np.ndarray, np.ndarray]:
    """Median colour by part and height [M, 3], and whether the part was seen at all [M]."""
    out = np.zeros_like(paint.colour)
    backing = np.zeros(len(out))
    curves: dict[str, np.ndarray] = {}
    band = _band(atlas)
    skin = _skin(paint, atlas)
    for number, name in enumerate(GROUPS):
        mine = atlas.group == number
        sure = mine & (paint.weight > 0.15)
        if name == "torso":
            sure = _without_neckline(paint, sure, skin)
        if sure.sum() >= 40:
            curves[name] = _curve(paint.colour[sure], band[sure], band.max() + 1)
            out[mine], backing[mine] = curves[name][band[mine]], 1.0
    for number, name in enumerate(GROUPS):
        if name in curves or name == "head":
            continue
        mine = atlas.group == number
        out[mine] = SHOE
        for relative in RELATIVES[name]:
            if relative == "skin" or relative in curves:
                out[mine] = skin if relative == "skin" else curves[relative][band[mine]]
                break
    return out, backing


def _without_neckline(paint: Paint, sure: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """The observed texels of the trunk without those of skin, unless the garment is like skin."""
    if not sure.any() or np.abs(np.median(paint.colour[sure], axis=0) - skin).max() < 45:
        return sure
    return sure & (np.abs(paint.colour - skin).max(1) > 40)


def _curve(colour: np.ndarray, band: np.ndarray, bands: int, smooth: float = 0.8) -> np.ndarray:
    """Colour of median lightness in every band of height, gaps interpolated, [bands, 3]."""
    order = np.lexsort((colour.mean(1), band))
    band, colour = band[order], colour[order]
    filled, first, count = np.unique(band, return_index=True, return_counts=True)
    # The mean of the middle third is as robust as the median and less noisy.
    middle = np.stack(
        [
            colour[f + c // 3 : f + c // 3 + max(c // 3, 1)].mean(0)
            for f, c in zip(first, count, strict=True)
        ]
    )
    keep = count >= max(3, 0.1 * np.median(count))
    filled, middle = filled[keep], middle[keep]
    curve = np.stack([np.interp(np.arange(bands), filled, middle[:, k]) for k in range(3)], 1)
    return ndimage.gaussian_filter1d(curve, smooth, axis=0, mode="nearest")


def _skin(paint: Paint, atlas: Atlas) -> np.ndarray:
    """Skin colour of the face, else of the hands or the neck, else a medium tone; RGB [3]."""
    face = (atlas.group == GROUPS.index("head")) & ~atlas.hair & (atlas.position[:, 2] > 0.06)
    for region in (face, atlas.group == GROUPS.index("hand"), atlas.group == GROUPS.index("neck")):
        sure = region & (paint.weight > 0.2)
        if sure.sum() > 60:
            return _typical(paint.colour[sure], 50, 75)
    return SKIN.copy()


def _hair(paint: Paint, atlas: Atlas, skin: np.ndarray) -> tuple[np.ndarray, bool]:
    """Colour of hair or hat, RGB [3], and whether it is too similar to the skin."""
    head = (atlas.group == GROUPS.index("head")) & atlas.hair
    sure = head & (paint.weight > 0.15)
    if sure.sum() < 40:
        return 0.35 * skin, False
    colour = paint.colour[sure]
    # The few pixels of dark hair are mixed with bright sky and skin: only the darker ones count.
    dark = np.median(colour.mean(1)) < skin.mean()
    hair = _typical(colour, *((5, 35) if dark else (30, 70)))
    return hair, bool(np.abs(hair - skin).max() < 28)


def _typical(colour: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean of the colours between two percentiles of lightness."""
    light = colour.mean(1)
    a, b = np.percentile(light, [low, high])
    return colour[(light >= a) & (light <= b)].mean(0)


def _head(paint: Paint, atlas: Atlas, profile, backing, hair: np.ndarray, skin: np.ndarray):
    """Set the profile of the head to hair where hair grows, and to skin elsewhere."""
    head = atlas.group == GROUPS.index("head")
    profile, backing = profile.copy(), backing.copy()
    seen = (paint.weight > 0.15) & head
    for region, colour in ((head & atlas.hair, hair), (head & ~atlas.hair, skin)):
        profile[region] = colour
        backing[region] = 1.0 if (seen & region).sum() > 40 else 0.0
    return profile, backing
