# SPDX-License-Identifier: Apache-2.0
"""The stages that `benchmarks/generate.py` times exist."""

import functools
import importlib


def test_every_timed_function_exists(benchmarks):
    for names in benchmarks("generate").STAGES.values():
        for name in names:
            module, function = name.split(":")
            found = importlib.import_module(f"viewsynth.{module}")
            assert callable(functools.reduce(getattr, function.split("."), found)), name
