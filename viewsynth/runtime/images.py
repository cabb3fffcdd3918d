# SPDX-License-Identifier: Apache-2.0
"""Pictures as a run writes them: the same bytes for the same pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

# Marks a picture as synthetic for everyone who reads metadata, in IPTC's words: a composite that
# includes synthetic parts, here a body model with the texture of photos; or made by an algorithm
# from no recording at all, as the world is. Where a generative model had a hand in it: such a
# composite with parts that the model made; or made by the model alone.
COMPOSITE, DRAWN = "compositeSynthetic", "algorithmicMedia"
WITH_MODEL, BY_MODEL = "compositeWithTrainedAlgorithmicMedia", "trainedAlgorithmicMedia"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/'
    '2008-02-29/" Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/'
    '{source}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def jpeg(image: np.ndarray, source: str = COMPOSITE) -> bytes:
    """A picture as it is written: JPEG, quality 95, 4:4:4, no EXIF, marked as synthetic.

    Args:
        source: COMPOSITE, DRAWN, WITH_MODEL or BY_MODEL.
    """
    file, xmp = io.BytesIO(), XMP.replace("{source}", source).encode()
    Image.fromarray(image).save(file, "JPEG", quality=95, subsampling=0, xmp=xmp)
    return file.getvalue()


def png(values: np.ndarray) -> bytes:
    """A map [H, W] uint8 as a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=4)
    return file.getvalue()


def indexed(values: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    """A map of numbers [H, W] uint8 as a palette PNG: the numbers stay, people see colours."""
    image, file = Image.fromarray(values, "P"), io.BytesIO()
    image.putpalette([value for colour in colours for value in colour])
    image.save(file, "PNG", compress_level=4)
    return file.getvalue()


def stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture or a mask at another size, bicubic and antialiased, its proportions given up.

    Args:
        image: uint8 [h, w, ...], or a mask, bool [h, w].
        size: Height and width, pixels.
    Returns: uint8 [H, W, ...]; of a mask 255 is True.
    """
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def strip(tiles, height: int = 192) -> bytes:
    """Pictures of one size side by side as a small JPEG, for the contact sheet."""
    joined = Image.fromarray(np.concatenate(tiles, axis=1))
    size = (max(round(joined.width * height / joined.height), 1), height)
    file = io.BytesIO()
    joined.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return file.getvalue()
