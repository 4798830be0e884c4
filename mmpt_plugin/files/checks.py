"""What every reader asks of a path before it opens it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
SIGNATURES = (
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x93NUMPY", "a .npy array"),
    (b"%PDF", "a PDF"),
    (b"\x89HDF", "an HDF5 file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)


class UnusableFile(ValueError):
    """A file that cannot be used; the message begins with its path."""


def require_file(path: str | Path, *, limit: int | None = None) -> Path:
    """Makes sure that a path is a regular file, which can be opened without waiting for anybody.

    Args:
        path: of the file; links are followed.
        limit: most bytes that the file may have.

    Raises:
        FileNotFoundError: there is no such file, or a link leads nowhere.
        UnusableFile: it is a folder, a named pipe, a socket or a device, or it is larger than `limit`.
        PermissionError: it may not be read.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        why = f"this link leads to {os.readlink(path)}, which does not exist" if path.is_symlink() else "no such file"
        raise FileNotFoundError(f"{path}: {why}") from error
    except (OSError, ValueError) as error:  # too long a name, a loop of links, a NUL character
        raise UnusableFile(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    for is_kind, kind in KINDS:
        if is_kind(status.st_mode):
            raise UnusableFile(f"{path}: this is {kind}, a file is needed")
    if limit is not None and status.st_size > limit:
        raise UnusableFile(f"{path}: {status.st_size:,} bytes, at most {limit:,} are read")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path}: no permission to read it")
    return path


def kind_of(head: bytes) -> str | None:
    """What a file is by its first bytes, in words; None where they tell nothing."""
    for signature, kind in SIGNATURES:
        if head.startswith(signature):
            return kind
    start = head.lstrip()[:100].lower()
    return "a saved web page" if start.startswith((b"<!doctype html", b"<html")) else None


def is_hidden(path: str | Path) -> bool:
    """Whether a name begins with a dot, as macOS's `._a.mp4` does beside `a.mp4`."""
    return Path(path).name.startswith(".")
