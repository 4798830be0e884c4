"""Worker processes of the commands, which end as soon as the command does."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from mmpt_plugin.data.workers import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

QUEUED = 2
"""Items that wait for a free worker. Each may hold many videos' text in memory."""


def positive(text: str) -> int:
    """A whole number above 0, as an argparse type."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1")
    return number


def run_in_workers(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, kept: str, method: str = "fork"
) -> Iterator[tuple[Item, Result]]:
    """Calls `work` with each item, in this process (one worker) or in several; yields item and result as they end.

    Forked workers share what was read and imported before. Few items are taken ahead of the workers.

    Args:
        work: a function of a module; it and its results must pickle.
        items: taken one by one.
        workers: processes; 1 works in this one.
        kept: what of the finished work is kept after a failure, for the message.
        method: how workers are started; "spawn" where a library's threads would not survive a fork.

    Raises:
        ValueError: a worker process died. Errors of `work` pass through; items that have not begun are then dropped.
    """
    if workers == 1:
        for item in items:
            yield item, work(item)
        return
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=end_with_parent)
    running: dict[Future[Result], Item] = {}
    try:
        for item in items:
            running[pool.submit(work, item)] = item
            if len(running) >= workers + QUEUED:
                yield from _ended(running)
        while running:
            yield from _ended(running)
    except BrokenProcessPool as error:
        raise ValueError(
            f"A worker process died (killed, or out of memory). {kept} Run the same command again, with fewer --workers "
            "if memory was short."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ended(running: dict[Future[Result], Item]) -> Iterator[tuple[Item, Result]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield running.pop(future), future.result()
