# SPDX-License-Identifier: Apache-2.0
"""Revisions of the world: what is drawn differently from one to the next.

this module -> people, sensor, scenes, shots, rig, writer. Code that only adds something is shared;
what a revision changes is a value here, a table that the module of the matter keeps for each
revision, or a field whose neutral value leaves the image as it was. So a world of an older revision
is rendered with the same bytes as when that revision was the newest.

1: colours, cameras and company set by hand. 2: clothes by counted frequencies (`wardrobe`), cloth
with seams, quilting and deeper creases, people who dress alike, company, cameras that differ as
filmed ones do.
"""

from __future__ import annotations

from dataclasses import dataclass

NEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Revision:
    """Numbers that one revision of the world uses.

    Args:
        alike: Share of people who wear the uniform of a team.
        teams: Number of teams.
        company: Share of images with other people near.
        companions: Largest number of other people in an image.
        weathers: Shares of `scenes.WEATHERS`.
        low_sun: Lowest height of the sun, degrees.
        glare: Mean of `scenes.Place.glare`.
        drone_pixels: Range of the height of people in a drone's image, pixels.
        front, behind: Share of images with something between camera and person, and behind.
    """

    alike: float
    teams: int
    company: float
    companions: int
    weathers: tuple[float, float, float, float]
    low_sun: float
    glare: float
    drone_pixels: tuple[float, float]
    front: float
    behind: float


REVISIONS = {
    1: Revision(
        alike=0.04,
        teams=12,
        company=0.15,
        companions=1,
        weathers=(0.42, 0.22, 0.28, 0.08),
        low_sun=24,
        glare=0.0,
        drone_pixels=(28.0, 150.0),
        front=0.1,
        behind=0.16,
    ),
    2: Revision(
        alike=0.16,
        teams=6,
        company=0.36,
        companions=2,
        weathers=(0.42, 0.2, 0.28, 0.1),
        low_sun=14,
        glare=0.015,
        drone_pixels=(36.0, 105.0),
        front=0.15,
        behind=0.3,
    ),
}


def of(number: int) -> Revision:
    """Numbers of a revision.

    Raises:
        ValueError: If there is no such revision.
    """
    if number not in REVISIONS:
        known = ", ".join(map(str, REVISIONS))
        raise ValueError(
            f"revision must be one of {known}; got {number}: a later version of viewsynth may "
            "know it"
        )
    return REVISIONS[number]
