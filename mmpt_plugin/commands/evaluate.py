"""Evaluate a checkpoint on several benchmarks in one process: the model is loaded once, and fairseq is not needed.

Example:
    scripts/evaluate_all.sh CKPT DIR OUT
    scripts/evaluate_all.sh CKPT DIR OUT --benchmarks youcook2 coin --device cuda
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_plugin.evaluation.benchmarks import BENCHMARKS, EVALUATIONS
from mmpt_plugin.evaluation.results import format_table

if TYPE_CHECKING:
    from mmpt_plugin.evaluation.benchmark import Benchmark

logger = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a checkpoint, ours or MMPT's")
    parser.add_argument("data", type=Path, metavar="DIR", help="the data folder (docs/data.md)")
    parser.add_argument("results", type=Path, metavar="OUT", help="folder for <benchmark>.json and its scores")
    parser.add_argument(
        "--benchmarks",
        nargs="+",
        choices=list(EVALUATIONS),
        metavar="NAME",
        help=f"some of {', '.join(EVALUATIONS)}; default: those of the paper's whose folder DIR has",
    )
    parser.add_argument("--bert", help="folder or hub name of the checkpoint's BERT; default: the copy beside it")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--batch-size", type=int, default=128, help="texts or windows encoded at once (128)")
    parser.add_argument(
        "--on-missing", choices=("error", "skip"), default="error", help="videos without features (error)"
    )
    parser.add_argument(
        "--drop-suffix", action="store_true", help="features are named <video id>.mp4.npy (or .webm, .mkv, ...)"
    )
    parser.add_argument("--no-report", action="store_true", help="write no pages beside the results")
    parser.add_argument("--videos", metavar="DIR", help="folder of videos, or library of mmpt-search, for the pages")
    return parser


def chosen(data: Path, wanted: list[str] | None) -> list[str]:
    """The benchmarks to evaluate on.

    Raises:
        FileNotFoundError: if none was named and the folder has none.
    """
    if wanted:
        return list(dict.fromkeys(wanted))
    there = [name for name, benchmark in BENCHMARKS.items() if (data / benchmark.folder).is_dir()]
    if not there:
        folders = dict.fromkeys(benchmark.folder for benchmark in BENCHMARKS.values())
        raise FileNotFoundError(f"{data} has none of the folders {', '.join(folders)}: is it the data folder?")
    if absent := [name for name in BENCHMARKS if name not in there]:
        logger.warning("%s has no files of %s: not evaluated", data, ", ".join(absent))
    return there


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, evaluates, prints a table a benchmark."""
    arguments_parser = parser()
    options = arguments_parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        evaluate_all(options)
    except (OSError, ValueError) as error:
        arguments_parser.exit(1, f"{arguments_parser.prog}: {error}\n")


def evaluate_all(options: argparse.Namespace) -> None:
    """Evaluates on each benchmark; the files of all are read before the first is encoded."""
    if options.batch_size < 1:
        raise ValueError(f"--batch-size is {options.batch_size}: it must be at least 1")
    names = chosen(options.data, options.benchmarks)
    from mmpt_plugin.evaluation.run import evaluate, prepare, read_best_possible, subject_of
    from mmpt_plugin.inference import VideoClip
    from mmpt_plugin.report.wanted import page_pictures

    clip = VideoClip.from_pretrained(options.checkpoint, bert=options.bert, device=options.device)
    width = clip.model.video_encoder.feature_projection.input.in_features
    longest = clip.model.video_encoder.max_seconds
    benchmarks: list[Benchmark] = [
        EVALUATIONS[name](
            options.data,
            on_missing=options.on_missing,
            feature_size=width,
            max_seconds=longest,
            features_per_second=clip.model.video_encoder.features_per_second,
            drop_suffix=options.drop_suffix,
        )
        for name in names
    ]
    for benchmark in benchmarks:
        prepare(benchmark, subject_of(clip))
    best = [read_best_possible(benchmark, options.data) for benchmark in benchmarks]
    pictures = page_pictures(not options.no_report, options.videos)
    for benchmark, best_possible in zip(benchmarks, best):
        results = evaluate(
            clip,
            benchmark,
            batch_size=options.batch_size,
            results_path=options.results,
            best_possible=best_possible,
        )
        path = options.results / f"{benchmark.name}.json"
        if pictures is not None:
            from mmpt_plugin.report.evaluation_pages import write_evaluation_page

            write_evaluation_page([path], pictures=pictures)
        logger.info("results in %s\n%s\n", path, format_table(results))


if __name__ == "__main__":
    main()
