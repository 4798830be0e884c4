"""From a model and a benchmark to results: what fairseq's task, the command and a user's Python share.

Example:
    from mmpt_plugin import VideoClip
    from mmpt_plugin.evaluation import evaluate
    from mmpt_plugin.evaluation.benchmarks import YouCook2
    results = evaluate(VideoClip.from_pretrained("checkpoint.pt"), YouCook2(Path("data")))
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmpt_plugin.evaluation.benchmark import Benchmark, EncodingPlan, Encodings
from mmpt_plugin.evaluation.encoding import EncodingDataset, assemble, encode_batch
from mmpt_plugin.evaluation.results import results_json, write_results
from mmpt_plugin.features.manifest import check_feature_settings, check_rate, read_settings
from mmpt_plugin.files import UnusableFile, read_arrays
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.checkpoint import sha256

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What is evaluated, as far as results speak of it.

    Attributes:
        settings: `model.*` settings.
        checkpoint: the file that the weights come from; None where the model was made otherwise.
        features: how the features were made that it was trained on, where that is known.
        fine_tuned_on: the benchmark that it was fine-tuned on, if it was.
    """

    settings: Mapping[str, Any]
    checkpoint: Path | None = None
    features: Mapping[str, Any] | None = None
    fine_tuned_on: str | None = None


def prepare(benchmark: Benchmark, subject: Subject) -> EncodingPlan:
    """What the model must compute; all that can be refused is refused here, before hours are spent.

    Raises:
        ValueError: if the features were made otherwise than those of the training, or a label was never trained.
    """
    if subject.features is not None:
        check_feature_settings(benchmark.features.path, subject.features)
    if subject.settings.get("frame_labels"):
        benchmark.use_frame_classifier(subject.settings["frame_labels"])
    if subject.settings.get("normalize"):
        benchmark.use_cosines()
    rate = subject.settings.get("features_per_second", 1)
    check_rate(f"the features in {benchmark.features.path}", read_settings(benchmark.features.path), rate)
    if benchmark.features.features_per_second != rate:
        raise ValueError(
            f"{benchmark.name} was made for {benchmark.features.features_per_second} features a second, and the model takes "
            f"{rate}: make it with features_per_second={rate}"
        )
    longest = subject.settings.get("max_video_seconds", benchmark.features.max_seconds)
    if benchmark.features.max_seconds != longest:
        raise ValueError(
            f"{benchmark.name} was made for windows of {benchmark.features.max_seconds} seconds, and the model takes "
            f"{longest}: make it with max_seconds={longest}"
        )
    plan = benchmark.plan()
    if plan.per_frame and str(subject.settings.get("pooling")) == "cls":
        logger.warning(
            f"{benchmark.name} compares the states of seconds with texts, which pre-training does not do where "
            "model.pooling=cls: zero-shot scores say little of this checkpoint"
        )
    return plan


def conclude(
    benchmark: Benchmark,
    encodings: Encodings,
    subject: Subject,
    *,
    config: Mapping[str, Any],
    best_possible: dict | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Scores, metrics and the results of an evaluation.

    Args:
        benchmark: what the encodings are of.
        encodings: the model's answer to the plan.
        subject: what gave it.
        config: further settings of the run, for the results.
        best_possible: metrics of the true latents of a generated corpus.
        folder: where to write the results and their scores; None: nowhere.

    Returns:
        The content of `<NAME>.json` (docs/data.md).
    """
    scores = benchmark.score(encodings)
    evaluation = benchmark.evaluate(scores)
    if best_possible is not None:
        evaluation.baselines["best_possible"] = best_possible
    path = subject.checkpoint
    checkpoint: dict[str, Any] = {
        "path": str(path.resolve()) if path is not None else None,
        "sha256": sha256(path) if path is not None and path.is_file() else None,  # a folder's weights name their own
    }
    results = results_json(
        benchmark, evaluation, checkpoint=checkpoint, config={**config, "model": dict(subject.settings)}
    )
    if subject.fine_tuned_on:
        results["checkpoint"]["fine_tuned_on"] = subject.fine_tuned_on
        results["paper"] = benchmark.paper_fine_tuned if subject.fine_tuned_on == benchmark.name else {}
    if folder is not None:
        write_results(folder, benchmark, evaluation, results, scores)
    return results


def evaluate(
    clip: VideoClip,
    benchmark: Benchmark,
    *,
    batch_size: int = 128,
    results_path: str | Path | None = None,
    best_possible: dict | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a benchmark, in this process, on the model's device.

    Args:
        clip: as from `VideoClip.from_pretrained`.
        benchmark: for example `BENCHMARKS["youcook2"](Path("data"))`.
        batch_size: texts or windows encoded at once.
        results_path: folder for `<NAME>.json` and its scores; None: nothing is written.
        best_possible: see `read_best_possible`.

    Returns:
        The results as in `<NAME>.json` (docs/data.md).

    Raises:
        ValueError: as `prepare`; for features of another width; for scores that are not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    subject = subject_of(clip)
    plan = prepare(benchmark, subject)
    longest = clip.model.text_encoder.max_pieces
    batches = EncodingDataset(plan, benchmark.features, clip.tokenizer, max_pieces=longest, batch_size=batch_size)
    device = next(clip.model.parameters()).device
    encoded = []
    for place in tqdm(range(len(batches)), desc=benchmark.name, unit="batch", disable=None):
        batch = batches[place]
        inputs = {
            name: value.to(device) if torch.is_tensor(value) else value for name, value in batch["net_input"].items()
        }
        encoded.append(encode_batch(clip.model, {**batch, "net_input": inputs}, plan))
    return conclude(
        benchmark,
        assemble(plan, encoded),
        subject,
        config={"task": {"benchmark": benchmark.name, "batch_size": batch_size}},
        best_possible=best_possible,
        folder=Path(results_path) if results_path is not None else None,
    )


def subject_of(clip: VideoClip) -> Subject:
    """What a model says of itself; little, where it comes from no checkpoint."""
    settings = vars(clip.config) if clip.config is not None else {}
    return Subject(settings, clip.checkpoint, clip.feature_settings, clip.fine_tuned_on)


def read_best_possible(benchmark: Benchmark, data: Path) -> dict | None:
    """The metrics of the true latents, which a generated corpus knows and has left beside its files; else None.

    Raises:
        ValueError: if their file is damaged or of another corpus.
    """
    path = data / benchmark.folder / f"best_possible_{benchmark.name}.npz"
    if not path.exists():
        return None
    try:
        return benchmark.evaluate(read_arrays(path)).metrics
    except UnusableFile:
        raise
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{path} does not fit {benchmark.name} ({error}): remove it, or generate the corpus anew"
        ) from error
