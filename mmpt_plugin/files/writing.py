"""Writing files and folders that are whole or absent.

They are written aside, in the same folder, under a name that tells which process writes them, and renamed when they are
done. What a killed process left aside is cleared by the next run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
ASIDE = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.partial")


def aside_path(path: Path) -> Path:
    """A new name beside `path`, short whatever the length of its own."""
    return path.with_name(f".{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")


@contextmanager
def write_whole(path: str | Path, *, text: bool = False) -> Iterator[IO]:
    """A file to write to, which becomes `path` when the block ends without an error.

    Args:
        path: replaced if it exists; its folder must exist.
        text: open as UTF-8 text instead of bytes.

    Raises:
        OSError: if the file cannot be written (the disk is full, say); `path` is as it was.
    """
    path = Path(path)
    aside = aside_path(path)
    try:
        with aside.open("w", encoding="utf-8", newline="\n") if text else aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends without an error.

    Args:
        path: must not exist, but for an empty folder; folders above it are made.

    Raises:
        FileExistsError: if there is something at `path` by the time that the folder is complete.
        OSError: if it cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_path(path)
    aside.mkdir()
    try:
        yield aside
        try:
            aside.rename(path)
        except OSError as error:
            if path.exists():
                raise FileExistsError(f"{path} exists already; it is left as it is") from error
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clear_left_overs(folder: str | Path) -> list[Path]:
    """Removes what dead processes of this machine left aside in a folder.

    Returns:
        What was removed. Files of living processes, and of other machines, stay.
    """
    removed = []
    for path in sorted(Path(folder).glob(".*.partial")):
        name = ASIDE.fullmatch(path.name)
        if name and name["host"] == HOST and not _is_alive(int(name["process"])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:  # another user's
        return True
    return True
