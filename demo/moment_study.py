"""Found moments against the best window as it is, in the worlds of trained demo runs, whose step times are known.

    python -m demo.moment_study runs/demo ...     # prints JSON

Windows and bounds are the library's own; the database is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo.test_sets import unseen_videos
from demo.world import DemoWorld, Stream, World
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.search.indexing import encode
from mmpt_plugin.search.library import LEAST_WINDOWS
from mmpt_plugin.search.moments import Span, find_bounds, overlap
from mmpt_plugin.search.seconds import MARGIN

WINDOWS = ((8, 4), (16, 8), (32, 16))


def study(runs: Sequence[Path]) -> dict[str, Any]:
    """All measures for each length of window: means over the runs, and each run's own."""
    rows = [moments_of_run(run) for run in runs]
    names = {window: list(rows[0][window]) for window in rows[0]}
    return {
        "runs": [str(run) for run in runs],
        "windows": {
            window: {
                name: {
                    "mean": float(np.mean([row[window][name] for row in rows])),
                    "runs": [r[window][name] for r in rows],
                }
                for name in names[window]
            }
            for window in names
        },
    }


def moments_of_run(run: Path) -> dict[str, dict[str, float]]:
    """Measures of one run: steps that training never showed, looked for in their video and in all videos."""
    settings = json.loads((run / "data" / "world.json").read_text())
    settings.pop("version")
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    world = World(DemoWorld(**fields))
    clip = VideoClip.from_pretrained(run / "checkpoint_best.pt")
    videos, texts, truths = [], [], []
    for number, video in enumerate(unseen_videos(world, Stream.YOUCOOK2, world.config.youcook2_clips)):
        videos.append(video.features)
        for position in video.asked:
            step = video.timeline.spans[position]
            texts.append(world.sentence(step.step, video.rng))
            truths.append(Span(number, step.start, step.end, 0.0))
    queries = np.asarray(clip.encode_text(texts), np.float32)
    return {f"{size}/{stride}": measure(clip, videos, queries, truths, size, stride) for size, stride in WINDOWS}


def measure(
    clip: VideoClip, videos: Sequence[np.ndarray], queries: np.ndarray, truths: Sequence[Span], size: int, stride: int
) -> dict[str, float]:
    """IoU of the first hit with the truth: the best window as it is, and the best of the moments around good windows."""
    begun = time.process_time()
    rows = [encode(clip, features, size, stride) for features in videos]
    report = {"indexing CPU s": time.process_time() - begun, "windows": float(sum(len(own.spans) for own in rows))}
    owners = np.repeat(np.arange(len(rows)), [len(own.spans) for own in rows])
    spans = np.concatenate([own.spans for own in rows])
    scores = queries @ np.concatenate([own.vectors for own in rows]).astype(np.float32).T
    ious: dict[str, list[float]] = {}
    for query, of_windows, truth in zip(queries, scores, truths):
        for place, among in (("video", np.flatnonzero(owners == truth.video)), ("all", np.arange(len(owners)))):
            best = among[np.argsort(-of_windows[among], kind="stable")][:LEAST_WINDOWS]
            window = Span(int(owners[best[0]]), float(spans[best[0], 0]), float(spans[best[0], 1]), 0.0)
            moments = []
            for found in best:
                start, end = spans[found]
                first = max(0, start - MARGIN)
                near = rows[owners[found]].states[first : end + MARGIN].astype(np.float32) @ query
                begins, ends, score = find_bounds(near, start - first, end - first)
                moments.append(Span(int(owners[found]), float(first + begins), float(first + ends), score))
            moment = max(moments, key=lambda span: span.score)
            ious.setdefault(f"window, {place}", []).append(overlap(window, truth))
            ious.setdefault(f"moment, {place}", []).append(overlap(moment, truth))
    for name, values in ious.items():
        report[f"{name}: mIoU"] = float(np.mean(values))
        report[f"{name}: R@1, IoU 0.5"] = float(np.mean(np.array(values) >= 0.5))
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of demo runs, each with data/ and a checkpoint")
    print(json.dumps(study(parser.parse_args(arguments).runs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
