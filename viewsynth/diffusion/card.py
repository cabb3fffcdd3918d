# SPDX-License-Identifier: Apache-2.0
"""Card: the README.md that `ViewDiffusionPipeline.save_pretrained` writes beside a model."""

from __future__ import annotations

from viewsynth.runtime.licences import commercial

CALL = """```python
from PIL import Image
from viewsynth.diffusion.pipeline import ViewDiffusionPipeline

pipe = ViewDiffusionPipeline.from_pretrained("{where}")
made = pipe(Image.open("person.jpg"), elevation=60, azimuth=[0, 90, 180, 270])
made.images[0].save("from_above.png")
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

A pipeline of diffusers, for viewsynth: a latent diffusion model that takes a ground photo of a
person, a rendering of the person's reconstructed body at the wished-for camera, which of its pixels
were really seen, and the camera's numbers; it gives the picture that a drone might have taken.

- **Pictures**: {height} x {width} (height x width), stretched from and to the crop's proportions.
- **Parameters**: {parameters}.
- **Prediction**: {prediction}; scheduler {scheduler}, any other of diffusers may be set.
- **Identity encoder**: {identity}.

## How to call it

{call}

With people and cameras of your own, build `viewsynth.diffusion.conditions.Conditions` and call
`pipe.sample`. The code of the pipeline is the Python package viewsynth.

## Training data

{training}

## Purpose

Research on aerial-ground person re-identification: to enlarge *training* sets with views that are
missing, and to measure how much that helps.

## Limits

- What no photo showed is invented: it is likely, not true. The seen mask says which pixels were
  observed; trust no other detail of a picture.
- People who wear, carry or look like what the training data lacks come out worse. Children,
  wheelchairs, prams and animals are not covered.
- Where reconstruction fails (hidden legs, several people, extreme poses), the picture fails.
- It says nothing about a real place: backgrounds and shadows are invented.

## Misuse

Not for identifying, tracking or profiling people without a lawful basis and their knowledge, not
for evidence of any kind, not for pictures that pass for real ones, and not for weapons' guidance.
What `viewsynth generate` writes is marked as synthetic (XMP digitalSourceType): keep the mark. What
you save of a call of the pipeline has none: `viewsynth.runtime.images.jpeg` sets it.

## Licence

Weights: {licence}. The code is Apache-2.0. A photo's own rights, and data protection law, hold for
what is made of it.
"""


def text(pipeline, where: str) -> str:
    """The card of a pipeline.

    Args:
        pipeline: A `ViewDiffusionPipeline`.
        where: Folder or hub id by which it will be loaded.
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
        # What the hub does not know it calls other.
        tag="other" if licence == "unknown" else licence.lower(),
        height=pipeline.size[0],
        width=pipeline.size[1],
        parameters=f"{sum(parts.values()) / 1e6:.2f} M ({each})",
        prediction=pipeline.scheduler.config.get("prediction_type", "epsilon"),
        scheduler=type(pipeline.scheduler).__name__,
        identity=kind,
        call=CALL.format(where=where),
        training=pipeline.config.training
        or "Not trained: the weights are random or a base "
        "model's, and the conditions have no effect yet.",
    )


def tell(pipeline, pairs, rows: list[int], steps: str, base: str, licences: dict) -> None:
    """Let a pipeline know what its card says of its training.

    Args:
        pipeline: A `ViewDiffusionPipeline`; its config is changed.
        pairs: `Pairs` that it learnt from.
        rows: Which of them.
        steps: How many of what, in words.
        base: Name of the weights that it started with.
        licences: SPDX identifiers of what it was made from, by part.
    """
    kinds = [pairs.rows[k]["kind"] for k in rows]
    people = len({pairs.rows[k]["pid"] for k in rows})
    parts = licences | {"viewsynth": "Apache-2.0"}
    said = "; ".join(f"{part}: {licence}" for part, licence in parts.items())
    told = (
        f"{len(rows)} pairs of {people} people: {kinds.count('exact')} exact by the pixel, from a "
        f"rendered world, {kinds.count('identity')} alike in identity, from pictures of people. "
        f"{steps}, from the base {base}. Licences of what it was made from: {said}."
    )
    free = all(commercial(one) == "yes" for one in parts.values())
    licence = " AND ".join(sorted(set(parts.values()))) if free else "unknown"
    pipeline.register_to_config(training=told, licence=licence)
