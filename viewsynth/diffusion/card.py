# SPDX-License-Identifier: Apache-2.0
"""Model card: the README.md that `ViewDiffusionPipeline.save_pretrained` writes."""

from __future__ import annotations

from viewsynth.runtime.licences import commercial

CALL = """```python
from PIL import Image
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

pipe = ViewDiffusionPipeline.from_pretrained("{where}")
images = pipe(Image.open("person.jpg"), elevation=60, azimuth=[0, 90, 180, 270]).images
images[0].save("from_above.png")
```"""

TEXT = """---
library_name: diffusers
pipeline_tag: image-to-image
license: {tag}
tags:
- viewsynth
- person-re-identification
- novel-view-synthesis
- synthetic-data
---

# View-aware diffusion: people as a drone would see them

A diffusers pipeline for viewsynth: a latent diffusion model that takes a ground photo of a person,
a rendering of the person's reconstructed body at the target camera, a map of the pixels that the
photo shows, and the camera parameters; it generates the image that a drone might have taken.

- **Images**: {height} x {width} (height x width), stretched from and to the aspect of the crop.
- **Parameters**: {parameters}.
- **Prediction**: {prediction}; scheduler {scheduler}, can be replaced by others of diffusers.
- **Identity encoder**: {identity}.

## How to call it

{call}

For your own reconstructions and cameras, build a `viewsynth.diffusion.conditions.Conditions` and
call `pipe.sample`. The code of the pipeline is in the Python package viewsynth.

## Training data

{training}

## Purpose

Research on aerial-ground person re-identification: to add missing views to *training* sets, and to
measure how much that helps.

## Limits

- What no photo shows is invented: plausible, not true. The seen map says which pixels were
  observed; do not rely on other details of an image.
- Quality is lower for clothes, carried objects and appearances that the training data lacks.
  Children, wheelchairs, prams and animals are not covered.
- Where reconstruction fails (hidden legs, several people, extreme poses), the image is wrong, too.
- Backgrounds and shadows are invented and do not show a real place.

## Misuse

Not for identifying, tracking or profiling people without a lawful basis and their knowledge, not
for evidence of any kind, not for images presented as real ones, and not for weapons' guidance.
Images written by `viewsynth generate` are marked as synthetic (XMP digitalSourceType): keep the
mark. Images that you save from a call of the pipeline are not: `viewsynth.runtime.images.jpeg` sets
it.

## Licence

Weights: {licence}. The code is Apache-2.0. The rights in a photo, and data protection law, also
apply to images generated from it.
"""


def text(pipeline, where: str) -> str:
    """The text of a pipeline's model card.

    Args:
        pipeline: A `ViewDiffusionPipeline`.
        where: Folder or hub id that it will be loaded from.
    """
    parts = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in pipeline.components.items()
        if hasattr(part, "parameters")
    }
    each = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parts.items())
    licence, encoder = pipeline.config.licence, pipeline.identity_encoder
    kind = "none" if encoder is None else type(getattr(encoder, "model", encoder)).__name__
    return TEXT.format(
        licence=licence,
        # The hub's tag for licences that it does not know is "other".
        tag="other" if licence == "unknown" else licence.lower(),
        height=pipeline.size[0],
        width=pipeline.size[1],
        parameters=f"{sum(parts.values()) / 1e6:.2f} M ({each})",
        prediction=pipeline.scheduler.config.get("prediction_type", "epsilon"),
        scheduler=type(pipeline.scheduler).__name__,
        identity=kind,
        call=CALL.format(where=where),
        training=pipeline.config.training
        or "None: the weights are random or those of a base model, and the conditions have no "
        "effect yet.",
    )


def describe_training(
    pipeline, pairs, rows: list[int], steps: str, base: str, licences: dict
) -> None:
    """Store the description of the training run for the card in the pipeline's config.

    Args:
        pipeline: A `ViewDiffusionPipeline`; its config is changed.
        pairs: `Pairs` that it was trained on.
        rows: Numbers of the pairs.
        steps: Number of steps, in words.
        base: Name of the weights that training started from.
        licences: SPDX identifiers of data and weights, by part.
    """
    kinds = [pairs.rows[k]["kind"] for k in rows]
    people = len({pairs.rows[k]["pid"] for k in rows})
    parts = licences | {"viewsynth": "Apache-2.0"}
    named = "; ".join(f"{part}: {licence}" for part, licence in parts.items())
    description = (
        f"{len(rows)} pairs of {people} people: {kinds.count('exact')} exact by the pixel, from a "
        f"rendered world, {kinds.count('identity')} of the same identity, from images of people. "
        f"{steps}, starting from {base}. Licences of data and weights: {named}."
    )
    free = all(commercial(one) == "yes" for one in parts.values())
    licence = " AND ".join(sorted(set(parts.values()))) if free else "unknown"
    pipeline.register_to_config(training=description, licence=licence)
