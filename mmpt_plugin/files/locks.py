"""One writer at a time.

A lock is a POSIX record lock on a small file that names its holder. It ends with its process, however that ends, is not
inherited by forked workers, and works over NFS, where the file is opened for writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpt_plugin.files.checks import UnusableFile

HELD = (errno.EACCES, errno.EAGAIN)
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
PAUSE_SECONDS = 0.1

_own: set[tuple[int, int, int]] = set()  # process, device, inode: within a process a second record lock would succeed


class LockHeld(RuntimeError):
    """Another process, or another part of this one, holds the lock."""


@contextmanager
def lock(path: str | Path, *, purpose: str = "this folder", wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds a lock while the block runs.

    Args:
        path: the lock's file, made if it is not there and left in place afterwards.
        purpose: what the lock guards, for the messages.
        wait_seconds: how long to wait for another holder; infinity is allowed.

    Raises:
        LockHeld: naming the holder's process and machine, if it does not end in time.
        UnusableFile: if the file system has no locks.
        OSError: if the file cannot be made.
    """
    path = Path(path)
    limit, process = time.monotonic() + wait_seconds, os.getpid()
    if (
        path.exists() and _key(path.stat()) in _own
    ):  # opening it would not do: closing any descriptor of a file ends the process's locks on it
        raise LockHeld(f"{purpose} is in use by this very process ({process}); its lock is {path}")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    key = _key(os.fstat(file))
    try:
        while not _try(file, path):
            if time.monotonic() >= limit:
                raise LockHeld(
                    f"{purpose} is in use by {_holder(file)}: wait until it ends, or stop it (the lock is {path})"
                )
            time.sleep(PAUSE_SECONDS)
        _own.add(key)
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, f"{process} {socket.gethostname()}".encode(), 0)
            yield
        finally:
            _own.discard(key)
    finally:
        if os.getpid() == process:  # a forked child leaves the lock to its parent
            os.close(file)


def _key(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino


def _try(file: int, path: Path) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        if error.errno in WITHOUT_LOCKS:
            raise UnusableFile(
                f"{path}: the file system has no locks ({error.strerror}); use a folder on a local disk or on a mount "
                "with locks (Lustre: -o flock)"
            ) from error
        raise
    return True


def _holder(file: int) -> str:
    words = os.pread(file, 300, 0).decode(errors="replace").split()
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
