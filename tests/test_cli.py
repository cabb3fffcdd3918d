# SPDX-License-Identifier: Apache-2.0
"""The program: names and list of commands, and closed output streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viewsynth import cli, commands

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-c", "from viewsynth import cli; cli.main()"]


def run_closed(argv: list[str], *streams: str, cwd: Path = ROOT) -> tuple[int, str]:
    """Run a program whose `streams` are closed; returns its status and its other output."""
    ends, given = [], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for name in streams:
        read, given[name] = os.pipe()
        os.close(read)
        ends.append(given[name])
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, "PYTHONPATH": paths}, text=True, **given
    )
    for end in ends:
        os.close(end)
    return done.returncode, (done.stdout or "") + (done.stderr or "")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder of people with one broken file."""
    root = tmp_path_factory.mktemp("closed") / "set"
    for number in range(2000):
        path = root / f"person{number}" / "a.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 20, 3), number % 250, np.uint8)).save(path)
    return root


@pytest.mark.parametrize(
    "argv", ["--help", "--version", "", "generate --help", "train-diffusion --help", "doctor"]
)
def test_a_closed_pipe_is_no_error(argv):
    status, said = run_closed([*PROGRAM, *argv.split()], "stdout")
    assert (status, said) == (0, "") or (argv == "doctor" and status < 2 and "rror" not in said)


@pytest.mark.parametrize(
    "name", ["generate.py", "pipelines/omni_view.py", "pipelines/benchmark.py"]
)
def test_other_programs_behave_alike(name):
    assert run_closed([sys.executable, name, "--help"], "stdout") == (0, "")


@pytest.mark.parametrize("streams", [["stdout"], ["stderr"], ["stdout", "stderr"]])
def test_the_command_finishes_without_a_reader(pictures, tmp_path, streams):
    argv = ["data", "folder", str(pictures), "--json", "--output", str(tmp_path / "out")]
    status, said = run_closed([*PROGRAM, *argv], *streams)
    assert status == 0 and "Error" not in said and "Traceback" not in said
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"data.json", "rejects.jsonl", "contact_sheet.png"}
    assert ("look at" in said) == ("stderr" not in streams)


def test_the_exit_status_is_that_of_the_command(tmp_path):
    for streams in (["stdout"], ["stderr"], ["stdout", "stderr"]):
        status, said = run_closed([*PROGRAM, "data", "folder", str(tmp_path / "none")], *streams)
        assert status == 2 and "Traceback" not in said
    broken = tmp_path / "set" / "p" / "a.jpg"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no picture")
    argv = ["data", "folder", str(tmp_path / "set"), "--output", str(tmp_path / "out")]
    assert run_closed([*PROGRAM, *argv], "stdout", "stderr") == (1, "")


def test_head_in_a_shell(pictures, tmp_path):
    """Long output through `head`."""
    program = f"{sys.executable} -c 'from viewsynth import cli; cli.main()'"
    data = f"data folder {pictures} --no-open --output {tmp_path / 'out'}"
    for line in ("--help", "generate --help", f"{data} --json", data):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{program} {line} | head -1"],
            cwd=ROOT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
        )
        assert done.returncode == 0 and done.stdout.count("\n") == 1, line
        assert "Error" not in done.stderr and "Traceback" not in done.stderr, line


def test_standard_output_that_was_never_open():
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -c 'from viewsynth import cli; cli.main()' --help >&-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["generate", "--help"], ["data"]])
def test_standard_output_that_is_full(argv, pictures, tmp_path):
    if argv == ["data"]:
        argv = [*argv, "folder", str(pictures), "--json", "--output", str(tmp_path / "out")]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*PROGRAM, *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert last.startswith("viewsynth: error: standard output cannot be written: No space left")


def test_other_errors_of_a_command_are_raised(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "/proc/nothing"])
    assert ended.value.code == 2 and "error: /proc/nothing is no run" in capsys.readouterr().err


def test_the_overview_has_columns():
    lines = [line for line in cli.overview().splitlines() if line.startswith("  ")]
    columns = {len(line) - len(line.lstrip().partition(" ")[2].lstrip()) for line in lines}
    assert len(columns) == 1 and len(lines) == len(commands.names())
    for line, name in zip(lines, commands.names(), strict=True):
        assert line.split()[0] == name and line.endswith(commands.summary(name))


@pytest.mark.parametrize("name", commands.names())
def test_a_command_has_one_spelling(name, capsys):
    assert "_" not in name
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--nonsense"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"viewsynth {name}: error: unknown option")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train_diffusion", "did you mean train-diffusion?"),
        ("train_sd_reid", "did you mean train-sd-reid?"),
        ("train-sd_reid", "did you mean train-sd-reid?"),
        ("train-difusion", "did you mean train-diffusion?"),
        ("Generate", "did you mean generate?"),
        ("xyz", "the commands are compare, convert, data, doctor,"),
    ],
)
def test_other_spellings_are_corrected(typed, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([typed, "--help"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and f"no command {typed!r}; {said}" in error
    assert "train_" not in error.partition(";")[2]


def test_texts_spell_commands_with_hyphens():
    """No text has `viewsynth train_…`; only module names have underscores."""
    paths = [
        *ROOT.glob("*.md"),
        *(ROOT / "viewsynth").rglob("*.py"),
        *(ROOT / "configs").rglob("*"),
    ]
    for path in filter(Path.is_file, paths):
        assert "viewsynth train_" not in path.read_text(encoding="utf-8"), path


def test_modules_run_by_name_print_the_command(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        commands.main("train_diffusion", ["--nonsense"])
    assert capsys.readouterr().err.startswith("viewsynth train-diffusion: error:")
