"""Fine-tuning a pre-trained checkpoint on a benchmark's training split; evaluate the result as any checkpoint."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from fairseq.criterions import FairseqCriterion
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterating
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.tasks import register_task
from omegaconf import II, MISSING, open_dict

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.criterions import (  # noqa: F401 (registers the criterions)
    contrastive,
    frame_losses,
    sigmoid,
)
from mmpt_plugin.criterions.contrastive import NO_SPANS
from mmpt_plugin.data.epoch_iterator import ShuffledEpochIterator
from mmpt_plugin.features.manifest import check_feature_settings, check_rate, read_settings
from mmpt_plugin.finetuning.datasets import CaptionedClipDataset, LabelledVideoDataset
from mmpt_plugin.finetuning.training_sets import TRAINING_SETS
from mmpt_plugin.models.checkpoint import feature_settings, read_checkpoint
from mmpt_plugin.models.fairseq_model import FairseqVideoClipModel
from mmpt_plugin.models.loading import check_state_dict, checkpoint_config
from mmpt_plugin.models.text_backbone import check_vocabulary, load_tokenizer
from mmpt_plugin.tasks.base import (
    BenchmarkFilesConfig,
    TrainingConfig,
    TrainingTask,
    benchmark_files,
    check_training,
)
from mmpt_plugin.tasks.recording import RecordedTask

logger = logging.getLogger(__name__)

SETTING = "checkpoint.finetune_from_model"
FRAME_CRITERIONS = ("frame_cross_entropy", "step_binary_cross_entropy")


@dataclass
class VideoClipFinetuningConfig(BenchmarkFilesConfig, TrainingConfig):
    """Which benchmark's training split, from which files."""

    benchmark: ChoiceEnum(list(TRAINING_SETS)) = field(  # type: ignore[valid-type]
        default=MISSING, metadata={"help": "what to fine-tune on"}
    )
    repeats: int = field(
        default=1,
        metadata={"help": "how often each clip comes in an epoch, each time with one of its sentences", "at_least": 1},
    )
    report: bool = field(
        default=True, metadata={"help": "write save_dir/report.html at each checkpoint (docs/results.md)"}
    )
    bert: str = II("model.bert")
    checkpoint: Optional[str] = II("checkpoint.finetune_from_model")
    log_interval: int = II("common.log_interval")


@register_task("videoclip_finetuning", dataclass=VideoClipFinetuningConfig)
class VideoClipFinetuningTask(RecordedTask, TrainingTask):
    """Trains the model of `checkpoint.finetune_from_model`, ours or MMPT's, for a fixed number of epochs.

    There is no validation: no benchmark's test set chooses a checkpoint. The result is checkpoint_last.pt.
    """

    cfg: VideoClipFinetuningConfig

    @classmethod
    def setup_task(
        cls, cfg: VideoClipFinetuningConfig, from_checkpoint: bool = False, **kwargs: Any
    ) -> "VideoClipFinetuningTask":
        """Called by fairseq; `from_checkpoint` tells that only a model is wanted, for which no data is read.

        Raises:
            FileNotFoundError, ValueError: if the checkpoint or a file of the training split is missing or unusable.
        """
        task = cls(cfg)
        if not from_checkpoint:
            check_training(cfg)
            task.prepare()
            task.begin_run(cfg)
        return task

    def prepare(self) -> None:
        """Read the checkpoint's settings and the training split."""
        check_bounds(self.cfg, VideoClipFinetuningConfig, "task")
        if not self.cfg.checkpoint:
            raise ValueError(f"{SETTING} is not set: give the pre-trained checkpoint to start from")
        self.checkpoint = Path(self.cfg.checkpoint)
        content = read_checkpoint(self.checkpoint, SETTING)
        self.model_config = checkpoint_config(self.checkpoint, content, self.cfg.bert)
        if self.model_config.frame_labels:
            raise ValueError(
                f"{SETTING}: {self.checkpoint} was fine-tuned to classify frames already: start from a pre-trained one"
            )
        self.training_set = TRAINING_SETS[str(self.cfg.benchmark)](benchmark_files(self.cfg, self.model_config))
        if self.training_set.videos and self.cfg.repeats > 1:
            raise ValueError(
                f"task.repeats is {self.cfg.repeats}, but {self.cfg.benchmark} trains on whole videos, which come once an "
                "epoch: raise optimization.max_epoch instead"
            )
        folder = self.training_set.features.path
        check_rate(f"the features in {folder}", read_settings(folder), self.model_config.features_per_second)
        if (trained_on := feature_settings(content)) is not None:
            check_feature_settings(folder, trained_on)
            self.state.merge_state_dict({"features": trained_on})  # part of what fairseq saves
        self.model_config.frame_labels = list(self.training_set.label_ids)
        labels = f", {len(self.training_set.label_ids)} labels" if self.training_set.label_ids else ""
        repeated = f", each {self.cfg.repeats} times an epoch" if self.cfg.repeats > 1 else ""
        logger.info(
            f"{self.cfg.benchmark}: {len(self.training_set.clips or self.training_set.videos)} items to train on{repeated}"
            f"{labels}, {len(self.training_set.missing)} videos left out"
        )

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> BaseFairseqModel:
        """The checkpoint's model, with a new frame classifier where the benchmark has labels.

        The checkpoint's settings and the labels' ids become the run's own settings, and so part of what it saves. fairseq
        loads the weights: the checkpoint's, or those of a run to go on with.

        Raises:
            ValueError: if the checkpoint does not fit `model.bert`, by its sizes or its vocabulary.
        """
        if from_checkpoint:
            return FairseqVideoClipModel.from_config(cfg, self.kept_text_backbone(cfg.bert))
        self.model_config.chunk_pairs = cfg.chunk_pairs  # how to compute is this run's choice, and what to train
        self.model_config.freeze_text = cfg.freeze_text
        self.model_config.clip_parts = (
            1  # whole clips and labelled seconds are learned here, whatever pre-training chose
        )
        content = read_checkpoint(self.checkpoint, SETTING)
        check_vocabulary(self.model_config.bert, content, self.checkpoint.parent / "bert", str(self.checkpoint))
        self.keep_text_backbone(self.model_config.bert, self.cfg.save_dir)
        model = FairseqVideoClipModel.from_config(self.model_config)
        check_state_dict(model, content["model"], f"{SETTING}: {self.checkpoint}", new_classifier=True)
        with open_dict(cfg):
            cfg.update(vars(self.model_config))
        self.model = model
        self.label_towers(model, self.cfg.optimizer)
        return model

    def build_criterion(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> FairseqCriterion:
        """The loss.

        Raises:
            ValueError: if it wants negatives of other processes, which need batches of one size.
        """
        labels, learns_labels = bool(self.training_set.videos), cfg._name in FRAME_CRITERIONS
        if labels != learns_labels:
            raise ValueError(
                f"criterion._name is {cfg._name}, but {self.cfg.benchmark} gives "
                + (
                    f"labels of seconds: set it to one of {', '.join(FRAME_CRITERIONS)}, with dataset.batch_size=1"
                    if labels
                    else "pairs of clips and sentences: set it to video_text_contrastive or directed_contrastive"
                )
            )
        if getattr(cfg, "gather", False):
            raise ValueError(
                "criterion.gather is true; fine-tuning's batches differ in size by a clip from process to process, so "
                "that they cannot be joined: set criterion.gather=false"
            )
        if (handling := str(getattr(cfg, "false_negatives", "keep"))) != "keep":
            raise ValueError(NO_SPANS.format(handling))
        criterion = super().build_criterion(cfg, from_checkpoint)
        if not labels:
            criterion.check_model(self.model)
        return criterion

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Make the dataset of `train`, the only one."""
        if split != "train":
            raise ValueError(
                f"dataset split {split!r}: fine-tuning has `train` only; set dataset.disable_validation=true"
            )
        clips, videos, features = self.training_set.clips, self.training_set.videos, self.training_set.features
        tokenizer, pieces = load_tokenizer(self.model_config.bert), self.model_config.max_text_pieces
        self.datasets[split] = (
            LabelledVideoDataset(videos, features, tokenizer, max_pieces=pieces)
            if videos
            else CaptionedClipDataset(
                clips, features, tokenizer, max_pieces=pieces, seed=self.cfg.seed, repeats=self.cfg.repeats
            )
        )

    def get_batch_iterator(
        self,
        dataset: FairseqDataset,
        max_sentences: int | None = None,
        seed: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        **kwargs: Any,
    ) -> EpochBatchIterating:
        """Batches of about `max_sentences` items, which are drawn anew in each epoch.

        Raises:
            ValueError: if a batch is to hold several videos whose seconds are labelled.
        """
        batch_size = max_sentences or 1
        if isinstance(dataset, LabelledVideoDataset) and batch_size != 1:
            raise ValueError(
                f"dataset.batch_size is {batch_size}; {self.cfg.benchmark} takes 1 video a batch: raise "
                "optimization.update_freq to learn from several at a time"
            )
        batches = ShuffledEpochIterator(
            dataset,
            batch_size=batch_size,
            seed=seed,
            num_shards=num_shards,
            shard_id=shard_id,
            num_workers=num_workers,
            epoch=epoch,
        )
        self.check_warm_up(self.cfg, len(batches))
        return batches

    def max_positions(self) -> None:
        """Windows and texts are cut to the model's lengths: none is too long."""
        return None
