# SPDX-License-Identifier: Apache-2.0
"""The options of every command that reads a data set: which one, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Source:
    """Which data set."""

    name: str = "folder"
    """Layout of the data set, a module of viewsynth.data."""
    root: Path | None = None
    """Where it lies."""


@dataclass(frozen=True)
class Reading:
    """How a folder of one's own is read; released data sets have one form only."""

    form: Literal["auto", "table", "folders", "splits"] = "auto"
    """table: metadata.csv or .jsonl; folders: a folder is a person; splits: train, query, gallery;
    auto: told by what is there, and an error where two readings are possible."""
    box: Literal["auto", "xyxy", "xywh", "fraction"] = "auto"
    """Column box: left, top, right, bottom; x, y, width, height; or left, top, right, bottom from 0
    to 1; auto: xyxy, and an error where the column says another form."""
    elevation: Literal["horizon", "pitch", "nadir"] = "horizon"
    """Column elevation: degrees above the horizon; a camera's pitch (negative looks down); or
    degrees from straight down."""

    def given(self) -> list[str]:
        """Those that are not the default, as options of a command."""
        own = {field.name: getattr(self, field.name) for field in fields(Reading)}
        plain = {field.name: field.default for field in fields(Reading)}
        return [f"--data.{key}={value}" for key, value in own.items() if value != plain[key]]


def told(data: dict) -> dict:
    """The group `data` of a configuration as a run keeps it: `Reading` as far as it is given.

    So a run that was begun before these options were there goes on.
    """
    plain = {field.name: field.default for field in fields(Reading)}
    return {key: value for key, value in data.items() if plain.get(key, ...) != value}
