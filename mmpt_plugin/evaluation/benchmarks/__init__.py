"""The benchmarks by their names on the command line."""

from __future__ import annotations

from collections.abc import Callable

from mmpt_plugin.evaluation.benchmark import Benchmark
from mmpt_plugin.evaluation.benchmarks import own_data
from mmpt_plugin.evaluation.benchmarks.coin import Coin
from mmpt_plugin.evaluation.benchmarks.crosstask import CrossTask
from mmpt_plugin.evaluation.benchmarks.didemo import DidemoMoment, DidemoRetrieval
from mmpt_plugin.evaluation.benchmarks.hirest import Hirest
from mmpt_plugin.evaluation.benchmarks.msrvtt import Msrvtt
from mmpt_plugin.evaluation.benchmarks.msrvtt_qa import MsrvttQa
from mmpt_plugin.evaluation.benchmarks.youcook2 import YouCook2

BENCHMARKS: dict[str, type[Benchmark]] = {
    benchmark.name: benchmark
    for benchmark in (YouCook2, Msrvtt, MsrvttQa, DidemoMoment, DidemoRetrieval, Coin, CrossTask)
}
EVALUATIONS: dict[str, Callable[..., Benchmark]] = {
    **BENCHMARKS,
    own_data.NAME: own_data.own_benchmark,
    Hirest.name: Hirest,
}
"""All that can be evaluated on: the paper's, and others."""
