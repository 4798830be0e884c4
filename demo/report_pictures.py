"""The two pictures of the README, from what `make demo` left: how training went, and what CrossTask's scores look like.

python -m demo.report_pictures runs/demo docs/pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmpt_plugin.evaluation.results import read_scores
from mmpt_plugin.report.page import picture
from mmpt_plugin.report.parts import Detail, Figure, Figures
from mmpt_plugin.report.run_log import LOG_FILE, read_run
from mmpt_plugin.report.steps import section_parts
from mmpt_plugin.report.training import curve_parts

TRAINING = "training.png"
CROSSTASK = "crosstask.png"


def training_picture(run: Path, out: Path) -> Path:
    """In-batch accuracy over the updates of a run."""
    curves = {part.title: part for part in curve_parts(read_run(run / LOG_FILE)) if isinstance(part, Figure)}
    title = "In-batch accuracy of the demo's training: batches of similar videos begin with epoch 4"
    return picture(curves["In-batch accuracy"].spec, out / TRAINING, title=title)


def crosstask_picture(results: Path, out: Path) -> Path:
    """Scores of one video's steps with the path through them: the video of median recall."""
    nothing: dict[str, dict] = {"metrics": {}, "baselines": {}}  # the recall of each task is another picture
    parts, _ = section_parts(nothing, read_scores(results), Detail(matrices=3))
    matrices = next(part for part in parts if isinstance(part, Figures)).members
    median = matrices[len(matrices) // 2]
    return picture(median.spec, out / CROSSTASK, title=f"CrossTask, {median.title}: scores, annotated stretches, path")


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, metavar="DEMO", help="folder of `make demo`")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the two PNG files")
    options = parser.parse_args(arguments)
    for path in (
        training_picture(options.demo, options.out),
        crosstask_picture(options.demo / "results" / "crosstask.json", options.out),
    ):
        print(path)


if __name__ == "__main__":
    main()
