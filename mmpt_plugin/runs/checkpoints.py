"""Checkpoints that are whole: how fairseq's copies are written, and what a run goes on with."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from mmpt_plugin.files import UnusableFile, load_torch
from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.runs.processes import wait_for_all, world

logger = logging.getLogger(__name__)

LAST = "checkpoint_last.pt"  # fairseq's default of checkpoint.restore_file: the one in checkpoint.save_dir


class WholeCopies(PathManager):
    """fairseq's access to files, whose copies are whole or absent.

    fairseq saves a checkpoint aside and renames it, but then copies it over checkpoint_last.pt in place: a kill or a full
    disk in between would leave a cut file there. Here the copy is a second name of the same file where the file system
    allows it, which also saves the room; the renaming is one step.
    """

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """As fairseq's own."""
        aside = f"{dst_path}.partial"
        Path(aside).unlink(missing_ok=True)
        try:
            try:
                os.link(src_path, aside)
            except OSError:  # a file system without second names
                with open(src_path, "rb") as source, open(aside, "wb") as copy:
                    shutil.copyfileobj(source, copy, 2**24)
                    copy.flush()
                    os.fsync(copy.fileno())
            os.replace(aside, dst_path)
        finally:
            Path(aside).unlink(missing_ok=True)
        return True


def write_whole_checkpoints() -> None:
    """Let fairseq's checkpoint_utils, where alone checkpoints are copied, use `WholeCopies`."""
    checkpoint_utils.PathManager = WholeCopies


LOAD = checkpoint_utils.load_checkpoint_to_cpu  # fairseq's own


def change_when_loaded(path: Path, change: Callable[[dict[str, Any]], None] | None) -> None:
    """Let fairseq see one checkpoint's content as `change` leaves it; all others as they are.

    Args:
        path: the checkpoint.
        change: alters its content in place; None: nothing.
    """

    def load(place: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        content: dict[str, Any] = LOAD(place, *args, **settings)
        if change is not None and Path(place) == path:
            change(content)
        return content

    checkpoint_utils.load_checkpoint_to_cpu = load


def checkpoint_to_start_from(save_dir: str, restore_file: str, finetune_from_model: str | None) -> Path | None:
    """The checkpoint that fairseq is about to load, verified; None if the run starts anew.

    Where checkpoint_last.pt cannot be read, it is put aside and the newest whole checkpoint of the folder takes its
    place, with a warning. All processes must call this.

    Raises:
        FileNotFoundError: a checkpoint that was asked for is not there.
        UnusableFile: it is damaged, or there is none left to go on with.
    """
    if restore_file != LAST:
        _require(Path(restore_file), "checkpoint.restore_file")
        return Path(restore_file)
    last = Path(save_dir) / LAST
    if world()[0] == 0:
        _mend(last)
    wait_for_all()
    if last.is_file():
        return last
    if finetune_from_model:
        _require(Path(finetune_from_model), "checkpoint.finetune_from_model")
        return Path(finetune_from_model)
    return None


def _require(path: Path, setting: str) -> None:
    read_checkpoint(path, setting)  # says what is wrong with it by the setting's name
    if world()[0] == 0:
        load_torch(path)  # compares its parts with their checksums


def _mend(last: Path) -> None:
    """Put the newest whole checkpoint in the place of a damaged last one."""
    try:
        if last.exists() or last.is_symlink():
            load_torch(last)
            return
        damage = None
    except (UnusableFile, OSError) as error:
        damage = error
    others = sorted(
        (path for path in last.parent.glob("checkpoint*.pt") if path != last and path.is_file()),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    if damage is None and not others:
        return  # a new run
    for path in others:
        try:
            content = load_torch(path)
        except (UnusableFile, OSError) as error:
            logger.warning(f"{path} is passed over: {error}")
            continue
        if not (isinstance(content, dict) and "model" in content and content.get("last_optimizer_state")):
            continue
        if damage is not None:
            os.replace(last, last.with_name(f"{last.name}.damaged"))
        WholeCopies.copy(str(path), str(last))
        reason = f"cannot be read ({damage}) and is now {last.name}.damaged" if damage else "is not there"
        logger.warning(f"{last} {reason}: the run goes on from {path.name}, the newest whole checkpoint beside it")
        return
    if damage is not None:
        raise UnusableFile(
            f"{damage}; no whole checkpoint lies beside it. Restore one from a copy, or move {last} away to start anew"
        )
