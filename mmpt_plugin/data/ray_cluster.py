"""Connecting to a Ray cluster, or starting one on this machine: what the scripts with `--ray` share."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmpt_plugin.extras import naming_extras

logger = logging.getLogger(__name__)

TASK_RETRIES = 3  #: how often Ray repeats a task whose worker died
CONNECT_SECONDS = 10  #: to wait for an answer from a cluster's address
STARTS = 3  #: attempts at a local cluster: on a busy machine its processes may not be up within Ray's 30 s


@contextmanager
def ray_cluster(address: str, workers: int) -> Iterator[Any]:
    """Gives the module `ray`, connected; disconnects in the end.

    Args:
        address: of a running cluster, or "local" for one on this machine that lives as long as the connection.
        workers: of the local cluster.

    Raises:
        MissingExtra: Ray is not installed.
        ValueError: there is no cluster at the address, or none can be started here.
    """
    with naming_extras("ray", "--ray"):
        import ray
    check_reachable(address)
    settings: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address == "local":
        settings |= {"num_cpus": workers, "include_dashboard": False}
    try:
        for attempt in range(1, STARTS + 1):
            try:
                ray.init(**settings)
                break
            except Exception as error:  # Ray has no class of its own for this
                ray.shutdown()
                if address != "local" or attempt == STARTS:
                    raise ValueError(f"--ray {address}: no connection ({error}). Is the cluster up?") from error
                logger.warning("Ray did not start (%s), attempt %d of %d", error, attempt, STARTS)
        yield ray
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Refuses an address where nobody listens, at once: Ray itself would try for minutes.

    Raises:
        ValueError: if `address` is neither "local", "auto" nor a host and port that can be connected to.
    """
    if address in ("local", "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"--ray {address}: unknown; allowed: local, auto, HOST:PORT, ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ValueError(f"--ray {address}: no connection ({error}). Is the cluster up?") from error
