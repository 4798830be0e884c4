#!/usr/bin/env python3
"""Times the search for neighbours and the bookkeeping of one epoch's clusters; prints JSON.

Two measurements, on made-up embeddings that form groups of about 100 videos:

search       Build an index of 50,000 x 768 and search 1,562 queries x 64 neighbours; recall against brute force.
bookkeeping  All that a refresh of the clusters does besides the encoder's forward passes (index, search of n / 32
             seeds, clusters, statistics) at three sizes, each in a fresh process so that its peak memory is its own;
             fitted and extrapolated to HowTo100M's 1.1 million videos.

usage: bench_retrieval.py [--output FILE]                        about a minute on two idle cores
       bench_retrieval.py --kind ivf                             the approximate index instead
       bench_retrieval.py --sizes 100000 200000 400000 --query-share 0.1
"""

import argparse
import json
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from hardware import hardware
from numpy.typing import NDArray

from mmpt_plugin.retrieval.clusters import cluster_statistics, draw_seeds, form_clusters
from mmpt_plugin.retrieval.index import VideoIndex
from mmpt_plugin.retrieval.settings import RetrievalConfig

CLUSTER_SIZE = 32
NEIGHBOURS = 2 * CLUSTER_SIZE
GROUP_SIZE = 100
BRUTE_FORCE_QUERIES = 50

# Seconds grow with the number n of videos to these powers. n / 32 videos are queries: a flat search compares each with
# all n, an IVF search with a few lists of sqrt(n) videos, and to fill those takes n comparisons with sqrt(n) centroids.
EXPONENTS = {
    "flat": {"index": 1.0, "search": 2.0, "clusters": 1.0, "statistics": 1.0},
    "ivf": {"index": 1.5, "search": 1.5, "clusters": 1.0, "statistics": 1.0},
}


def make_vectors(num_videos: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(num_videos, width): a group's centre plus noise of the same size."""
    centres = rng.standard_normal((max(1, num_videos // GROUP_SIZE), width), dtype=np.float32)
    vectors = rng.standard_normal((num_videos, width), dtype=np.float32)
    for part in np.array_split(np.arange(num_videos), 1 + num_videos // 10000):
        vectors[part] += centres[rng.integers(len(centres), size=len(part))]
    return vectors


def brute_force(vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(q, k) the true nearest, in float64."""
    vectors, queries = vectors.astype(np.float64), queries.astype(np.float64)
    distances = np.einsum("nd,nd->n", vectors, vectors) - 2 * queries @ vectors.T
    return np.argpartition(distances, k - 1, axis=1)[:, :k]


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}


def measure_search(args: argparse.Namespace) -> dict[str, Any]:
    """Build and search at one size."""
    rng = np.random.default_rng(args.seed)
    vectors = make_vectors(args.videos, args.width, rng)
    queries = rng.choice(args.videos, args.queries, replace=False)
    build, search = [], []
    for _ in range(1 + args.repeats):
        begin = time.perf_counter()
        index = VideoIndex(vectors, RetrievalConfig(index=args.kind))
        built = time.perf_counter()
        found = index.neighbours_of(queries, NEIGHBOURS)
        build.append(built - begin)
        search.append(time.perf_counter() - built)
    build, search = build[1:], search[1:]  # the first run warms up
    exact = brute_force(vectors, vectors[queries[:BRUTE_FORCE_QUERIES]], NEIGHBOURS)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, exact)]
    return {
        "videos": args.videos,
        "width": args.width,
        "queries": args.queries,
        "neighbours": NEIGHBOURS,
        "kind": args.kind,
        "nprobe": index.nprobe,
        "num_centroids": index.num_centroids,
        "seconds_build": summary(build),
        "seconds_search": summary(search),
        "seconds": summary([a + b for a, b in zip(build, search)]),
        "recall_against_brute_force": sum(hits) / exact.size,
        "recall_queries": len(exact),
        "repeats": args.repeats,
    }


def refresh_clusters(
    vectors: NDArray[np.float32], num_clusters: int, searched: NDArray[np.int64], kind: str, rng: np.random.Generator
) -> tuple[dict[str, float], dict[str, Any]]:
    """Forms one epoch's clusters; returns the seconds of each part and what the index says of itself."""
    times = [time.perf_counter()]
    index = VideoIndex(vectors, RetrievalConfig(index=kind))
    times.append(time.perf_counter())
    neighbours = index.neighbours_of(searched, NEIGHBOURS)
    times.append(time.perf_counter())
    # As many lists as an epoch has, whatever the share that was searched.
    clusters = form_clusters(np.resize(neighbours, (num_clusters, NEIGHBOURS)), CLUSTER_SIZE, rng)
    times.append(time.perf_counter())
    cluster_statistics(clusters, vectors, rng)
    times.append(time.perf_counter())
    seconds = dict(zip(EXPONENTS[kind], np.diff(times).tolist()))
    return seconds, {"nprobe": index.nprobe, "num_centroids": index.num_centroids, "recall": index.recall}


def measure_bookkeeping(num_videos: int, args: argparse.Namespace) -> dict[str, Any]:
    """One size; run in a process of its own."""
    rng = np.random.default_rng(args.seed)
    vectors = make_vectors(num_videos, args.width, rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seeds = draw_seeds(num_videos, CLUSTER_SIZE, rng)
    searched = seeds[: max(1, round(len(seeds) * args.query_share))]
    runs = [refresh_clusters(vectors, len(seeds), searched, args.kind, rng) for _ in range(1 + args.repeats)]
    seconds = {part: [run[part] for run, _ in runs[1:]] for part in EXPONENTS[args.kind]}  # the first run warms up
    figures: dict[str, Any] = {part: summary(times) for part, times in seconds.items()}
    scale = len(seeds) / len(searched)
    figures["search"] = {name: value * scale for name, value in figures["search"].items()}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "videos": num_videos,
        "width": args.width,
        "queries_of_an_epoch": len(seeds),
        "queries_searched": len(searched),
        "search_seconds_multiplied_by": scale,
        "seconds": figures,
        "seconds_in_all": sum(part["median"] for part in figures.values()),
        "search_gigaflops_per_second": 2 * len(seeds) * num_videos * args.width / figures["search"]["median"] / 1e9
        if args.kind == "flat"
        else None,
        "index": runs[-1][1],
        "vectors_megabytes": vectors.nbytes / 1e6,
        "peak_megabytes_beyond_vectors": (peak - before) * 1024 / 1e6,  # ru_maxrss counts kilobytes on Linux
    }


def extrapolate(measured: list[dict[str, Any]], kind: str, num_videos: int) -> dict[str, Any]:
    """Fits seconds = c n^p for each part, with p from EXPONENTS, and memory in proportion to n."""
    sizes = np.array([row["videos"] for row in measured], dtype=np.float64)
    fit = {}
    for part, exponent in EXPONENTS[kind].items():
        ratios = np.array([row["seconds"][part]["median"] for row in measured]) / sizes**exponent
        fit[part] = {
            "exponent": exponent,
            "coefficient": float(np.median(ratios)),
            "largest_ratio_of_coefficients": float(ratios.max() / ratios.min()),  # 1 where the exponent fits perfectly
            "seconds": float(np.median(ratios) * num_videos**exponent),
        }
    largest = measured[-1]
    return {
        "videos": num_videos,
        "parts": fit,
        "seconds_in_all": sum(part["seconds"] for part in fit.values()),
        "search_teraflops": 2 * (num_videos // CLUSTER_SIZE) * num_videos * largest["width"] / 1e12,
        "vectors_gigabytes": largest["vectors_megabytes"] / largest["videos"] * num_videos / 1e3,
        "peak_gigabytes_beyond_vectors": largest["peak_megabytes_beyond_vectors"]
        / largest["videos"]
        * num_videos
        / 1e3,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=50_000, help="search: vectors of the index")
    parser.add_argument("--queries", type=int, default=1_562, help="search: queries")
    parser.add_argument("--width", type=int, default=768, help="of the embeddings")
    parser.add_argument("--kind", choices=sorted(EXPONENTS), default="flat", help="of the index")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs after one that warms up")
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 40_000, 80_000], help="bookkeeping: videos")
    parser.add_argument(
        "--query-share",
        type=float,
        default=1.0,
        help="bookkeeping: search this share of the queries and scale the time",
    )
    parser.add_argument("--extrapolate", type=int, default=1_100_000, help="bookkeeping: videos to extrapolate to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    args = parser.parse_args()
    if args.repeats < 1 or not 0 < args.query_share <= 1 or min(args.sizes) < NEIGHBOURS:
        parser.error(f"--repeats must be 1 or more, --query-share in (0, 1], --sizes at least {NEIGHBOURS}")
    return args


def main() -> None:
    args = parse_arguments()
    report: dict[str, Any] = {"machine": hardware()}
    # First, as a process starts with the peak memory of the one that made it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        measured = [pool.submit(measure_bookkeeping, size, args).result() for size in sorted(args.sizes)]
    report["bookkeeping"] = {
        "measured": measured,
        "extrapolated": extrapolate(measured, args.kind, args.extrapolate),
    }
    report["search"] = measure_search(args)
    text = json.dumps(report, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
