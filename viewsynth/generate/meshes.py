# SPDX-License-Identifier: Apache-2.0
"""Find the meshes of a folder and say whose they are; nothing is read but file names.

A mesh is a `Sample` of the modality `records.MESH`, so that the input list of a run has its hash
and that of the files it names (materials, images, buffers), like those of photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from viewsynth.records import MESH, Reject, Sample
from viewsynth.runtime.files import folder_of, pid_of, stem_of

FEW = 5  # names in a message
Person = tuple[str, str]  # pid, outfit


def listed(folder: Path) -> tuple[dict[str, Path], list[Reject]]:
    """The mesh files of a folder and its subfolders.

    Args:
        folder: The folder.

    Returns:
        Path by name, which is the path in the folder without extension; and a reject for every
        symbolic link.

    Raises:
        ValueError: If there is no mesh, or two have the same name.
    """
    from viewsynth.reconstruct.mesh_files import SUFFIXES

    found, rejects = {}, []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part[0] == "." for part in inner.parts):
            continue
        if path.is_symlink():
            reason = "a symbolic link is not followed: put the file itself there"
            rejects.append(Reject(source=inner.as_posix(), stage="input", reason=reason))
        elif path.is_file():
            name = inner.with_suffix("").as_posix()
            if name in found:
                raise ValueError(
                    f"data.meshes: {found[name].name} and {path.name} in {path.parent} are of one "
                    "person: keep one"
                )
            found[name] = path
    if not found:
        raise ValueError(
            f"data.meshes: there is no mesh in {folder}; expected <pid>{', <pid>'.join(SUFFIXES)}"
        )
    return found, rejects


def alone(folder: Path) -> tuple[list[Sample], list[Reject]]:
    """One person for every mesh of a folder.

    Args:
        folder: The folder.

    Returns:
        Samples, and rejects of files that are not read.

    Raises:
        ValueError: If there is no mesh, or two are of one person.
    """
    found, rejects = listed(folder)
    people: dict[Person, Path] = {}
    for name, path in found.items():
        if (other := people.setdefault(_person(name), path)) != path:
            raise ValueError(f"data.meshes: {other} and {path} are of one person: keep one")
    return [_sample(folder, path, *person) for person, path in people.items()], rejects


def _person(name: str) -> Person:
    """The person of a file name, which may be one that `export body` wrote."""
    stem, _, outfit = name.partition("+")
    try:
        return pid_of(stem) or name, pid_of(outfit)
    except ValueError:  # not a name that we encoded
        return name, ""


def attach(folder: Path, samples: Sequence[Sample]) -> tuple[list[Sample], list[Reject], list[str]]:
    """Give the people of a data set their meshes.

    A file may be named by the pid, with `/` as a folder or as `__`; by the part of the pid after
    the last `/`; or as `export body` names it, which tells outfits apart.

    Args:
        folder: Folder of the meshes.
        samples: The photos of the people.

    Returns:
        The samples with those of the meshes; rejects of files of no known person; and lines for
        the terminal.

    Raises:
        ValueError: If there is no mesh, a name fits several people, or a person has two.
    """
    found, rejects = listed(folder)
    people = list(dict.fromkeys((sample.pid, sample.outfit) for sample in samples))
    exact, short = _names(people)
    owners: dict[Person, Path] = {}
    for name, path in found.items():
        fitting = exact.get(name) or short.get(name) or []
        if len(fitting) > 1:
            said = ", ".join(f"{stem_of(*one)}{path.suffix}" for one in fitting[:FEW])
            raise ValueError(
                f"data.meshes: {path.name} may be of {len(fitting)} people: name it {said}"
            )
        if not fitting:
            reason = "no person of the data set has this name; a mesh is named after its pid"
            source = path.relative_to(folder).as_posix()
            rejects.append(Reject(source=source, stage="input", reason=reason))
        elif (other := owners.setdefault(fitting[0], path)) != path:
            raise ValueError(f"data.meshes: {other} and {path} are of one person: keep one")
    told = _told(people, owners, [one.source for one in rejects])
    meshes = [_sample(folder, path, *person) for person, path in owners.items()]
    return [*samples, *meshes], rejects, told


def _names(people: Sequence[Person]) -> tuple[dict[str, list], dict[str, list]]:
    """The people of each whole and of each short file name."""
    exact: dict[str, list[Person]] = {}
    short: dict[str, list[Person]] = {}
    for pid, outfit in people:
        person = (pid, outfit)
        for name in dict.fromkeys((stem_of(pid, outfit), pid, folder_of(pid))):
            exact.setdefault(name, []).append(person)
        short.setdefault(pid.rpartition("/")[2], []).append(person)
    return exact, short


def _told(people: Sequence[Person], owners: dict[Person, Path], unknown: list[str]) -> list[str]:
    told = [f"{len(owners)} of {len(people)} people have a mesh in data.meshes"]
    if without := [pid for pid, outfit in people if (pid, outfit) not in owners]:
        told.append(f"  {len(without)} are reconstructed from their photos: {_few(without)}")
    if unknown:
        told.append(f"  {len(unknown)} meshes are of nobody in the data set: {_few(unknown)}")
    return told


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:FEW]) + (", …" if len(names) > FEW else "")


def _sample(folder: Path, path: Path, pid: str, outfit: str) -> Sample:
    from viewsynth.reconstruct import mesh_files

    name = path.relative_to(folder).as_posix()
    paths = mesh_files.files(path)
    return Sample(paths=paths, pid=pid, name=name, outfit=outfit, modality=MESH)
