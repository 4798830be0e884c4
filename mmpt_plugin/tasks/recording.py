"""What a training task does so that its run leaves a log and a page; see mmpt_plugin/report/run_log.py."""

from __future__ import annotations

import logging
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import metrics
from fairseq.models import BaseFairseqModel

from mmpt_plugin.data.corpus import VideoTextCorpus
from mmpt_plugin.report.gallery import three_clusters, typical_captions
from mmpt_plugin.report.run_log import LOG_FILE, append_record
from mmpt_plugin.report.wanted import missing_page_libraries

logger = logging.getLogger(__name__)

STEP_VALUES = ("loss", "text_to_video", "video_to_text", "lr", "gnorm", "clip", "pairs_per_s", "ups")
CAPTIONS_LOOKED_AT = 60  # of each video of a gallery
OTHER_VIDEOS = 64  # that a cluster's words are compared with


class RunRecorder:
    """Writes the log of a run, and its page at checkpoints.

    Nothing is asked of the model or of a GPU that fairseq does not ask for itself: values are read every `interval` updates,
    when fairseq logs them too.
    """

    def __init__(self, folder: Path, interval: int, page: bool) -> None:
        """
        Args:
            folder: the run's checkpoint.save_dir.
            interval: updates between two records.
            page: whether to write the page, where its libraries are installed.
        """
        self.folder = folder
        self.interval = max(1, interval)
        self.update = 0
        self.epoch = 1
        self.page = page and not missing_page_libraries()
        if page and not self.page:
            missing = ", ".join(missing_page_libraries())
            logger.warning(
                f"no report.html will be written: {missing} is not installed. pip install 'mmpt_plugin[report]', then "
                "scripts/report.py makes it from the run's log"
            )
        self._held: list[tuple[str, Mapping[str, Any]]] | None = []  # until the first step tells where the run starts

    def begin_step(self, update: int) -> None:
        """Called before the step that will be number `update` + 1."""
        if self._held is not None:
            held, self._held = self._held, None
            self.folder.mkdir(parents=True, exist_ok=True)
            self.update = update
            self.write("start", {})
            for kind, values in held:
                self.write(kind, values)
        self.update = update + 1

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """One line of the log, on the first process."""
        if _is_first():
            if self._held is None:
                append_record(self.folder / LOG_FILE, kind, self.update, self.epoch, values)
            else:
                self._held.append((kind, values))

    def end_step(self) -> None:
        """Record the step's values, if it is the turn of one."""
        if self.update % self.interval or not _is_first():
            return
        smoothed = metrics.get_smoothed_values("train_inner")
        values = {key: float(smoothed[key]) for key in STEP_VALUES if key in smoothed}
        self.write("step", values | memory())

    def write_page(self) -> None:
        """Write the page. A fault in it is logged, for a page is no reason to stop a run."""
        if not self.page or self._held is not None or not _is_first():
            return
        from mmpt_plugin.report.training import write_training_page  # its libraries are an extra

        try:
            write_training_page(self.folder)
        except Exception:
            logger.exception(f"the page in {self.folder} could not be written; the run goes on, and its log is kept")


class RecordedTask:
    """Mixed into a training task before fairseq's class. Needs `cfg.save_dir`, `cfg.log_interval` and `cfg.report`."""

    cfg: Any
    _recorder: RunRecorder | None = None

    @property
    def recorder(self) -> RunRecorder:
        """The run's recorder, made when first asked for."""
        if self._recorder is None:
            self._recorder = RunRecorder(Path(self.cfg.save_dir), self.cfg.log_interval, self.cfg.report)
        return self._recorder

    def begin_epoch(self, epoch: int, model: BaseFairseqModel) -> None:
        """Note the epoch."""
        self.recorder.epoch = epoch
        super().begin_epoch(epoch, model)  # type: ignore[misc]

    def train_step(
        self,
        sample: Any,
        model: BaseFairseqModel,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple:
        """The step, its number noted."""
        self.recorder.begin_step(update_num)
        return super().train_step(sample, model, criterion, optimizer, update_num, *args, **kwargs)  # type: ignore[misc]

    def reduce_metrics(self, logging_outputs: Sequence[dict[str, Any]], criterion: Any) -> None:
        """The values, recorded where they are of training."""
        super().reduce_metrics(logging_outputs, criterion)  # type: ignore[misc]
        if criterion.training:
            self.recorder.end_step()

    def post_validate(self, model: BaseFairseqModel, stats: Mapping[str, Any], agg: Any) -> None:
        """Record a validation. fairseq calls this where a task has it."""
        known = {key: float(stats[key]) for key in STEP_VALUES if key in stats}
        self.recorder.write("valid", known)

    def state_dict(self) -> dict[str, Any]:
        """The task's part of a checkpoint. fairseq asks for it whenever it saves one, which is when the page is due."""
        self.recorder.write_page()
        return super().state_dict()  # type: ignore[misc]


def gallery(
    corpus: VideoTextCorpus, tokenizer: Any, clusters: np.ndarray, vectors: np.ndarray, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Three clusters with their videos and typical captions, as the log keeps them.

    Args:
        corpus: the videos.
        tokenizer: makes text of word pieces.
        clusters: (clusters, k) positions in the corpus.
        vectors: (videos, D) their embeddings.
        rng: draws what is looked at.
    """

    def captions(videos: np.ndarray) -> list[list[np.ndarray]]:
        counts = np.minimum(corpus.caption_counts[videos], CAPTIONS_LOOKED_AT)
        return [[corpus.text(int(v), c, c + 1) for c in range(int(n))] for v, n in zip(videos, counts)]

    elsewhere = captions(rng.choice(len(corpus), min(len(corpus), OTHER_VIDEOS), replace=False))
    shown = []
    for kind, row, spread in three_clusters(clusters, vectors, rng):
        videos = clusters[row]
        own = captions(videos)
        typical = [
            {"video": corpus.video_ids[videos[video]], "text": tokenizer.decode(own[video][caption].tolist())}
            for video, caption in typical_captions(own, elsewhere)
        ]
        ids = [corpus.video_ids[video] for video in videos.tolist()]
        shown.append({"kind": kind, "spread": spread, "videos": ids, "captions": typical})
    return shown


def memory() -> dict[str, float]:
    """Peak memory of this process, and of its GPU where there is one, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else kilobytes
    peak = {"memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peak["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return peak


def _is_first() -> bool:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
