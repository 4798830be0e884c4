"""Locks on files: who may write to a folder's lists, and who works on a video.

The system lifts a lock when its holder dies, so nothing has to be cleared after a crash. The files are opened for
writing, as network file systems want it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

WORK_FOLDER = ".work"  #: claims, inside the folder of features


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes that use this function on the folder out.

    Raises:
        OSError: if the file system knows no locks.
    """
    with FileLock(folder / ".lock", poll_interval=0.01, fallback_to_soft=False):
        yield


@contextmanager
def claim(out: Path, video_id: str) -> Iterator[bool]:
    """Tells whether this process may work on the video; if so, nobody else may until the block ends.

    Raises:
        OSError: if the file system knows no locks.
    """
    path = _claim_file(out, video_id)
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)  # while the lock is held: a file that is left behind tells of a dead holder
        lock.release()


def claim_state(out: Path, video_id: str) -> str:
    """ "free", "held" by a living process, or "abandoned" by a dead one."""
    path = _claim_file(out, video_id)
    if not path.exists():
        return "free"
    with claim(out, video_id) as claimed:
        return "abandoned" if claimed else "held"


def _claim_file(out: Path, video_id: str) -> Path:
    return out / WORK_FOLDER / f"{video_id}.claim"
