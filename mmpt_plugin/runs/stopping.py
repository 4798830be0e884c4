"""Pre-emption: a run that is asked to stop saves a checkpoint after the update under way, and exits with its own code.

fairseq ends on a signal at once. Its training loop looks up two functions of fairseq_cli.train by name in every epoch
(`train`) and after every update (`validate_and_save`); these are wrapped here, for tasks that have a `StopRequest`.
Errors in them, and in the loading of a checkpoint before, stand alone (errors.py).
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fairseq import checkpoint_utils

from mmpt_plugin.runs.errors import alone
from mmpt_plugin.runs.processes import wait_for_all

logger = logging.getLogger(__name__)

EXIT_CODE = 75  # "temporary failure" of sysexits.h: to be started again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
ECHO_SECONDS = 3.0  # a launcher passes on a signal that its processes got too: as near as that, two are one


class StopRequest:
    """Whether the run was asked to stop.

    Attributes:
        asked: this process got a signal.
        agreed: some process did, as all of them know after the same update.
    """

    def __init__(self) -> None:
        self.asked = False
        self.agreed = False
        self._first = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as requests while the context lasts."""
        if threading.current_thread() is not threading.main_thread():  # Python gives signals to the main thread alone
            yield
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._first > ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.asked:
            self.asked, self._first = True, now
            logger.warning(
                f"{signal.Signals(number).name}: the run saves a checkpoint after the update under way and exits with "
                f"code {EXIT_CODE}; the same command goes on from there, a second signal ends it at once"
            )


def stop_on_signals() -> None:
    """Wrap fairseq's training loop, where it is in use."""
    loop: Any = sys.modules.get("fairseq_cli.train")
    if loop is None or hasattr(loop.train, "__wrapped_for_stopping__"):
        return
    train, validate_and_save = loop.train, loop.validate_and_save

    @functools.wraps(train)
    def listening_train(cfg: Any, trainer: Any, task: Any, epoch_itr: Any) -> Any:
        stop = getattr(task, "stop", None)
        if stop is None:
            return train(cfg, trainer, task, epoch_itr)
        with stop.listening():
            return train(cfg, trainer, task, epoch_itr)

    @functools.wraps(validate_and_save)
    def saving(cfg: Any, trainer: Any, task: Any, epoch_itr: Any, *rest: Any) -> Any:
        stop = getattr(task, "stop", None)
        if stop is None or not stop.agreed:
            return validate_and_save(cfg, trainer, task, epoch_itr, *rest)
        checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
        wait_for_all()  # for the first process, which writes it
        logger.warning(f"stopped after update {trainer.get_num_updates()}; exit code {EXIT_CODE}")
        raise SystemExit(EXIT_CODE)

    listening_train.__wrapped_for_stopping__ = True  # type: ignore[attr-defined]
    loop.train, loop.validate_and_save = alone(listening_train), saving
    checkpoint_utils.load_checkpoint = alone(checkpoint_utils.load_checkpoint)
