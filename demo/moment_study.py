"""Measures the search in one's own videos and prints JSON: moments, vectors, engines.

python scripts/bench_search.py moments --runs runs/demo ...     # found moments against plain windows, demo worlds
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.inference import VideoClip
from mmpt_plugin.search.library import VideoLibrary
from mmpt_plugin.search.moments import Span, overlap
from mmpt_plugin.search.store import Store, Video

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # demo/ is not part of the installed package
from demo.test_sets import unseen_videos
from demo.world import DemoWorld, Stream, World

WINDOWS = ((8, 4), (16, 8), (32, 16))


def study(runs: Sequence[Path]) -> dict[str, Any]:
    """All measures for each length of window: means over the runs, and each run's own."""
    report: dict[str, Any] = {"runs": [str(run) for run in runs], "windows": {}}
    for window, stride in WINDOWS:
        rows = [moments_of_run(run, window, stride) for run in runs]
        report["windows"][f"{window}/{stride}"] = {
            name: {"mean": float(np.mean([row[name] for row in rows])), "runs": [row[name] for row in rows]}
            for name in rows[0]
        }
    return report


def moments_of_run(run: Path, window: int, stride: int) -> dict[str, float]:
    """Measures of one run: steps that training never showed, looked for in their video and in all videos."""
    settings = json.loads((run / "data" / "world.json").read_text())
    settings.pop("version")
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    world = World(DemoWorld(**fields))
    clip = VideoClip.from_pretrained(run / "checkpoint_best.pt")
    queries = []
    with tempfile.TemporaryDirectory() as folder:
        library = library_of_features(Path(folder), clip, window, stride)
        begun = time.process_time()
        for number, video in enumerate(unseen_videos(world, Stream.YOUCOOK2, world.config.youcook2_clips)):
            name = f"video {number}"
            key = library.put_features(Video(name, Path(folder, name), 0, 0, ""), video.features, {}, [])
            for position in video.asked:
                step = video.timeline.spans[position]
                queries.append((world.sentence(step.step, video.rng), name, Span(key, step.start, step.end, 0.0)))
        cost = time.process_time() - begun
        ious: dict[str, list[float]] = {
            f"{kind} {place}": [] for kind in ("window", "moment") for place in ("video", "all")
        }
        for text, name, truth in queries:
            library.search(text, 1, said=0)
            vector = library.embed(text)
            for place, within in (("video", name), ("all", None)):
                _, windows = library._index.search(vector, 1, {truth.video} if within else None)
                ious[f"window {place}"].append(overlap(Span(*windows[0].tolist(), score=0.0), truth))  # type: ignore[misc]
                hit = library.search(text, 1, within, said=0)[0]
                found = Span(library.video(hit.video_id).number, hit.start, hit.end, 0.0)
                ious[f"moment {place}"].append(overlap(found, truth))
        report = {"windows": float(library.info()["windows"]), "queries": float(len(queries)), "indexing CPU s": cost}
        library.close()
    for name, values in ious.items():
        report[f"{name}: mIoU"] = float(np.mean(values))
        report[f"{name}: R@1, IoU 0.5"] = float(np.mean(np.array(values) >= 0.5))
    return report


def library_of_features(folder: Path, clip: VideoClip, window: int, stride: int) -> VideoLibrary:
    """An empty library whose videos come as features."""
    width = clip.model.video_encoder.transformer.config.hidden_size
    Store.create(
        folder, {"width": width, "window": window, "stride": stride, "model": {"path": "", "sha256": ""}}
    ).close()
    return VideoLibrary(folder, clip=clip)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of demo runs, each with data/ and a checkpoint")
    print(json.dumps(study(parser.parse_args(arguments).runs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
