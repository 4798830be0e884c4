"""Learning curves of the demo world: R@1 against updates, videos and width, with a fitted law.

    python -m demo.learning_curves train OUT --seeds 1 2 3      # a line of OUT/runs.jsonl for each run; goes on where it was
    python -m demo.learning_curves train OUT --seeds 1 2 3 --arms random ema --point 400 400 64     # keys of demo.keys_study
    python -m demo.learning_curves show OUT                     # prints tables and the law
    python -m demo.learning_curves show OUT --plot docs/pictures/learning_curves.svg

Each point is a run of its own, with its learning rate decayed to zero, of the demo's recipe with random batches. A seed is a
new world, start and gallery; the runs of a seed share its world. It may be broken off at any time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from tabulate import tabulate
from tqdm import tqdm

from demo.bert import WIDTH, write_bert
from demo.corpus import write_demo_corpus
from demo.keys_study import ARMS
from demo.study import fairseq, mean_and_error
from demo.world import DemoWorld

RECORDS = "runs.jsonl"
CURVES = "random"  # the arm of the curves: no key but the demo's own, as in all arms with random batches


@dataclass(frozen=True)
class Point:
    """What a run is given."""

    updates: int = 400
    videos: int = 400
    width: int = WIDTH


AXES = {"updates": (100, 200, 400, 800), "videos": (50, 100, 200, 400), "width": (32, 64, 128)}
POINTS = tuple(dict.fromkeys(Point(**{axis: value}) for axis, values in AXES.items() for value in values))
"""Along each axis the other two stay at their defaults."""


def train(out: Path, seeds: Sequence[int], arms: Sequence[str], points: Sequence[Point]) -> None:
    """Run what the records lack, seed by seed."""
    out.mkdir(parents=True, exist_ok=True)
    done = {(record["arm"], Point(**record["point"]), record["seed"]) for record in read_records(out)}
    wanted = [(arm, point, seed) for seed in seeds for point in points for arm in arms]
    for arm, point, seed in tqdm([run for run in wanted if run not in done], unit="run", disable=None):
        record = run(out / f"seed{seed}", arm, point, seed)
        with (out / RECORDS).open("a") as file:
            file.write(json.dumps(record) + "\n")


def read_records(out: Path) -> list[dict[str, Any]]:
    """The lines of all runs so far."""
    path = out / RECORDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def run(folder: Path, arm: str, point: Point, seed: int) -> dict[str, Any]:
    """Train and evaluate one point of one seed."""
    from mmpt_plugin import VideoClip
    from mmpt_plugin.evaluation import evaluate
    from mmpt_plugin.evaluation.benchmarks import YouCook2
    from mmpt_plugin.evaluation.run import read_best_possible

    data = folder / "data"
    write_demo_corpus(data, DemoWorld(seed=seed))
    few = first_videos(data, folder / f"data_{point.videos}", point.videos)
    bert = folder / f"bert_{point.width}"
    write_bert(bert, seed, width=point.width)
    name = "_".join([arm, *(str(value) for value in astuple(point))])
    before = os.times()
    fairseq(
        "demo",
        f"common.seed={seed}",
        f"task.data={few}",
        "task.report=false",
        f"model.bert={bert}",
        f"optimization.max_update={point.updates}",
        f"lr_scheduler.warmup_updates={point.updates // 10}",
        "checkpoint.save_interval=100000",  # the end alone
        f"checkpoint.save_dir={folder / name}",
        "+difference=no_retrieval",
        "dataset.disable_validation=true",
        *([] if arm == CURVES else ARMS[arm]),
        log=folder / f"{name}.log",
    )
    after = os.times()
    benchmark = YouCook2(data)
    clip = VideoClip.from_pretrained(folder / name / "checkpoint_last.pt")
    results = evaluate(clip, benchmark, best_possible=read_best_possible(benchmark, data))
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "arm": arm,
        "point": asdict(point),
        "seed": seed,
        "cpu_seconds": round(used, 1),
        "metrics": results["metrics"],
        "baselines": results["baselines"],
    }


def first_videos(data: Path, folder: Path, videos: int) -> Path:
    """A data folder with the first videos of another's training list; tasks alternate in it, so that it is balanced."""
    shorter = folder / "howto100m"
    shorter.mkdir(parents=True, exist_ok=True)
    listed = (data / "howto100m" / "train.txt").read_text().split()
    (shorter / "train.txt").write_text("\n".join(listed[:videos]) + "\n")
    for name in ("world.json", "howto100m/val.txt", "howto100m/shards"):
        if not (folder / name).exists():
            (folder / name).symlink_to((data / name).resolve())
    return folder


@dataclass(frozen=True)
class Law:
    """R@1 = ceiling / (1 + sum over the axes of (scale / value) ** exponent).

    More along one axis alone takes R@1 to a bound that the others set. Kaplan et al. 2020
    (https://arxiv.org/abs/2001.08361) and Hoffmann et al. 2022 (https://arxiv.org/abs/2203.15556) add such terms in the
    loss; here they add in the odds, as R@1 has a ceiling.
    """

    ceiling: float
    scales: dict[str, float]
    exponents: dict[str, float]

    def terms(self, point: Point) -> dict[str, float]:
        """What each axis lacks: halving the largest pays most."""
        values = asdict(point)
        return {axis: (scale / values[axis]) ** self.exponents[axis] for axis, scale in self.scales.items()}

    def __call__(self, point: Point) -> float:
        """The R@1 of a point."""
        return self.ceiling / (1 + sum(self.terms(point).values()))


def fit(points: Sequence[Point], scores: NDArray[np.float64], ceiling: float) -> Law:
    """The law nearest to the scores, by least squares in R@1.

    Args:
        points: of the runs.
        scores: (runs,) their R@1.
        ceiling: the best possible R@1, which a generated world knows.
    """
    values = np.array([astuple(point) for point in points], np.float64)  # (runs, axes)

    def misses(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        scales, exponents = np.exp(parameters.reshape(2, -1))
        return ceiling / (1 + ((scales / values) ** exponents).sum(1)) - scores

    start = np.concatenate([np.log(np.median(values, axis=0) / 2), np.zeros(len(AXES))])
    scales, exponents = np.exp(least_squares(misses, start, bounds=(start - 8, start + 3)).x.reshape(2, -1))
    return Law(ceiling, dict(zip(AXES, scales.tolist())), dict(zip(AXES, exponents.tolist())))


def curve_records(out: Path) -> list[dict[str, Any]]:
    """The runs of the curves.

    Raises:
        ValueError: if there are too few for a law.
    """
    points = set(POINTS)
    records = [r for r in read_records(out) if r["arm"] == CURVES and Point(**r["point"]) in points]
    if len({Point(**record["point"]) for record in records}) <= 2 * len(AXES):
        raise ValueError(f"{out / RECORDS} has too few points for a law with {2 * len(AXES)} numbers: train more")
    return records


def law_of(records: Sequence[dict[str, Any]]) -> Law:
    """The law of some runs."""
    ceiling = float(np.mean([record["baselines"]["best_possible"]["R@1"] for record in records]))
    return fit([Point(**r["point"]) for r in records], np.array([r["metrics"]["R@1"] for r in records]), ceiling)


def show(out: Path) -> str:
    """Tables of the runs, the law, and how it foretells the longest run from the others."""
    records = curve_records(out)
    law, rows = law_of(records), []
    for point in sorted({Point(**r["point"]) for r in records}, key=astuple):
        own = [r for r in records if Point(**r["point"]) == point]
        scores = [r["metrics"]["R@1"] for r in own]
        row = asdict(point) | {
            "seeds": len(own),
            "R@1": mean_and_error(scores) if len(own) > 1 else f"{100 * scores[0]:.1f}",
        }
        rows.append(row | {"law": f"{100 * law(point):.1f}", "CPU s": round(np.mean([r["cpu_seconds"] for r in own]))})
    last = max((Point(**r["point"]) for r in records), key=lambda point: point.updates)
    earlier = [r for r in records if Point(**r["point"]).updates < last.updates]
    seen = np.mean([r["metrics"]["R@1"] for r in records if Point(**r["point"]) == last])
    parts = {axis: f"({law.scales[axis]:.3g} / {axis}) ^ {law.exponents[axis]:.2f}" for axis in AXES}
    lines = [
        tabulate(rows, headers="keys", tablefmt="github"),
        f"R@1 = {law.ceiling:.3f} / (1 + {' + '.join(parts.values())})",
        f"foretold for {last.updates} updates from shorter runs: {100 * law_of(earlier)(last):.1f}, measured {100 * seen:.1f}",
    ]
    for name, point in {"the default point": Point(), "the longest run": last}.items():
        terms = ", ".join(f"{axis} {value:.2f}" for axis, value in law.terms(point).items())
        lines.append(f"what is lacking at {name}: {terms}")
    return "\n\n".join(lines)


def plot(out: Path, path: Path) -> None:
    """Draw the runs and the law, an axis a panel, as SVG."""
    import altair as alt

    records = curve_records(out)
    law, panels = law_of(records), []
    for axis, values in AXES.items():
        others = [other for other in AXES if other != axis]
        runs = [
            {axis: r["point"][axis], "R@1": r["metrics"]["R@1"], "seed": str(r["seed"])}
            for r in records
            if all(r["point"][other] == getattr(Point(), other) for other in others)
        ]
        grid = np.geomspace(values[0], 2 * values[-1], 40)
        line = [{axis: float(v), "R@1": law(Point(**{axis: float(v)}))} for v in grid]  # type: ignore[arg-type]
        x = alt.X(f"{axis}:Q", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[*values, 2 * values[-1]]))
        y = alt.Y("R@1:Q", scale=alt.Scale(domain=[0, 0.6]), axis=alt.Axis(format="%"))
        drawn = alt.Chart(alt.InlineData(line)).mark_line().encode(x=x, y=y)
        dots = alt.Chart(alt.InlineData(runs)).mark_point(filled=True, size=50).encode(x=x, y=y, color="seed:N")
        panels.append((drawn + dots).properties(width=210, height=200))
    path.parent.mkdir(parents=True, exist_ok=True)
    alt.hconcat(*panels).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="run what is missing")
    training.add_argument("out", type=Path)
    training.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    training.add_argument("--arms", nargs="+", choices=[CURVES, *ARMS], default=[CURVES])
    training.add_argument(
        "--point",
        nargs=3,
        type=int,
        metavar=("UPDATES", "VIDEOS", "WIDTH"),
        help="one point (default: all of the curves)",
    )
    showing = commands.add_parser("show", help="print tables and the law")
    showing.add_argument("out", type=Path)
    showing.add_argument("--plot", type=Path, metavar="FILE", help="draw them too, as SVG")
    args = parser.parse_args()
    if args.command == "train":
        train(args.out, args.seeds, args.arms, [Point(*args.point)] if args.point else POINTS)
        return
    print(show(args.out))
    if args.plot:
        plot(args.out, args.plot)


if __name__ == "__main__":
    main()
