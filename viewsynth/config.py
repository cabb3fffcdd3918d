# SPDX-License-Identifier: Apache-2.0
"""Configuration: defaults of a dataclass, then YAML presets, then flags; later values win.

A YAML preset is a file of saved flags: its tree is flattened to `--a.b value` tokens that are put
before the command line, and tyro parses all of it once. So there is one grammar and one validator.
An error is one line on standard error, with what was given, what was expected and similar names,
and exit status 2.

Not supported, each with an error: dict fields, lists of dataclasses, YAML text that starts with
`--`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml

T = TypeVar("T")

PRESET = (".yaml", ".yml")
LARGEST = 1 << 20  # bytes of a preset, which is a page of text


def parse(cls: type[T], argv: list[str] | None = None, prog: str | None = None) -> T:
    """Parse a command line into a configuration.

    Args:
        cls: A dataclass; groups of options are nested dataclasses.
        argv: `[preset.yaml ...] [--group.key value ...]`, None = the arguments of the program.
        prog: Name of the program in help and errors.

    Returns:
        An instance of `cls`.

    Raises:
        SystemExit: status 2 after one line on standard error; status 0 after `--help`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    prog = prog or Path(sys.argv[0]).name
    fields = _fields(cls)
    presets = []
    while argv and argv[0].lower().endswith(PRESET):
        presets.append(argv.pop(0))
    try:
        options = [option for preset in presets for option in _read(Path(preset), fields)]
        options += _split(argv, fields)
    except (ValueError, OSError) as error:
        fail(prog, str(error))
    try:
        return _tyro(cls, options, prog)
    except _OptionError as error:
        fail(prog, _explain(cls, options, fields, prog, str(error)))
    except ValueError as error:  # of the outermost dataclass; groups raise _OptionError
        fail(prog, str(error))


def fail(prog: str, message: str, status: int = 2, everyone: bool = False) -> NoReturn:
    """Write an error to standard error and exit.

    Args:
        prog: Name of the program.
        message: One line.
        status: Exit status.
        everyone: Whether every process of a launcher writes, or only the first.

    Raises:
        SystemExit: always.
    """
    if everyone or os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{prog}: error: {message}\n")
    raise SystemExit(status)


def within(name: str, value: float | None, low: float, high: float, unit: str = "") -> None:
    """Check that a number is in a range; `None` passes.

    Args:
        name: Dotted name of the option.
        value: The number.
        low: Lowest allowed value.
        high: Highest allowed value.
        unit: Unit for the message.

    Raises:
        ValueError: if it is not; the message has the name, the range and the value.
    """
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}]{unit and ' ' + unit}, got {value}")


def to_dict(config) -> dict:
    """A configuration as nested plain values, as in YAML and JSON."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def dump(config) -> str:
    """A configuration as a YAML preset that `parse` reads back to an equal one."""
    # ASCII only: PyYAML writes U+0085 unescaped and reads it back as a line end.
    return yaml.safe_dump(to_dict(config), sort_keys=False, width=1000)


def flags(config) -> list[str]:
    """The options, without those at their default, that `parse` reads back to an equal value."""
    found = []
    for key, _, value in differences(to_dict(type(config)()), to_dict(config)):
        if isinstance(value, bool):
            found.append(_flag(key if value else _negated(key)))
        else:
            found += [_flag(key), *map(_token, _listed(value))]
    return found


def differences(a: dict, b: dict, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Differences of two configurations (see `to_dict`): (dotted key, value in a, value in b)."""
    found = []
    for key in [*a, *(key for key in b if key not in a)]:
        one, two = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            found += differences(one, two, f"{prefix}{key}.")
        elif one != two:
            found.append((prefix + key, one, two))
    return found


# ---- YAML ----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML whose scalars stay text, except null, true and false: tyro knows the types.

    (YAML 1.1 would turn `no` into False, `1e-3` into text and 2024-01-01 into a date.)
    """

    yaml_implicit_resolvers: typing.ClassVar[dict] = {}

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases are not allowed ({self.peek_event().start_mark})")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str) or keys.count(key) > 1:
                raise yaml.YAMLError(
                    f"key {key!r} is not text or is given twice ({node.start_mark})"
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), [*"~nN", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:[Tt]rue|TRUE|[Ff]alse|FALSE)$"), [*"tTfF"]
)


def _read(path: Path, fields: dict[str, Any]) -> list[list[str]]:
    """The options of a preset."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"preset {path} {what}; give a YAML file of options")
    if path.stat().st_size > LARGEST:
        raise ValueError(
            f"preset {path} must have at most {LARGEST} bytes, got {path.stat().st_size}; give a "
            "YAML file of options"
        )
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"preset {path} is not plain YAML: {' '.join(str(error).split())}; write `key: value` "
            "lines, as in configs/*.yaml"
        ) from error
    if tree is None:
        return []
    if not isinstance(tree, dict):
        raise ValueError(
            f"preset {path} must be `key: value` lines, got a {type(tree).__name__}; "
            "see configs/*.yaml for examples"
        )
    return list(_flatten(tree, "", path, fields))


def _flatten(tree: dict, prefix: str, path: Path, fields: dict[str, Any]):
    groups = {name.rsplit(".", 1)[0] for name in fields if "." in name}
    for key, value in tree.items():
        name = prefix + key.replace("-", "_")
        if name in groups and (isinstance(value, dict) or value is None):
            yield from _flatten(value or {}, name + ".", path, fields)
        elif name not in fields:
            raise ValueError(f"{path}: unknown key {name!r}{_suggest(name, fields, '')}")
        elif isinstance(value, dict) or any(isinstance(v, dict | list) for v in _listed(value)):
            raise ValueError(f"{path}: {name} must be a value or a list of values, got {value!r}")
        elif fields[name] is bool and isinstance(value, bool):
            yield [_flag(name if value else _negated(name))]
        elif isinstance(value, list):
            yield [_flag(name), *map(_token, value)]
        else:
            yield [f"{_flag(name)}={_token(value)}"]


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


def _token(value) -> str:
    return str(value)  # None -> "None", True -> "True": what tyro reads


# ---- flags ---------------------------------------------------------------------------------------


class _OptionError(Exception):
    """The message of tyro, which did not accept the options."""


def _fields(cls, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> type of every option of a dataclass and its groups."""
    found = {}
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            found.update(_fields(kind, f"{prefix}{name}."))
        elif typing.get_origin(kind) is not typing.ClassVar:
            found[prefix + name] = kind
    return found


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _negated(name: str) -> str:
    group, _, last = name.rpartition(".")
    return f"{group}.no_{last}" if group else f"no_{last}"


def _split(argv: list[str], fields: dict[str, Any]) -> list[list[str]]:
    """The command line as options, each a known flag and its values."""
    known = {*fields, *(_negated(name) for name, kind in fields.items() if kind is bool)}
    options: list[list[str]] = []
    for token in argv:
        name = token.partition("=")[0][2:].replace("-", "_")
        if token.startswith("--") and name != "help":
            if name not in known:
                raise ValueError(f"unknown option --{name}{_suggest(name, fields, '--')}")
            options.append([token])
        elif token in ("-h", "--help") or not options:
            options.append([token])
        else:
            options[-1].append(token)
    return options


def _suggest(name: str, fields: dict[str, Any], dashes: str) -> str:
    last = {full.rpartition(".")[2]: full for full in fields}
    near = difflib.get_close_matches(name, fields, 2, 0.6)
    near += [last[x] for x in difflib.get_close_matches(name.rpartition(".")[2], last, 2, 0.7)]
    near = list(dict.fromkeys(near))[:2]
    return (
        "; did you mean " + " or ".join(dashes + x for x in near) + "?"
        if near
        else ("; there are " + ", ".join(dashes + x for x in fields))
    )


def _tyro(cls: type[T], options: list[list[str]], prog: str) -> T:
    """Parse with tyro; an error that it would print in a box becomes an `_OptionError`."""
    import tyro

    if any(option[0] in ("-h", "--help") for option in options):
        return tyro.cli(cls, args=["--help"], prog=prog)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _wide():
            return tyro.cli(cls, args=[token for option in options for token in option], prog=prog)
    except SystemExit:
        # The box has a title, then the message; its border depends on the terminal's encoding.
        lines = [line.strip("╭╮╰╯│─+|- ") for line in said.getvalue().strip().splitlines()[1:]]
        message = itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines))
        raise _OptionError(" ".join(message) or "the options do not fit together") from None


@contextlib.contextmanager
def _wide():
    """Make the terminal so wide that no line is wrapped."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _explain(cls, options, fields: dict[str, Any], prog: str, said: str) -> str:
    """Name the refused option, what it takes and what was given; else tyro's message."""
    if said.startswith("Error parsing ") and not said.startswith("Error parsing --"):
        return said.partition(": ")[2]  # a ValueError of a group's checks
    for option in options:
        try:
            _tyro(cls, [other for other in options if other is not option], prog)
        except (_OptionError, ValueError):
            continue
        flag, equals, value = option[0].partition("=")
        kind = fields.get(flag[2:].replace("-", "_"))
        got = " ".join(option[1:]) if not equals else value
        if kind is None:
            return f"{said}; presets come first, then --options"
        late = "; presets come before the options" if got.lower().endswith(PRESET) else ""
        return f"{flag} must be {_describe(kind)}; got {got or 'nothing'}{late}"
    return said


def _describe(kind, several: bool = False) -> str:
    """A type in words."""
    words = {int: "whole number", float: "number", str: "text", Path: "path"}
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(arg) for arg in args)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (tuple, list):
        count = "" if origin is list or args[-1] is Ellipsis else f"{len(args)} "
        return count + _describe(args[0], several=True)
    if kind in words:
        return words[kind] + "s" if several else f"a {words[kind]}" if kind is not str else "text"
    return {bool: "a switch without a value", type(None): "None"}.get(kind, str(kind))


def _plain(value):
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value
