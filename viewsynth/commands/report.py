# SPDX-License-Identifier: Apache-2.0
"""Write the contact sheet and the HTML page of a run again.

viewsynth report outputs/demo
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Config:
    """Contact sheet and report/index.html of the finished chunks of a run."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


def run(config: Config) -> None:
    """Write both files and print where they are."""
    from viewsynth.report import write_report

    write_report(config.run)
    sys.stderr.write(
        f"wrote {config.run / 'report' / 'index.html'} and {config.run / 'contact_sheet.png'}\n"
    )
