"""What all tasks of this package share."""

import logging
import math
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, List, Optional  # noqa: UP035 (no other list on fairseq's command line)

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from omegaconf import II, MISSING

from mmpt_plugin.data.local_copy import local_folder
from mmpt_plugin.evaluation.benchmark_files import BenchmarkFiles
from mmpt_plugin.models.checkpoint import weights_to_evaluate
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.text_backbone import TextBackbone, save_reference
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.runs.checkpoints import change_when_loaded, checkpoint_to_start_from, write_whole_checkpoints
from mmpt_plugin.runs.errors import alone
from mmpt_plugin.runs.folder import hold_folder
from mmpt_plugin.runs.processes import check_launch, wait_for_all, world
from mmpt_plugin.runs.stopping import StopRequest, stop_on_signals

logger = logging.getLogger(__name__)

CALLED_BY_FAIRSEQ = (
    "setup_task",
    "build_model",
    "build_criterion",
    "load_dataset",
    "get_batch_iterator",
    "post_validate",
)
NO_MODEL = """\
This task reads settings of the model (model.bert and others), and this command line (fairseq-validate?) has no model.
Evaluate a checkpoint with
    fairseq-hydra-train --config-dir projects/videoclip --config-name zeroshot_NAME checkpoint.restore_file=CHECKPOINT \\
        task.data=DATA task.results_path=RESULTS
or, for the loss on the validation videos, call fairseq_cli.validate.main (docs/extending.md shows how).
"""


class VideoClipTask(FairseqTask):
    """A task whose settings refer to those of the model, and whose errors on the command line stand alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in CALLED_BY_FAIRSEQ:
            match vars(cls).get(name):
                case classmethod() as method:
                    setattr(cls, name, classmethod(alone(method.__func__)))
                case None:
                    pass
                case method:
                    setattr(cls, name, alone(method))

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Called by fairseq's old command lines; one that has no --arch, as fairseq-validate, is refused with the remedy.

        fairseq also calls it for a file FOLDER/tasks/NAME.py of a user's that registers a task NAME, with a group of
        arguments that only serves to print help.
        """
        if isinstance(parser, ArgumentParser) and all(action.dest != "arch" for action in parser._actions):
            parser.exit(2, NO_MODEL)
        super().add_args(parser)

    def has_sharded_data(self, split: str) -> bool:
        """False: fairseq would take a colon in `task.data` for a separator of folders to read in turn."""
        return False


@dataclass
class TrainingConfig(FairseqDataclass):
    """Settings of fairseq's that decide how a run begins and how long it is."""

    save_dir: str = II("checkpoint.save_dir")
    restore_file: str = II("checkpoint.restore_file")
    finetune_from_model: Optional[str] = II("checkpoint.finetune_from_model")
    reset_dataloader: bool = II("checkpoint.reset_dataloader")
    reset_meters: bool = II("checkpoint.reset_meters")
    reset_optimizer: bool = II("checkpoint.reset_optimizer")
    batch_size: Optional[int] = II("dataset.batch_size")
    num_workers: int = II("dataset.num_workers")
    max_update: int = II("optimization.max_update")
    max_epoch: int = II("optimization.max_epoch")
    update_freq: List[int] = II("optimization.update_freq")  # noqa: UP006, RUF009
    warmup_updates: Optional[int] = "${oc.select:lr_scheduler.warmup_updates,0}"  # type: ignore[assignment]
    seed: int = II("common.seed")
    tensorboard_logdir: Optional[str] = II("common.tensorboard_logdir")
    optimizer: Optional[str] = "${oc.select:optimizer._name,null}"
    lr_scheduler: Optional[str] = "${oc.select:lr_scheduler._name,null}"
    lr_period_updates: float = "${oc.select:lr_scheduler.lr_period_updates,-1}"  # type: ignore[assignment]
    store_ema: bool = II("ema.store_ema")
    ema_decay: float = II("ema.ema_decay")


def check_training(cfg: TrainingConfig) -> None:
    """Refuse settings of fairseq's that make no sense, before anything is read.

    Raises:
        ValueError: naming the setting.
    """
    for name, value, least in (
        ("dataset.batch_size", cfg.batch_size, 1),
        ("dataset.num_workers", cfg.num_workers, 0),
        ("common.seed", cfg.seed, 0),
        ("optimization.max_update", cfg.max_update, 0),
        ("optimization.max_epoch", cfg.max_epoch, 0),
        *(("optimization.update_freq", freq, 1) for freq in cfg.update_freq),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}: it must be at least {least}")
    if cfg.lr_scheduler == "cosine" and not cfg.max_update and cfg.lr_period_updates <= 0:
        raise ValueError(
            "lr_scheduler._name is cosine, which falls to its end in a known number of updates: set optimization.max_update, "
            "or lr_scheduler.lr_period_updates to that number without the warm-up's"
        )
    if cfg.store_ema and not 0 <= cfg.ema_decay < 1:
        raise ValueError(f"ema.ema_decay is {cfg.ema_decay}: it must be at least 0 and less than 1")


class TrainingTask(VideoClipTask):
    """A task that trains, and whose runs are safe: alone in their folder, stopped and resumed without loss.

    Attributes:
        stop: whether the run was asked to stop.
        start_checkpoint: what fairseq is about to load; None where a run starts anew.
    """

    start_checkpoint: Path | None = None
    uses_ema = True  # fairseq then hands over the running average of the weights, where `ema.store_ema` keeps one

    def begin_run(self, cfg: TrainingConfig) -> None:
        """Called where fairseq sets up the task to train, before it reads or writes anything.

        Raises:
            RuntimeError: if this process is one of several that are not joined, or another run holds the folder.
            FileNotFoundError, ValueError: if the checkpoint to start from is missing or damaged.
        """
        check_launch()
        hold_folder(cfg.save_dir)
        if cfg.tensorboard_logdir and not (find_spec("tensorboardX") or find_spec("tensorboard")):
            logger.warning(
                f"nothing will be written to common.tensorboard_logdir={cfg.tensorboard_logdir}: tensorboardX is not "
                "installed. pip install 'mmpt_plugin[tensorboard]'"
            )
        write_whole_checkpoints()
        self.start_checkpoint = checkpoint_to_start_from(cfg.save_dir, cfg.restore_file, cfg.finetune_from_model)
        if (start := self.start_checkpoint) is not None:
            begins = str(start) == cfg.finetune_from_model
            change_when_loaded(start, lambda content: self.adapt(content, begins, cfg.store_ema))
        self.stop = StopRequest()
        stop_on_signals()

    def adapt(self, content: dict[str, Any], begins: bool, store_ema: bool) -> None:
        """Change a checkpoint, in place, into what this run starts with; fairseq is about to load it.

        Args:
            content: of `start_checkpoint`.
            begins: whether another run begins with its weights. These are then the average, where the checkpoint has one.
            store_ema: whether this run keeps an average, which fairseq expects to find in it.
        """
        extra = content.setdefault("extra_state", {})
        if begins:
            content["model"] = weights_to_evaluate(content)
            extra.pop("ema", None)
            extra.pop("ema_fp32_params", None)
        self.fit_lengths(content)
        if store_ema and "ema" not in extra:
            extra["ema"] = dict(content["model"])

    def fit_lengths(self, content: dict[str, Any]) -> None:
        """Make the weights of clips of one length those of another, where a run may begin so."""

    def check_warm_up(self, cfg: TrainingConfig, batches_per_epoch: int) -> None:
        """Refuse a run that ends before its learning rate has risen: it would not learn, and not say so.

        Args:
            cfg: the run's length and its warm-up.
            batches_per_epoch: of each process.
        """
        updates = cfg.max_update or math.inf
        if cfg.max_epoch:
            freqs = [cfg.update_freq[min(epoch, len(cfg.update_freq) - 1)] for epoch in range(cfg.max_epoch)]
            updates = min(updates, sum(-(-batches_per_epoch // freq) for freq in freqs))
        if (cfg.warmup_updates or 0) > updates:
            raise ValueError(
                f"the run is {updates} updates long (optimization.max_update, or max_epoch={cfg.max_epoch} with "
                f"{batches_per_epoch} batches an epoch), and its learning rate rises for the first "
                f"lr_scheduler.warmup_updates={cfg.warmup_updates}: set that to a tenth of the run "
                f"({max(1, int(updates) // 10)}), or train longer"
            )

    def keep_text_backbone(self, bert: str, save_dir: str) -> None:
        """Make the text backbone part of what the run saves: its record in the checkpoints, its folder beside them."""
        self.state.merge_state_dict({"text_backbone": TextBackbone.load(bert).record()})
        if world()[0] == 0:
            save_reference(bert, Path(save_dir) / "bert")

    def kept_text_backbone(self, bert: str) -> TextBackbone | None:
        """The text backbone of the checkpoint that fairseq opens, wherever `bert` has gone; None for early checkpoints."""
        record = self.state.state_dict.get("text_backbone")
        return None if record is None else TextBackbone.of_record(record, bert)

    def label_towers(self, model: BaseFairseqModel, optimizer: str | None) -> None:
        """Tell the optimizer that can give towers and layers rates of their own which parameters are whose."""
        if optimizer == "fused_adam" and isinstance(model, VideoClipModel):
            model.label_towers()

    def train_step(self, sample: Any, model: BaseFairseqModel, *args: Any, **kwargs: Any) -> tuple:
        """fairseq's step; what it logs tells the other processes of a request to stop."""
        kwargs.pop("ema_model", None)  # has no part in training
        loss, sample_size, logging_output = super().train_step(sample, model, *args, **kwargs)
        stop = getattr(self, "stop", None)
        return loss, sample_size, {**logging_output, "asked_to_stop": int(stop is not None and stop.asked)}

    def valid_step(
        self, sample: Any, model: BaseFairseqModel, criterion: Any, ema_model: BaseFairseqModel | None = None
    ) -> tuple:
        """fairseq's step, with the average of the weights where one is kept: it is what will be evaluated and searched with."""
        return super().valid_step(sample, model if ema_model is None else ema_model, criterion)

    def reduce_metrics(self, logging_outputs: Sequence[dict[str, Any]], criterion: Any) -> None:
        """fairseq's, on values that are fetched from the device in one go: it is waited for once an update."""
        logging_outputs = on_host(logging_outputs)
        if any(output.get("asked_to_stop", 0) for output in logging_outputs):  # the sum over all processes
            self.stop.agreed = True
        super().reduce_metrics(logging_outputs, criterion)


def read_from(place: str | Path, copy: str | None, setting: str) -> Path:
    """`local_folder`; where it copies, all processes go on at the same time, so that none waits for another in a step.

    Args:
        place: a folder, or an address on an object store.
        copy: task.local_copy.
        setting: what `place` was given as.
    """
    folder = local_folder(place, copy, setting)
    if copy is not None:
        wait_for_all()
    return folder


@dataclass
class BenchmarkFilesConfig(FairseqDataclass):
    """Where a benchmark's files are, to evaluate or to fine-tune on it."""

    data: str = field(default=MISSING, metadata={"help": "data folder (docs/data.md)"})
    annotations: Optional[str] = field(
        default=None, metadata={"help": "annotation file or folder instead of the usual one"}
    )
    features: Optional[str] = field(
        default=None,
        metadata={
            "help": "feature folder instead of the usual one; with local_copy also an address such as s3://bucket/it"
        },
    )
    local_copy: Optional[str] = field(
        default=None,
        metadata={"help": "folder on each machine's own disk to copy task.features to, before they are read"},
    )
    on_missing: ChoiceEnum(["error", "skip"]) = field(  # type: ignore[valid-type]
        default="error",
        metadata={
            "help": "videos without features: stop, or leave out and count (in the results, or the training log)"
        },
    )
    split: ChoiceEnum(["official", "original"]) = field(  # type: ignore[valid-type]
        default="official",
        metadata={"help": "crosstask: videos by the annotation files alone, or the original's draw by features"},
    )
    drop_suffix: bool = field(
        default=False, metadata={"help": "features are named <video id>.mp4.npy (or .webm, .mkv, ...)"}
    )


def benchmark_files(cfg: BenchmarkFilesConfig, model: VideoClipConfig) -> BenchmarkFiles:
    """What `cfg` names, as the model takes it; features are copied first, where that is wanted.

    Raises:
        ValueError: as `given_features`.
    """
    return BenchmarkFiles(
        Path(cfg.data),
        annotations=Path(cfg.annotations) if cfg.annotations else None,
        features=given_features(cfg.features, cfg.local_copy),
        on_missing=str(cfg.on_missing),
        feature_size=model.feature_size,
        max_seconds=model.max_video_seconds,
        features_per_second=model.features_per_second,
        split=str(cfg.split),
        drop_suffix=cfg.drop_suffix,
    )


def given_features(features: str | None, copy: str | None) -> Path | None:
    """The folder of task.features, or its copy; None for the usual folder.

    Raises:
        ValueError: for a task.local_copy without task.features.
    """
    if features:
        return read_from(features, copy, "task.features")
    if copy is not None:
        raise ValueError(
            f"task.local_copy is {copy}: it copies task.features, which is not set: set it, or leave both out"
        )
    return None


def on_host(logging_outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same values as Python numbers."""
    tensors = [value for output in logging_outputs for value in output.values() if torch.is_tensor(value)]
    if not tensors:
        return list(logging_outputs)
    numbers = iter(torch.stack([value.detach().double().reshape(()) for value in tensors]).tolist())
    return [
        {name: next(numbers) if torch.is_tensor(value) else value for name, value in output.items()}
        for output in logging_outputs
    ]
