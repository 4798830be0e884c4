"""What the world of real pictures is made of: Debian's packages, installed or unpacked into a folder of our own.

Nothing here needs root: apt-get downloads, dpkg-deb unpacks, and a program is started with the libraries beside it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

ELSEWHERE = (
    "without apt-get, the wheels comfyui-workflow-templates-media-* have captioned pictures and clips; they are made by "
    "AI, and this demo does not read them"
)


@dataclass(frozen=True)
class Program:
    """A program and what its process must be told."""

    path: str
    environment: dict[str, str] = field(default_factory=dict)


def package_folder(package: str, inside: str, cache: Path) -> Path:
    """A folder of a package's files: as installed, else downloaded.

    Args:
        package: Debian's name.
        inside: the folder from the root on, such as "usr/share/tuxpaint/stamps".
        cache: where packages are unpacked.

    Raises:
        ValueError: if the package is neither here nor to be had.
    """
    places = [root / inside for root in (Path("/"), cache)]
    if not any(place.is_dir() for place in places):
        unpack([package], cache)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise ValueError(
            f"Debian's package {package} has no folder {inside}: it is another version than this demo knows"
        )
    return found


def program(names: Sequence[str], cache: Path) -> tuple[str, Program]:
    """The first of some programs that is installed; else the first one, downloaded with the libraries that it lacks.

    Args:
        names: of packages whose programs are named alike.
        cache: where packages are unpacked.

    Returns:
        Its name, and how to start it.

    Raises:
        ValueError: if none is here or to be had.
    """
    for name in names:
        if path := shutil.which(name):
            return name, Program(path)
    name = names[0]
    unpacked = cache / "usr" / "bin" / name
    if not unpacked.is_file():
        unpack(lacking(name), cache)
    libraries = sorted({str(library.parent) for library in cache.glob("usr/lib/**/*.so*")})
    data = next(cache.glob("usr/lib/*/espeak-ng-data"), None)
    environment = {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}
    if data is not None:
        environment["ESPEAK_DATA_PATH"] = str(data.parent)
    return name, Program(str(unpacked), environment)


def lacking(package: str) -> list[str]:
    """A package and those that it needs and that are not installed, by apt-get's own reckoning.

    Raises:
        ValueError: without apt-get, or if it does not know the package.
    """
    told = _run(["apt-get", "--simulate", "--no-install-recommends", "install", package], Path.cwd(), package)
    return re.findall(r"^Inst (\S+)", told, re.MULTILINE)


def unpack(packages: Sequence[str], cache: Path) -> None:
    """Downloads packages and unpacks their files into a folder, without root.

    Raises:
        ValueError: if apt-get is not here or does not give a package.
    """
    cache.mkdir(parents=True, exist_ok=True)
    for package in packages:
        logger.info("downloading Debian's package %s into %s", package, cache)
        _run(["apt-get", "download", package], cache, package)
        archive = next(cache.glob(f"{package}_*.deb"))
        _run(["dpkg-deb", "-x", archive.name, "."], cache, package)
        archive.unlink()


def _run(command: list[str], folder: Path, package: str) -> str:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ValueError(f"Debian's package {package} is needed, and there is no apt-get here ({ELSEWHERE})")
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise ValueError(f"{package} could not be had ({reason}): try `apt-get update` first") from error
