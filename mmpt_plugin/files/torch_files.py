"""Files that torch saved, by its safe loading only."""

from __future__ import annotations

import contextlib
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

from mmpt_plugin.files.checks import UnusableFile, kind_of, require_file
from mmpt_plugin.files.pickles import check_pickle

REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+)")


def load_torch(path: str | Path, *, verify: bool = True, mmap: bool = True) -> Any:
    """What `torch.save` wrote, on the CPU.

    Args:
        path: the file, of torch's zip format or of the one before torch 1.6.
        verify: compare each part with its checksum, which reads the whole file once.
        mmap: leave tensors on disk until they are used; the older format is always read at once.

    Raises:
        FileNotFoundError: there is no such file.
        UnusableFile: it is another kind of file, is damaged or recompressed, or names classes that torch's safe loading
            (`weights_only`) does not allow.
    """
    import torch  # here, so that readers of other files need no torch

    path = require_file(path)
    with path.open("rb") as file:
        head = file.read(200)
    is_archive = head.startswith(b"PK")
    if not is_archive and (kind := kind_of(head)) is not None:
        raise UnusableFile(f"{path}: this is {kind}; a file written by torch.save is needed")
    if is_archive:
        _check_archive(path, verify)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_archive)
    except pickle.UnpicklingError as error:
        found = REFUSED_GLOBAL.search(str(error))
        named = found[1] if found else _first_global(path.read_bytes() if not is_archive else b"")
        what = f"it names {named}, which could run code" if named else "its pickle is none of torch.save's"
        raise UnusableFile(f"{path}: refused by torch's safe loading: {what}") from error
    except Exception as error:  # a damaged file may raise nearly anything
        raise UnusableFile(f"{path}: damaged, or no file of torch.save ({_first_line(error)})") from error


def _check_archive(path: Path, verify: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            squeezed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            if squeezed:
                raise UnusableFile(
                    f"{path}: its parts are compressed ({squeezed[0]}, ...), as torch never writes them: unpack it and "
                    "save the weights again with torch.save"
                )
            if len({member.filename for member in members}) != len(members):
                raise UnusableFile(f"{path}: damaged: a part stands in it twice")
            for member in members:
                if member.filename.endswith("/data.pkl"):
                    check_pickle(archive.read(member))
            if verify and (damaged := archive.testzip()) is not None:
                raise UnusableFile(f"{path}: damaged: the part {damaged} does not agree with its checksum")
    except UnusableFile:
        raise
    except Exception as error:  # as above
        raise UnusableFile(f"{path}: cut or damaged ({_first_line(error)})") from error


def _first_global(data: bytes) -> str | None:
    """The first class or function that a pickle names, of any protocol; torch's message has those of old protocols alone."""
    texts: list[str] = []
    with contextlib.suppress(ValueError):  # a damaged end
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("GLOBAL", "INST"):
                return str(argument).replace(" ", ".")
            if opcode.name == "STACK_GLOBAL":
                return ".".join(texts[-2:])
            if isinstance(argument, str):
                texts.append(argument)
    return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or '').split(chr(10))[0][:200]}"
