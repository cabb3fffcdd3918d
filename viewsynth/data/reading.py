# SPDX-License-Identifier: Apache-2.0
"""Options of every command that reads a data set: which one, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Source:
    """Which data set to read."""

    name: str = "folder"
    """Layout of the data set: the name of a module of viewsynth.data."""
    root: Path | None = None
    """Folder of the data set."""


@dataclass(frozen=True)
class Reading:
    """How to read a folder of your own images; released data sets have a fixed form."""

    form: Literal["auto", "table", "folders", "splits"] = "auto"
    """table: metadata.csv or metadata.jsonl; folders: one folder per person; splits: folders train,
    query, gallery; auto: decided by the content, an error where two readings are possible."""
    box: Literal["auto", "xyxy", "xywh", "fraction"] = "auto"
    """Column box: xyxy: left, top, right, bottom; xywh: x, y, width, height; fraction: left, top,
    right, bottom from 0 to 1; auto: xyxy, an error where the column shows another form."""
    elevation: Literal["horizon", "pitch", "nadir"] = "horizon"
    """Column elevation: horizon: degrees above the horizon; pitch: pitch of the camera (negative
    looks down); nadir: degrees from straight down."""

    def given(self) -> list[str]:
        """Options that differ from their defaults, as written on the command line."""
        own = {field.name: getattr(self, field.name) for field in fields(Reading)}
        default = {field.name: field.default for field in fields(Reading)}
        return [f"--data.{key}={value}" for key, value in own.items() if value != default[key]]


def told(data: dict) -> dict:
    """The group `data` of a configuration without the options of `Reading` that have their default.

    Runs store this form, so that a run started before these options existed can be resumed.

    Args:
        data: The group as a dict.
    """
    default = {field.name: field.default for field in fields(Reading)}
    return {key: value for key, value in data.items() if default.get(key, ...) != value}
