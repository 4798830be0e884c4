"""Pre-training on videos and their captions."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

import numpy as np
from fairseq import metrics
from fairseq.criterions import FairseqCriterion
from fairseq.data.iterators import EpochBatchIterating
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.tasks import register_task
from numpy.typing import NDArray
from omegaconf import II, MISSING
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.criterions import choosing_parts, contrastive, mil_nce, sigmoid  # noqa: F401 (registers the criteria)
from mmpt_plugin.data.corpus import VideoTextCorpus, read_video_list
from mmpt_plugin.data.epoch_iterator import FixedEpochIterator, GroupEpochIterator
from mmpt_plugin.data.groups import GroupSource, RandomGroups, consecutive_groups
from mmpt_plugin.data.pairs import Batch, SpecialTokens
from mmpt_plugin.data.pretraining_dataset import FIRST_SECONDS, ClipSettings, PretrainingDataset
from mmpt_plugin.features.manifest import RATE, check_rate, check_same_settings
from mmpt_plugin.models.checkpoint import (
    check_same_similarity,
    feature_settings,
    model_settings,
    read_checkpoint,
    trained_features,
)
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.fairseq_model import FairseqVideoClipModel
from mmpt_plugin.models.mmpt_checkpoint import with_our_names
from mmpt_plugin.models.positions import POSITIONS, stretched
from mmpt_plugin.models.text_backbone import check_vocabulary, load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel
from mmpt_plugin.retrieval.cluster_groups import ClusterGroups
from mmpt_plugin.retrieval.settings import RetrievalConfig, check_retrieval
from mmpt_plugin.tasks.base import TrainingConfig, TrainingTask, check_training, on_host, read_from
from mmpt_plugin.tasks.recording import RecordedTask, gallery

logger = logging.getLogger(__name__)

RETRIEVAL_STREAM = 1  # tells the draws of clips to embed from those of clips to train on
VALIDATION_VIDEOS = "validation_videos"
"""The name in a checkpoint's `task_state` of what tells the videos that the run validates on."""

VIDEO_LISTS = {"train": "train.txt", "valid": "val.txt"}


@dataclass
class VideoClipPretrainingConfig(ClipSettings, TrainingConfig):
    """The paper's set-up (sections 3.3 and 4.2)."""

    data: str = field(default=MISSING, metadata={"help": "data folder; holds howto100m/{train.txt,val.txt,shards/}"})
    shards: Optional[str] = field(
        default=None,
        metadata={"help": "shards instead of data's; with local_copy also an address such as s3://bucket/shards"},
    )
    local_copy: Optional[str] = field(
        default=None, metadata={"help": "folder on each machine's own disk to copy the shards to, before they are read"}
    )
    videos_per_batch: int = field(
        default=32,
        metadata={
            "help": "videos in a group; a group is a batch",
            "at_least": 1,
        },
    )
    on_missing: ChoiceEnum(["error", "skip"]) = field(  # type: ignore[valid-type]
        default="error",
        metadata={"help": "videos of a list without features or captions: stop, or leave out and count"},
    )
    verify: ChoiceEnum(["auto", "full", "size"]) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={"help": "check shards by checksum (full), by size, or by what their size allows (auto)"},
    )
    report: bool = field(
        default=True, metadata={"help": "write save_dir/report.html at each checkpoint (docs/results.md)"}
    )
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    bert: str = II("model.bert")
    feature_size: int = II("model.feature_size")
    features_per_second: int = "${oc.select:model.features_per_second,1}"  # type: ignore[assignment]
    max_video_seconds: int = II("model.max_video_seconds")
    max_text_pieces: int = II("model.max_text_pieces")
    amp: bool = II("common.amp")
    disable_validation: bool = II("dataset.disable_validation")
    log_interval: int = II("common.log_interval")


@register_task("videoclip_pretraining", dataclass=VideoClipPretrainingConfig)
class VideoClipPretrainingTask(RecordedTask, TrainingTask):
    """Trains any model that embeds pairs (data/pairs.py) on groups of videos."""

    cfg: VideoClipPretrainingConfig

    def __init__(self, cfg: VideoClipPretrainingConfig) -> None:
        super().__init__(cfg)
        self.clips = ClipSettings(**{own.name: getattr(cfg, own.name) for own in fields(ClipSettings)})
        self.source: GroupSource | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """That of `model.bert`; whoever only opens a checkpoint does without."""
        return load_tokenizer(self.cfg.bert)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Word pieces and their ids."""
        return self.tokenizer.get_vocab()

    @property
    def special(self) -> SpecialTokens:
        """The tokens around a text."""
        return SpecialTokens.of(self.tokenizer)

    @classmethod
    def setup_task(
        cls, cfg: VideoClipPretrainingConfig, from_checkpoint: bool = False, **kwargs: Any
    ) -> "VideoClipPretrainingTask":
        """Called by fairseq; `from_checkpoint` tells that only a model is wanted, and no run begins.

        Raises:
            FileNotFoundError, RuntimeError, ValueError: if the run cannot begin as it is set up.
        """
        if from_checkpoint:
            return cls(cfg)
        check_training(cfg)
        check_bounds(cfg, VideoClipPretrainingConfig, "task")
        if cfg.retrieval.enabled:
            check_retrieval(cfg.retrieval, cfg.videos_per_batch)
            if cfg.retrieval.start_recall is not None and cfg.disable_validation:
                raise ValueError(
                    f"task.retrieval.start_recall is {cfg.retrieval.start_recall}, a recall of validation, and "
                    "dataset.disable_validation is true: no clusters would ever begin. Set one of them otherwise"
                )
        task = cls(cfg)
        task.begin_run(cfg)
        task.check_start()
        return task

    def check_start(self) -> None:
        """Refuse to go on with a run that was none of pre-training, such as MMPT's, which kept no place of ours."""
        path = self.start_checkpoint
        if path is None or str(path) == self.cfg.finetune_from_model or self.cfg.reset_dataloader:
            return
        state = read_checkpoint(path).get("extra_state") or {}
        if "videos" not in (state.get("train_iterator") or {}):
            raise ValueError(
                f"checkpoint.restore_file: {path} was not saved by this package's pre-training (but by MMPT, or by "
                "fine-tuning), so that its run cannot be gone on with; to start from its weights set "
                f"checkpoint.finetune_from_model={path} instead"
            )

    def open_corpus(self, split: str) -> VideoTextCorpus:
        """The videos of `train` or `valid`."""
        folder = Path(self.cfg.data) / "howto100m"
        corpus = VideoTextCorpus.open(
            read_from(self.cfg.shards or folder / "shards", self.cfg.local_copy, "task.shards"),
            read_video_list(folder / VIDEO_LISTS[split]),
            on_missing=str(self.cfg.on_missing),
            verify=str(self.cfg.verify),
            feature_size=self.cfg.feature_size,
            features_per_second=self.cfg.features_per_second,
            min_captions=self.clips.captions_needed,
        )
        corpus.check_vocabulary(self.vocabulary)
        logger.info(f"{split}: {len(corpus.video_ids)} videos, {len(corpus.missing)} left out, from {folder}")
        return corpus

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> BaseFairseqModel:
        """The model; its BERT's configuration and tokenizer are kept beside the checkpoints."""
        if from_checkpoint and cfg._name == "videoclip":  # its weights come from the checkpoint, not from the BERT
            return FairseqVideoClipModel.from_config(cfg, self.kept_text_backbone(cfg.bert))
        if (start := self.start_checkpoint) is not None:
            content = read_checkpoint(start)
            check_vocabulary(self.cfg.bert, content, start.parent / "bert", str(start))
            if cfg._name == "videoclip":
                may_begin = str(start) == self.cfg.finetune_from_model
                check_same_similarity(content, cfg, str(start), may_begin=may_begin)
                self.check_same_run(content, cfg)
        self.keep_text_backbone(self.cfg.bert, self.cfg.save_dir)
        self.model = super().build_model(cfg, from_checkpoint)
        self.label_towers(self.model, self.cfg.optimizer)
        return self.model

    def build_criterion(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> FairseqCriterion:
        """The loss, which must fit how the model scales its logits."""
        criterion = super().build_criterion(cfg, from_checkpoint)
        if hasattr(criterion, "check_model") and hasattr(self, "model"):
            criterion.check_model(self.model)
        return criterion

    def check_same_run(self, content: dict[str, Any], cfg: VideoClipConfig) -> None:
        """Refuse to go on with a run that trained other parameters, or on clips of another length."""
        if str(self.start_checkpoint) == self.cfg.finetune_from_model or self.cfg.reset_optimizer:
            return
        recorded = model_settings(content)
        for name in ("freeze_text", "max_video_seconds", "features_per_second"):
            own = getattr(cfg, name)
            was = recorded.get(name, getattr(VideoClipConfig, name))
            if was != own:
                raise ValueError(
                    f"model.{name} is {own}, and the run of {self.start_checkpoint} had {was}: restore it, or start another "
                    "run from its weights with checkpoint.finetune_from_model"
                )

    def fit_lengths(self, content: dict[str, Any]) -> None:
        """Interpolate the video's positions, where its clips had another number of features than they have now."""
        if not isinstance(self.model, VideoClipModel) or self.start_checkpoint is None:
            return
        encoder = self.model.video_encoder
        own = read_checkpoint(self.start_checkpoint)  # in `content`, fairseq has put this run's settings
        trained = trained_features(own)
        shared = encoder.transformer is self.model.text_encoder.transformer  # the text's positions are the same
        if trained == encoder.max_features or shared:
            return
        logger.info(
            f"{self.start_checkpoint} was trained on clips of up to {trained} features, now there are {encoder.max_features}: "
            "the positions between are interpolated"
        )
        weights = with_our_names(content["model"], self.model.cls_id, self.model.sep_id)
        name, first = f"video_encoder.transformer.{POSITIONS}", encoder.first_position
        new = encoder.transformer.state_dict()[POSITIONS].cpu()
        weights[name] = stretched(weights[name], new, first, trained, encoder.max_features)
        content["model"] = weights

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Make the dataset of `train` or `valid`; validation has fixed groups and clips."""
        if split not in VIDEO_LISTS:
            raise ValueError(f"dataset split {split!r}: choose one of {', '.join(VIDEO_LISTS)}")
        dataset = PretrainingDataset(self.open_corpus(split), self.clips, self.special, self.cfg.seed)
        self.check_features(dataset.corpus)
        if split == "valid":
            self.check_validation(dataset.corpus)
            dataset.set_groups(0, consecutive_groups(len(dataset.corpus), self.cfg.videos_per_batch))
        else:
            self.source = self.build_source(dataset.corpus)
        self.datasets[split] = dataset

    def check_features(self, corpus: VideoTextCorpus) -> None:
        """Record how the videos' features were made; refuse others than those that the run's checkpoint was trained on.

        The record is part of fairseq's checkpoints; readers of features compare it with theirs.
        """
        features = corpus.source.get("features")
        if not isinstance(features, dict):  # shards from elsewhere do not say
            return
        own = f"the features in {self.cfg.data}/howto100m"
        check_rate(own, features, self.cfg.features_per_second)
        if self.start_checkpoint is not None:
            trained_on = dict(feature_settings(read_checkpoint(self.start_checkpoint)) or {})
            trained_on.pop(RATE, None)  # the model's own, and checked above; another run may begin with more
            check_same_settings(own, features, trained_on)
        for split, other in self.datasets.items():
            if isinstance(recorded := other.corpus.source.get("features"), dict):
                what = f"the features of {VIDEO_LISTS[split]} in {self.cfg.data}/howto100m"
                check_same_settings(what, recorded, features)
        self.state.merge_state_dict({"features": features})

    def check_validation(self, corpus: VideoTextCorpus) -> None:
        """Record which videos a run validates on; refuse others where it goes on, as "best" would compare different sets."""
        videos = hashlib.sha256("\n".join(corpus.video_ids).encode()).hexdigest()
        start = self.start_checkpoint
        if start is not None and start.parent == Path(self.cfg.save_dir) and not self.cfg.reset_meters:
            recorded = (read_checkpoint(start).get("task_state") or {}).get(VALIDATION_VIDEOS, videos)
            if recorded != videos:
                raise ValueError(
                    f"{self.cfg.data}/howto100m/{VIDEO_LISTS['valid']} names other videos than when this run began, so that "
                    "the best checkpoint would be chosen by losses that do not compare: restore the list, or set "
                    "checkpoint.reset_meters=true to choose anew"
                )
        self.state.merge_state_dict({VALIDATION_VIDEOS: videos})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a checkpoint's record, but not of the videos that were validated on: those are `check_validation`'s."""
        super().load_state_dict({name: value for name, value in state_dict.items() if name != VALIDATION_VIDEOS})

    def build_source(self, corpus: VideoTextCorpus) -> GroupSource:
        """Where the groups of training videos come from: chance, or the model's own embeddings."""
        retrieval, k = self.cfg.retrieval, self.cfg.videos_per_batch
        if not retrieval.enabled:
            return RandomGroups(len(corpus), k, self.cfg.seed)
        first = str(retrieval.clips) == "first_32s"
        clips = replace(
            self.clips,
            clip_sampling=FIRST_SECONDS if first else "aligned",
            clips_per_video=1 if first else retrieval.clips_per_video,
        )
        dataset = PretrainingDataset(corpus, clips, self.special, self.cfg.seed, stream=RETRIEVAL_STREAM)
        source = ClusterGroups(self.model, dataset, k, retrieval, self.cfg.seed, self.cfg.num_workers, self.cfg.amp)
        source.observe = self.record_clusters
        return source

    def record_clusters(
        self, epoch: int, statistics: dict[str, float], clusters: NDArray[np.int64], vectors: NDArray[np.float32]
    ) -> None:
        """Keep in the run's log what the clusters of an epoch are like."""
        corpus, rng = self.datasets["train"].corpus, np.random.default_rng([self.cfg.seed, epoch])
        self.recorder.epoch = epoch
        self.recorder.write(
            "clusters", statistics | {"gallery": gallery(corpus, self.tokenizer, clusters, vectors, rng)}
        )

    def train_step(self, sample: Batch, model: BaseFairseqModel, *args: Any, **kwargs: Any) -> tuple:
        """fairseq's step, with its embeddings remembered where retrieval reuses them."""
        memory = self.source.memory if isinstance(self.source, ClusterGroups) else None
        with memory.recording(self.model, sample["video_id"]) if memory else nullcontext():
            return super().train_step(sample, model, *args, **kwargs)

    def post_validate(self, model: BaseFairseqModel, stats: Mapping[str, Any], agg: Any) -> None:
        """Record a validation, and tell the source of groups, which may wait for its recall."""
        super().post_validate(model, stats, agg)
        if not isinstance(self.source, ClusterGroups) or self.source.settings.start_recall is None:
            return
        if "text_to_video" not in stats:
            raise ValueError(
                "task.retrieval.start_recall is set, but this criterion logs no text_to_video: set it to null, and "
                "task.retrieval.start_epoch to the epoch of the first clusters"
            )
        self.source.recall = float(stats["text_to_video"])

    def get_batch_iterator(
        self,
        dataset: PretrainingDataset,
        max_sentences: int | None = None,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        **kwargs: Any,
    ) -> EpochBatchIterating:
        """Batches of `max_sentences` groups: lazily made for training, one after the other for validation.

        The other arguments of fairseq's method size batches by tokens; a group's size is fixed, so they have no use here.
        """
        shard = {"num_shards": num_shards, "shard_id": shard_id, "num_workers": num_workers}
        if dataset is self.datasets.get("train"):
            assert self.source is not None  # made with the data set
            batches = GroupEpochIterator(
                dataset,
                self.source,
                groups_per_batch=max_sentences or 1,
                epoch=epoch,
                buffer_size=data_buffer_size,
                **shard,
            )
            self.check_warm_up(self.cfg, len(batches))
            return batches
        return FixedEpochIterator(dataset, len(dataset), **shard)

    def reduce_metrics(self, logging_outputs: Sequence[dict[str, Any]], criterion: Any) -> None:
        """The values of all training, and the pairs per second."""
        logging_outputs = on_host(logging_outputs)
        super().reduce_metrics(logging_outputs, criterion)
        pairs = float(sum(output.get("nsentences", 0) for output in logging_outputs))
        metrics.log_speed("pairs_per_s", pairs, priority=90, round=1)

    def max_positions(self) -> None:
        """Clips and texts are cut when drawn: no batch is ever too long."""
        return None

    @property
    def source_dictionary(self) -> None:
        """None: texts are word pieces of the model's own tokenizer, not of a fairseq dictionary."""
        return None

    @property
    def target_dictionary(self) -> None:
        """None, as above."""
        return None
