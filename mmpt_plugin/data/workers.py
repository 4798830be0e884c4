"""Processes that load data, and the signals that a job is stopped by."""

import os
import signal
import threading


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
