# SPDX-License-Identifier: Apache-2.0
"""Completion: what one crop does not show, predicted by a small network on the crop's canvas.

canvas -> this module -> clothing. A U-Net sees the crop and the body fitted to it, and predicts,
pixel by pixel, the thickness of the clothed trunk, the colours and kinds of front and back, and how
sure it is. `viewsynth.completion` trains it on the people of the world.

Source: ours, in the line of Moulding Humans (Gabeur et al., ICCV 2019), which predicts two depth
maps from a photo, and of the back views of ECON (Xiu et al., CVPR 2023) and SiTH (Ho et al., CVPR
2024). Here depths are relative to a fitted body, because crops have few pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.nn import functional

from viewsynth.reconstruct import canvas
from viewsynth.runtime.files import write

FORMAT, KEY = "viewsynth completion 1", "viewsynth"

# What a surface is; the values of `Completion.kind`, as the world's sheets have them.
KINDS = ("none", "skin", "hair", "hat", "top", "bottom", "skirt", "coat", "bag", "shoe")
CHANNELS = 16  # of the input, see `stack`
BODY = slice(5, 16)  # those of the fitted body
UNIT = 0.1  # metres per unit of the network
SCALES = (-4.0, 3.0)  # range of the logarithm of an error that the network expects
REACHES = (2, 8)  # pixels of the canvas: what is near, and farther off
FEW = 8  # pixels that a kind must have for a colour of its own
# Channels that the last layer predicts.
OUTPUTS = {"half": 1, "middle": 1, "depth_scale": 1, "back": 3, "front": 3, "back_scale": 1}
OUTPUTS |= {"front_scale": 1, "front_kind": len(KINDS), "back_kind": len(KINDS)}
OUTPUTS |= {"front_mix": len(REACHES) + 2, "back_mix": len(REACHES) + 2}


@dataclass(frozen=True)
class Completion:
    """Predictions for B crops on their canvases.

    Args:
        half: Half the thickness of the clothed trunk, metres, > 0.  [B, H, W]
        middle: Middle between its two sheets relative to that of the fitted body, metres, larger is
            further from the camera.  [B, H, W]
        depth_scale: Logarithm of the expected error of both, in units of `UNIT`.  [B, H, W]
        colour: Of front and back, in even light that is as bright and of the same colour as that of
            the crop, sRGB in [0, 1].  [B, 2, 3, H, W]
        colour_scale: Logarithm of their expected error, in units of 10 in CIELAB.  [B, 2, H, W]
        kind: Logits of `KINDS` of front and back.  [B, 2, K, H, W]
        azimuth: Cosine and sine of the camera's azimuth, not normalised.  [B, 2]
        rider: Logit of a rider of a bicycle.  [B]
        light: Logarithm of that light, RGB: linear colours over those in neutral light.  [B, 3]
    """

    half: Tensor
    middle: Tensor
    depth_scale: Tensor
    colour: Tensor
    colour_scale: Tensor
    kind: Tensor
    azimuth: Tensor
    rider: Tensor
    light: Tensor


def stack(crops: Mapping[str, Tensor]) -> Tensor:
    """The input of the network.

    Args:
        crops: By the names of `canvas.Canvas`: image uint8 [B, H, W, 3]; mask, inside in [0, 255]
            and parts, uint8 [B, H, W]; body, middle and half thickness, metres, [B, 2, H, W];
            angles, degrees, [B, 2]; detail [B].

    Returns:
        float32 [B, CHANNELS, H, W].
    """
    image = crops["image"].movedim(-1, 1).float() / 127.5 - 1
    masks = torch.stack([crops["mask"], crops["inside"]], 1).float() / 255
    middle, half = crops["body"].float().unbind(1)
    trunk = half > 0
    count = trunk.sum((1, 2)).clamp_min(1)
    mean = (middle * trunk).sum((1, 2)) / count
    depth = torch.stack([(middle - mean[:, None, None]) / (4 * UNIT), half / UNIT], 1)
    region, arm = crops["parts"] % canvas.ARM_BEFORE, crops["parts"]
    parts = [region == k for k in (canvas.HEAD, canvas.TORSO, canvas.LEGS)]
    parts += [(arm & bit) > 0 for bit in (canvas.ARM_BEFORE, canvas.ARM_BEHIND)]
    elevation, azimuth = torch.deg2rad(crops["angles"].float()).unbind(1)
    flat = [azimuth.cos(), azimuth.sin(), 2 * elevation, crops["detail"].float().log2()]
    flat = torch.stack(flat, 1)[..., None, None].expand(-1, -1, *image.shape[2:])
    return torch.cat([image, masks, depth, torch.stack(parts, 1).float(), flat], 1)


class Completer(nn.Module):
    """The U-Net.

    Args:
        widths: Channels at 1/2, 1/4, 1/8 and 1/16 of the canvas.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 112, 160)):
        super().__init__()
        self.widths = widths
        self.first = nn.Conv2d(4 * CHANNELS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(width, width) for width in widths)
        self.narrow = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.middle = nn.Sequential(_Block(widths[-1], widths[-1]), _Around(widths[-1]))
        self.widen = nn.ModuleList(
            nn.Conv2d(b, a, 1) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.up = nn.ModuleList(_Block(2 * width, width) for width in widths[:-1])
        self.last = nn.Sequential(
            _norm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 4 * sum(OUTPUTS.values()), 1)
        )
        self.whole = nn.Sequential(_norm(widths[-1]), nn.SiLU())
        self.person = nn.Sequential(nn.Linear(2 * widths[-1], 64), nn.SiLU(), nn.Linear(64, 3))
        # The norms take the brightness out of every feature: the light is found from the pixels.
        self.light = nn.Sequential(nn.Linear(widths[-1] + 12, 64), nn.SiLU(), nn.Linear(64, 3))
        for layer in (self.last[-1], self.light[-1], self.person[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, found: Tensor) -> Completion:
        """Predict; `found` is that of `stack`."""
        x = self.first(functional.pixel_unshuffle(found, 2))
        skips = []
        for block, narrow in zip(self.down, [*self.narrow, None], strict=True):
            x = block(x)
            if narrow is not None:
                skips.append(x)
                x = narrow(x)
        x = self.middle(x)
        whole, salient = x.mean((2, 3)), self.whole(x)
        levels = _levels(_logits(found), found[:, 3:4], found[:, 4:5])
        light = self.light(torch.cat([whole, *levels], 1))
        for widen, block, skip in zip(
            reversed(self.widen), reversed(self.up), reversed(skips), strict=True
        ):
            x = functional.interpolate(widen(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skip], 1))
        out = functional.pixel_shuffle(self.last(x), 2).float()
        person = self.person(torch.cat([salient.mean((2, 3)), salient.amax((2, 3))], 1))
        return _completion(out, found.float(), light.float(), person.float())


def _logits(found: Tensor) -> Tensor:
    """Logits of the colours of the crop, [B, 3, H, W]."""
    return torch.logit((found[:, :3] / 2 + 0.5).clamp(0.02, 0.98))


def _levels(seen: Tensor, *weights: Tensor) -> list[Tensor]:
    """Mean and standard deviation of each channel, under each of the weights, [B, 3] each."""
    found = []
    for weight in weights:
        total = weight.sum((2, 3)).clamp_min(1)
        mean = (seen * weight).sum((2, 3)) / total
        away = (seen - mean[..., None, None]).square()
        found += [mean, ((away * weight).sum((2, 3)) / total).clamp_min(1e-6).sqrt()]
    return found


def _completion(out: Tensor, found: Tensor, light: Tensor, person: Tensor) -> Completion:
    """The raw outputs in the units of `Completion`."""
    part = dict(zip(OUTPUTS, out.split(list(OUTPUTS.values()), 1), strict=True))
    half, middle = _smooth(torch.cat([part["half"], part["middle"]], 1)).unbind(1)
    return Completion(
        half=UNIT * functional.softplus(half + 2 * found[:, 6] - 1),
        middle=UNIT * middle,
        depth_scale=part["depth_scale"][:, 0].clamp(*SCALES),
        colour=_colours(part, found),
        colour_scale=torch.cat([part["front_scale"], part["back_scale"]], 1).clamp(*SCALES),
        kind=torch.stack([part["front_kind"], part["back_kind"]], 1),
        azimuth=person[:, :2],
        rider=person[:, 2],
        light=light,
    )


def _colours(part: dict[str, Tensor], found: Tensor) -> Tensor:
    """Colours of front and back, [B, 2, 3, H, W].

    Each pixel mixes what the crop shows there, nearby, farther off, and of the same kind, and adds
    a change: most of what is not seen has the colour of something that is.
    """
    seen, mask = _logits(found), found[:, 3:4]
    near = [_around(seen, mask, reach) for reach in REACHES]
    shares = [part[f"{side}_kind"].softmax(1) for side in ("front", "back")]
    weight = (shares[0] * mask).flatten(2)
    total = torch.einsum("bkp,bcp->bkc", weight, seen.flatten(2))
    mean = _levels(seen, mask)[0]
    palette = (total + FEW * mean[:, None]) / (weight.sum(2) + FEW)[..., None]
    colours = []
    for side, share in zip(("front", "back"), shares, strict=True):
        alike = torch.einsum("bkhw,bkc->bchw", share, palette)
        mix = part[f"{side}_mix"].softmax(1)[:, :, None]
        colours.append((mix * torch.stack([seen, *near, alike], 1)).sum(1) + part[side])
    return torch.stack(colours, 1).sigmoid()


def _around(seen: Tensor, mask: Tensor, reach: int) -> Tensor:
    """Mean of the person's pixels around each, [B, C, H, W]."""
    found = torch.cat([seen * mask, mask], 1)
    for side, border in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        found = functional.avg_pool2d(found, side, 1, border)
    return (found[:, :-1] + 1e-3 * seen) / (found[:, -1:] + 1e-3)


def _smooth(maps: Tensor) -> Tensor:
    """Maps without the grid of the last layer, whose pixels come from four separate outputs."""
    for axis in (2, 3):
        maps = functional.pad(maps, (1, 1, 0, 0) if axis == 3 else (0, 0, 1, 1), mode="replicate")
        low, here, high = (maps.narrow(axis, k, maps.shape[axis] - 2) for k in range(3))
        maps = (low + 2 * here + high) / 4
    return maps


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, width)


class _Block(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.convolutions = nn.Sequential(
            _norm(width),
            nn.SiLU(),
            nn.Conv2d(width, out, 3, padding=1),
            _norm(out),
            nn.SiLU(),
            nn.Conv2d(out, out, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.convolutions(x)


class _Around(nn.Module):
    """Attention between all places: what is at one shoulder tells about the other."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = _norm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.norm(x).flatten(2).mT
        found, _ = self.attention(flat, flat, flat, need_weights=False)
        return x + found.mT.reshape(x.shape)


# ---- files -----------------------------------------------------------------------------------


def save(model: Completer, path: Path, about: Mapping[str, str]) -> None:
    """Write a network to one file, in half precision.

    Args:
        model: The network.
        path: A .safetensors file.
        about: What it learned from, for the file's metadata.
    """
    tensors = {name: value.detach().half().cpu() for name, value in model.state_dict().items()}
    known = {**about, "format": FORMAT, "widths": model.widths}
    # One key: the order of several differs from file to file.
    write(path, to_bytes(tensors, {KEY: json.dumps(known, sort_keys=True)}))


def load(path: Path, device: torch.device | str = "cpu") -> Completer:
    """Read a network that `save` wrote.

    Args:
        path: The file.
        device: Device of the network.

    Returns:
        The network in float32, in evaluation mode.

    Raises:
        ValueError: If the file is not such a network.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(KEY, "{}"))
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if about.get("format") != FORMAT:
            raise ValueError(f"its format is {about.get('format')!r}, not {FORMAT!r}")
        model = Completer(tuple(about["widths"]))
        model.load_state_dict(tensors)
    except (OSError, KeyError, RuntimeError, SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} is no completion network: {error}; give the file completion.safetensors of "
            "`viewsynth train-completion`"
        ) from error
    return model.to(device).eval()
