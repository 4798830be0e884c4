"""Connecting to Ray: starts are repeated, and what goes wrong is said in a sentence."""

import sys
from types import SimpleNamespace

import pytest

from mmpt_plugin.data.ray_cluster import ray_cluster


@pytest.fixture
def calls(monkeypatch):
    """What is called of a stand-in for the package; `failing` starts fail."""
    log = []

    def init(**settings):
        log.append(settings)
        if len([call for call in log if isinstance(call, dict)]) <= calls.failing:
            raise Exception("timed out during startup")

    calls = SimpleNamespace(log=log, failing=0)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, shutdown=lambda: log.append("shutdown")))
    return calls


def test_a_slow_start_is_tried_again(calls):
    calls.failing = 2
    with ray_cluster("local", 2):
        assert [call if isinstance(call, str) else call["num_cpus"] for call in calls.log] == [
            *(2, "shutdown"),
            *(2, "shutdown"),
            2,
        ]
    assert calls.log[-1] == "shutdown"


def test_three_failures_are_enough(calls):
    calls.failing = 3
    with pytest.raises(ValueError, match=r"--ray local: no connection .timed out"), ray_cluster("local", 2):
        pass


def test_another_s_cluster_is_tried_once(calls):
    calls.failing = 1
    with pytest.raises(ValueError, match="Is the cluster up"), ray_cluster("10.0.0.1:6379", 2):
        pass
    assert calls.log[0] == {"address": "10.0.0.1:6379", "log_to_driver": False}
    assert calls.log[1:] == ["shutdown", "shutdown"]


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"mmpt_plugin\[ray\]"), ray_cluster("local", 2):
        pass
