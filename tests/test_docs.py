# SPDX-License-Identifier: Apache-2.0
"""README and docs: every command line is one that its command takes, and the Python blocks run.

Nothing of a command is run: its options are parsed. Blocks of one page share a namespace. Those of
`docs/extend` are files with a title, which are written into a copy of the package and loaded there.
Links between pages are checked by `mkdocs build --strict`.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import documents
import pytest
import releases
import tiny_pairs
from documents import PAGES, ROOT
from PIL import Image

import viewsynth
from viewsynth import commands, config
from viewsynth.commands import generate, world

SCRIPTS = ("generate.py", "train.py", "evaluate.py")
# Programs of others, whose lines are not checked further.
OTHERS = {"cd", "git", "mkdocs", "pip", "pre-commit", "pytest", "python3", "ruff", "source"}
OTHERS |= {".ci/run", "nice"}
# Options of others that pages mention.
FOREIGN = "cpu multi_gpu num_processes num_machines machine_rank main_process_ip main_process_port"
FOREIGN = {f"--{name}" for name in f"{FOREIGN} help".split()}
MATCHED = "drone.yaml"  # a preset that `viewsynth match` writes
EXTEND = [page for page in PAGES if page.parent.name == "extend" and documents.blocks(page)]
PYTHON = [
    page
    for page in PAGES
    if page not in EXTEND and any(block.language == "python" for block in documents.blocks(page))
]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# ---- command lines -------------------------------------------------------------------------------


def parse(cls, words: list[str]):
    """The configuration that options ask for; a question for help is none."""
    words = words[1:] if words[:1] == [MATCHED] else words
    presets = [
        ROOT / word for word in words if word.endswith((".yaml", ".yml")) and word != MATCHED
    ]
    assert all(preset.is_file() for preset in presets), words
    return config.parse(cls, [word for word in words if word != "--help"], "docs")


def parse_command(command: str, words: list[str]):
    assert command in commands.names(), f"there is no command {command}"
    module = importlib.import_module(f"viewsynth.commands.{command.replace('-', '_')}")
    return parse(module.Config, words)


def parse_launch(words: list[str]):
    """What `accelerate launch` starts, by accelerate's own parser."""
    from accelerate.commands.launch import launch_command_parser

    if not any(word.endswith(".py") or word == "-m" for word in words):
        words = [*words, "generate.py"]  # a mention of the launcher's options alone
    asked = launch_command_parser().parse_args(words)
    if asked.module:
        package, _, module = asked.training_script.rpartition(".")
        assert package == "viewsynth.commands"
        return parse_command(module.replace("_", "-"), asked.training_script_args)
    return parse_script(asked.training_script, asked.training_script_args)


def parse_script(path: str, words: list[str]):
    assert (ROOT / path).is_file(), path
    if path in SCRIPTS:
        return parse_command(path.removesuffix(".py"), words)
    folder, _, file = path.partition("/")
    if folder == "pipelines":
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(ROOT / "pipelines"))
            module = importlib.import_module(file.removesuffix(".py"))
        return parse(getattr(module, "Config", generate.Config), words)
    assert folder == "benchmarks"
    words, _, rest = (" ".join(words)).partition(" -- ")  # kills.py hands the rest to generate
    if rest:
        parse_command("generate", rest.split())
    unknown = {word for word in words.split() if word.startswith("--")} - benchmark_options(path)
    assert not unknown, f"{path} has no {unknown}"
    return None


def benchmark_options(path: str) -> set[str]:
    """The options of a benchmark, read from its source: they import much, and measure at once."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = {
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }
    parsed = {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "tyro.cli"}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in parsed:
            found |= {argument.arg for argument in node.args.args}
        elif isinstance(node, ast.ClassDef) and node.name in parsed:
            fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            found |= {line.target.id for line in fields}
    assert found, f"{path} has no options that could be read"
    return {f"--{option.removeprefix('--').replace('_', '-')}" for option in found}


def check(words: list[str]) -> None:
    program, *rest = words
    if program == "accelerate":
        assert rest[0] == "launch"
        parse_launch(rest[1:])
    elif program == "viewsynth":
        if len(rest) == 1 and rest[0].isidentifier():  # a mention of the command
            assert rest[0] in commands.names(), f"there is no command {rest[0]}"
        elif rest and not rest[0].startswith(("-", "<")):
            parse_command(rest[0], rest[1:])
    elif program == "python" and rest[0] != "-m":
        parse_script(rest[0], rest[1:])
    elif program in SCRIPTS:
        parse_script(program, rest)
    else:
        assert program in OTHERS | {"python"}, f"what is {program}?"


LINES = {
    f"{name(page)}: {' '.join(words)}": words
    for page in PAGES
    for words in documents.commands(page)
}


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_one_that_its_command_takes(line):
    check(LINES[line])


@pytest.mark.parametrize(
    "line",
    [
        "viewsynth generate --data.rot photos",
        "accelerate launch generate.py configs/none.yaml",
        "accelerate launch --multi_gpus generate.py",
        "viewsynth paint",
        "python benchmarks/render.py --peple 3",
        "python pipelines/benchmark.py configs/benchmark/small.yaml --train.step 3",
        "accelerate launch -m viewsynth.commands.train_diffusions",
    ],
)
def test_a_wrong_line_is_found(line):
    with pytest.raises((AssertionError, SystemExit)):
        check(line.split())


def known_options() -> set[str]:
    found = set(FOREIGN)
    for command in commands.names():
        module = importlib.import_module(f"viewsynth.commands.{command.replace('-', '_')}")
        fields = config._fields(module.Config)
        found |= {config._flag(field) for field in fields}
        found |= {config._flag(config._negated(field)) for field in fields}
    for path in (ROOT / "benchmarks").glob("*.py"):
        if "__main__" in path.read_text(encoding="utf-8"):
            found |= benchmark_options(f"benchmarks/{path.name}")
    for pipeline in ("benchmark", "sd_reid", "view_diffusion"):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(ROOT / "pipelines"))
            module = importlib.import_module(pipeline)
        found |= {config._flag(field) for field in config._fields(module.Config)}
    return found


def test_every_option_that_is_mentioned_exists():
    known = known_options()
    groups = {option.partition(".")[0] for option in known if "." in option}
    for page in PAGES:
        for code in documents.inline(page):
            if code.startswith("--"):  # commands are parsed as a whole
                options = {word.partition("=")[0] for word in code.split() if word[:2] == "--"}
                assert options <= known | groups, f"{name(page)}: `{code}`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_presets_of_a_page_parse(page, tmp_path):
    for block in documents.blocks(page):
        if block.language == "yaml":
            preset = tmp_path / "preset.yaml"
            preset.write_text(block.text, encoding="utf-8")
            config.parse(generate.Config, [str(preset)], "docs")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_exist(page):
    """Paths of the repository in backticks, but for what a run or a reader writes."""
    for code in documents.inline(page):
        if code.startswith(("viewsynth/", "configs/", "tests/", "benchmarks/", "pipelines/")):
            assert "<" in code or list(ROOT.glob(code)), f"{name(page)}: {code}"


def test_every_command_preset_and_package_is_told_of():
    told = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for command in commands.names():
        assert f"viewsynth {command}" in told, command
    for preset in (ROOT / "configs").glob("*.yaml"):
        assert f"configs/{preset.name}" in told, preset.name
    modules = {path.stem for path in (ROOT / "viewsynth").iterdir() if path.name[0] not in "._"}
    for module in modules - {"cli"}:
        page = ROOT / "docs" / "api" / f"{module}.md"
        assert f"::: viewsynth.{module}\n" in page.read_text(encoding="utf-8"), module


# ---- Python blocks -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory, pose_model, detector) -> Path:
    """A folder with what the pages speak of: a run, photos, a world, a data set, a pipeline."""
    folder = tmp_path_factory.mktemp("docs")
    asked = "--data.people 1 --views.elevations 60 --views.azimuths 0 --workers 1 --report no"
    demo = folder / "outputs" / "demo"
    assert not generate.run(
        config.parse(generate.Config, [*asked.split(), "--output", str(demo)], "docs")
    )
    for side in ("front", "back"):
        shutil.copy(demo.with_name("demo_photos") / "0000" / f"{side}.jpg", folder)
    asked = "--people 1 --images-per-person 4 --instants 0 --workers 1"
    made = ["--output", str(folder / "outputs" / "world")]
    assert not world.run(config.parse(world.Config, [*asked.split(), *made], "docs"))
    releases.write("cargo", (folder / "data").resolve() / "CARGO")
    tiny_pairs.pipeline().save_pretrained(folder / "outputs" / "train_diffusion" / "pipeline")
    return folder


def test_pages_with_python_are_found():
    assert {"README.md", "docs/guides/notebook.md", "docs/guides/world.md"} <= set(
        map(name, PYTHON)
    )


@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_of_a_page_runs(page, place, monkeypatch):
    monkeypatch.chdir(place)
    namespace: dict = {}
    for block in documents.blocks(page):
        needed = block.mark.removeprefix("needs ") if block.mark.startswith("needs ") else "json"
        if block.language != "python" or not importlib.util.find_spec(needed):
            continue
        if "Synthesizer" in block.text and not hasattr(viewsynth, "Synthesizer"):
            pytest.skip("there is no Synthesizer yet")
        exec(compile(block.text, block.where, "exec"), namespace)
    for value in namespace.values():
        if isinstance(value, Image.Image):
            value.close()


DRIVER = """
import json, sys, traceback
for where, text in json.load(sys.stdin):
    try:
        exec(compile(text, where, "exec"), {})
    except Exception:
        print(traceback.format_exc())
        sys.exit(f"{where} failed")
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the package with the files of all examples in it."""
    folder = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "viewsynth", folder / "viewsynth", ignore=ignored)
    for page in EXTEND:
        for block in documents.blocks(page):
            if block.title:
                assert not (ROOT / block.title).exists(), f"{block.where}: {block.title} is taken"
                assert block.text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
                (folder / block.title).write_text(block.text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("page", EXTEND, ids=name)
def test_an_example_of_extend_is_loaded_and_used(page, extended, place):
    found = [block for block in documents.blocks(page) if block.language == "python"]
    files = [block for block in found if block.title]
    used = [(block.where, block.text) for block in found if not block.title]
    assert files and used
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(used),
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(extended), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_examples_keep_the_style(extended):
    ruff = shutil.which("ruff") or Path(sys.executable).with_name("ruff")
    files = [str(extended / b.title) for page in EXTEND for b in documents.blocks(page) if b.title]
    settings = ["--config", str(ROOT / "pyproject.toml")]
    for what in (["check"], ["format", "--check"]):
        done = subprocess.run([ruff, *what, *settings, *files], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
