"""One run a folder."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from mmpt_plugin.files import lock
from mmpt_plugin.runs.processes import world

_held: dict[Path, ExitStack] = {}


def hold_folder(folder: str | Path, name: str = "run", setting: str = "checkpoint.save_dir") -> None:
    """Keep a folder to this run until its process ends, or until the process starts another run there.

    The first process of the run holds the lock; it does not outlive the process, however that ends.

    Args:
        folder: made if it is not there.
        name: of what must be alone: runs of other names may write into the same folder.
        setting: by which the folder was given.

    Raises:
        LockHeld: naming the host and the process id of the run that has the folder.
    """
    if world()[0] != 0:
        return
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{name}.lock"
    if path in _held:  # of an earlier run of this process
        _held.pop(path).close()
    holding = ExitStack()
    holding.enter_context(lock(path, purpose=f"{setting}={folder}"))
    _held[path] = holding
