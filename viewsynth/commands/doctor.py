# SPDX-License-Identifier: Apache-2.0
"""Check the installation: what is there, what is missing, and the command that fixes it.

viewsynth doctor [--json] [--fetch]

Exits with status 1 if something that `generate` needs is missing or broken.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import viewsynth

ROOM = 2.0  # GB that a first run of `generate` writes, rounded up
OPTIONAL = {
    "pillow_heif": "pip install 'viewsynth[heif]'  (HEIC images)",
    "av": "pip install 'viewsynth[video]'  (videos)",
    "smplx": "pip install 'viewsynth[smplx]'  (non-commercial licence: read it first)",
    "pytorch3d": "built from source, see pytorch3d's INSTALL.md",
    "xformers": "pip install 'viewsynth[xformers]'  (for CUDA only)",
}


@dataclass(frozen=True)
class Config:
    """What is installed, what is missing, and the command that fixes it."""

    json: bool = False
    """Print one JSON object instead of lines."""
    fetch: bool = False
    """First fetch the model files and build the body model, as a first run of generate does."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        group: python, packages, devices, caches, weights, optional or self-test.
        name: What is checked.
        state: "ok", "missing" (required: exit status 1) or "absent" (optional).
        said: The result in words.
        remedy: The command that fixes it; "" if nothing needs fixing.
    """

    group: str
    name: str
    state: str
    said: str
    remedy: str = ""


def run(config: Config) -> int:
    """Check, print, and return 1 if something required is missing."""
    if config.fetch:
        _fetch()
    findings = list(examine())
    bad = [finding for finding in findings if finding.state == "missing"]
    if config.json:
        tree = {"ok": not bad, "findings": [asdict(finding) for finding in findings]}
        sys.stdout.write(json.dumps(tree, indent=1) + "\n")
        return 1 if bad else 0
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            sys.stdout.write(f"{group}\n")
        mark = {"ok": "  ok     ", "missing": "  MISSING", "absent": "  -      "}[finding.state]
        sys.stdout.write(f"{mark} {finding.name:<14} {finding.said}\n")
        if finding.remedy:
            sys.stdout.write(f"{'':24} -> {finding.remedy}\n")
    verdict = f"{len(bad)} thing(s) missing, see MISSING above" if bad else "ready"
    sys.stdout.write(f"{verdict}\n")
    return 1 if bad else 0


def examine() -> Iterator[Finding]:
    """All findings, in order."""
    yield _python()
    yield from _packages()
    yield from _devices()
    yield from _caches()
    yield from _weights()
    for name, remedy in OPTIONAL.items():
        there = importlib.util.find_spec(name) is not None
        said = _version(name) if there else "not installed"
        if name == "xformers" and there and not _cuda():
            said += "; not used: torch sees no CUDA device"
        yield Finding("optional", name, "ok" if there else "absent", said, "" if there else remedy)
    yield _refiner()
    yield _tried("rasteriser", _render, "pip install --force-reinstall torch")
    yield _tried("pose model", _pose, "viewsynth doctor --fetch")


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    said = f"{platform.python_version()} on {platform.platform()}"
    remedy = "" if fits else "python3.12 -m venv .venv  (Python 3.11 to 3.13)"
    return Finding("python", "python", "ok" if fits else "missing", said, remedy)


def _requirements() -> list[str]:
    """The package's requirements, from the installation or the pyproject.toml of the checkout."""
    try:
        listed = importlib.metadata.requires("viewsynth") or []
    except importlib.metadata.PackageNotFoundError:
        project = Path(viewsynth.__file__).parents[1] / "pyproject.toml"
        listed = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [text for text in listed if "extra ==" not in text]


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    yield Finding("packages", "viewsynth", "ok", viewsynth.__version__)
    for requirement in map(Requirement, _requirements()):
        version = _version(requirement.name)
        fits = version != "" and requirement.specifier.contains(version, prereleases=True)
        remedy = "" if fits else f"pip install '{requirement}'"
        said = version or "not installed"
        if version and not fits:
            said += f"; needed: {requirement.specifier}"
        yield Finding("packages", requirement.name, "ok" if fits else "missing", said, remedy)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cuda() -> bool:
    try:
        import torch

        return torch.cuda.is_available()
    except ImportError:
        return False


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f", {total / 1e9:.0f} GB of memory"
    yield Finding("devices", "cpu", "ok", f"{cores} cores{memory}")
    if not _cuda():
        yield Finding("devices", "cuda", "absent", "none that torch sees; the CPU is used")
        return
    import torch

    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        said = f"{about.name}, {about.total_memory / 1e9:.0f} GB"
        yield Finding("devices", f"cuda:{number}", "ok", said)


def _caches() -> Iterator[Finding]:
    from viewsynth.runtime import weights

    cache, anny = weights.cache_dir(), weights.anny_cache()
    yield Finding("caches", "viewsynth", "ok", f"{cache}, {_size(cache):.2f} GB")
    built = any(anny.glob("v*/build_compact_model_data_*.safetensors"))
    yield Finding(
        "caches",
        "anny",
        "ok" if built else "missing",
        f"{anny}, {_size(anny):.2f} GB" if built else f"the body model is not built yet in {anny}",
        "" if built else "viewsynth doctor --fetch  (takes a minute; generate does it as well)",
    )
    for name, folder in (("cache's disk", cache), ("this folder", Path.cwd())):
        there = next(path for path in [folder, *folder.parents] if path.exists())
        free = shutil.disk_usage(there).free / 1e9
        yield Finding(
            "caches",
            name,
            "ok" if free >= ROOM else "missing",
            f"{free:.1f} GB free",
            "" if free >= ROOM else f"free {ROOM:g} GB there, or set VIEWSYNTH_CACHE=DIR",
        )


def _size(folder: Path) -> float:
    """Size of all files in GB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def _weights() -> Iterator[Finding]:
    from viewsynth.runtime import weights

    for model in (weights.POSE, weights.DETECTOR):
        path = weights.cached(model)
        said = f"{path} ({model.licence}, {model.origin})" if path else "not fetched yet"
        remedy = f"viewsynth doctor --fetch  (or give generate {model.flag} FILE)"
        state, remedy = ("ok", "") if path else ("missing", remedy)
        yield Finding("weights", model.name.removesuffix(".tflite"), state, said, remedy)


def _refiner() -> Finding:
    """The refiner that comes with the package."""
    folder = Path(viewsynth.__file__).parent / "diffusion" / "bundled"
    if not (folder / "model_index.json").is_file():
        return Finding(
            "optional",
            "refiner",
            "absent",
            "not included in this version; views are not repaired",
            "viewsynth train-diffusion trains one, for generate --refine.engine DIR",
        )
    said = f"{1000 * _size(folder):.0f} MB, for generate --refine.engine bundled"
    return Finding("optional", "refiner", "ok", said)


def _tried(name: str, test: Callable[[], str], remedy: str) -> Finding:
    """Run a test; an error in it is a finding, not a crash."""
    start = time.perf_counter()
    try:
        said = test()
    except Exception as error:  # noqa: BLE001 - every failure is reported
        said = f"{type(error).__name__}: {error}"
        return Finding("self-test", name, "missing", said, remedy)
    return Finding("self-test", name, "ok", f"{said} ({time.perf_counter() - start:.1f} s)")


def _render() -> str:
    """Rasterize a square with known pixels on every device."""
    import torch

    from viewsynth.render.zbuffer import rasterize

    devices = ["cpu"] + (["cuda"] if _cuda() else [])
    expected = torch.full((8, 8), -1, dtype=torch.int32)
    for row in range(1, 5):
        for column in range(2, 6):  # the diagonal belongs to the upper right triangle
            expected[row, column] = int(column - 2 < row - 1)
    for device in devices:
        pixels = torch.tensor([[[2.0, 1], [6, 1], [6, 5], [2, 5]]], device=device)
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]], device=device)
        depth = torch.full((1, 4), 3.0, device=device)
        hit = rasterize(pixels, depth, faces, (8, 8))
        wrong = int((hit.face[0].cpu() != expected).sum())
        if wrong or not torch.allclose(hit.depth[0].cpu()[expected >= 0], torch.tensor(3.0)):
            raise RuntimeError(f"{wrong} of 64 pixels are wrong on {device}")
    return f"known pixels are correct on {' and '.join(devices)}"


def _pose() -> str:
    """Load the pose and detection models from the cache and run them once."""
    import numpy as np

    from viewsynth.reconstruct.tflite import Model
    from viewsynth.runtime import weights

    for file in (weights.POSE, weights.DETECTOR):
        path = weights.cached(file)
        if path is None:
            raise FileNotFoundError(
                f"{file.name} is not in the cache; viewsynth doctor --fetch puts it there"
            )
        model = Model(path)
        out = model(np.full((1, *model.size, 3), 0.5, np.float32))
        if not all(np.isfinite(values).all() for values in out.values()):
            raise RuntimeError(f"{file.name} returns values that are not finite")
    return "both models load and run"


def _fetch() -> None:
    """Fetch the model files and build the body model."""
    from viewsynth import bodies
    from viewsynth.runtime import weights

    for get in (weights.pose_model, weights.detector_model):
        sys.stderr.write(f"{get()} is there\n")
    sys.stderr.write("building the body model (once, about a minute)\n")
    bodies.load("anny")
