"""Worker processes: how many, what ends them, and the signals that a job is stopped by."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection


def available_cores() -> int:
    """Cores that this process may use; on a shared machine these are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """End this worker process when its parent dies. Else it would go on, or wait for work, alone.

    A forked worker holds the parent's ends of the pipes of those forked before it. So the last one ends first.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_for_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()


def shield_worker(worker: int) -> None:
    """Keep a process that loads data alive through signals to its whole job: the update under way needs its batches.

    For `worker_init_fn` of a DataLoader. Its own parent can still end it.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def end_by_parent() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid not in (parent, os.getpid()):
            pass
        os._exit(0)

    threading.Thread(target=end_by_parent, daemon=True).start()
