"""Evaluation of a checkpoint on one benchmark, zero-shot or fine-tuned, through fairseq's own machinery.

fairseq evaluates only what it trains. The run therefore takes one "step" that touches nothing: a placeholder batch, a loss
of zero and an optimizer that holds no state; its validation is the evaluation. Weights stay bit-identical.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq import metrics
from fairseq.data import FairseqDataset
from fairseq.data.iterators import EpochBatchIterating
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import MODEL_DATACLASS_REGISTRY, MODEL_REGISTRY, BaseFairseqModel
from fairseq.tasks import register_task
from hydra.core.hydra_config import HydraConfig
from omegaconf import II, MISSING, OmegaConf

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.data.epoch_iterator import FixedEpochIterator
from mmpt_plugin.evaluation.benchmarks import EVALUATIONS
from mmpt_plugin.evaluation.encoding import EncodedBatch, EncodingDataset, assemble, encode_batch
from mmpt_plugin.evaluation.results import format_table
from mmpt_plugin.evaluation.run import Subject, conclude, prepare, read_best_possible
from mmpt_plugin.models import text_backbone
from mmpt_plugin.models.checkpoint import feature_settings, fine_tuned_on, read_checkpoint, weights_to_evaluate
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.fairseq_model import FairseqVideoClipModel
from mmpt_plugin.models.loading import checkpoint_config, load_weights
from mmpt_plugin.report.wanted import page_pictures
from mmpt_plugin.runs.folder import hold_folder
from mmpt_plugin.runs.processes import check_launch
from mmpt_plugin.tasks.base import BenchmarkFilesConfig, VideoClipTask, benchmark_files

logger = logging.getLogger(__name__)

DEFAULT_RESTORE_FILE = "checkpoint_last.pt"  # fairseq's; given as such it means the one in checkpoint.save_dir


def silence(record: logging.LogRecord) -> bool:
    """A filter that lets nothing through: on fairseq's loggers, it makes the table of results the end of the log."""
    return False


LOGGERS_AFTER_RESULTS = ("fairseq_cli.train", "fairseq.logging.progress_bar")  # the latter logs under other names


@dataclass
class VideoClipZeroShotConfig(BenchmarkFilesConfig):
    """Which benchmark, from which files, to which place."""

    benchmark: ChoiceEnum(list(EVALUATIONS)) = field(  # type: ignore[valid-type]
        default=MISSING, metadata={"help": "what to evaluate on"}
    )
    results_path: str = field(default=MISSING, metadata={"help": "folder for <benchmark>.json and its scores"})
    report: bool = field(default=True, metadata={"help": "write a page beside the results (docs/results.md)"})
    videos: Optional[str] = field(
        default=None, metadata={"help": "folder of videos, or library of mmpt-search, for pictures on the page"}
    )
    batch_size: int = field(default=128, metadata={"help": "texts or windows encoded at once", "at_least": 1})
    bert: str = II("model.bert")
    checkpoint: str = II("checkpoint.restore_file")
    placeholders: Optional[int] = II("dataset.batch_size")
    max_update: int = II("optimization.max_update")
    disable_validation: bool = II("dataset.disable_validation")
    validate_after_updates: int = II("dataset.validate_after_updates")
    max_valid_steps: Optional[int] = II("dataset.max_valid_steps")


# What makes fairseq's one step end in the evaluation of everything; another value would end in nothing, or never.
NEEDED = {
    "optimization.max_update": 1,
    "dataset.disable_validation": False,
    "dataset.validate_after_updates": 0,
    "dataset.max_valid_steps": None,
}


@register_task("videoclip_zeroshot", dataclass=VideoClipZeroShotConfig)
class VideoClipZeroShotTask(VideoClipTask):
    """Evaluates the checkpoint of `checkpoint.restore_file`, ours or MMPT's."""

    cfg: VideoClipZeroShotConfig

    def __init__(self, cfg: VideoClipZeroShotConfig) -> None:
        super().__init__(cfg)
        for name in LOGGERS_AFTER_RESULTS:
            logging.getLogger(name).removeFilter(silence)
        check_bounds(cfg, VideoClipZeroShotConfig, "task")
        for setting, needed in NEEDED.items():
            if (value := cfg[setting.rpartition(".")[2]]) != needed:
                raise ValueError(
                    f"{setting} is {value}: an evaluation needs {needed}, as base/zeroshot.yaml has it, or it would not run "
                    "to its end: leave it out"
                )
        if cfg.placeholders is not None and cfg.placeholders < 1:
            raise ValueError(
                f"dataset.batch_size is {cfg.placeholders}: leave it at 1; task.batch_size is how much is encoded at once"
            )
        if given := given_model_settings():
            raise ValueError(
                f"{given[0]}: an evaluation takes the settings of the model from {cfg.checkpoint} (only model.bert can be "
                "given): leave it out"
            )
        if cfg.checkpoint == DEFAULT_RESTORE_FILE:
            raise ValueError(
                f"checkpoint.restore_file={cfg.checkpoint}: without a folder fairseq looks for it in task.results_path; "
                f"write ./{cfg.checkpoint} for the one in the current folder"
            )
        self.checkpoint = Path(cfg.checkpoint)
        content = read_checkpoint(self.checkpoint)
        self.content: dict[str, Any] | None = content
        self.own_model = own_model_settings(content)
        self.model_config = self.own_model or checkpoint_config(self.checkpoint, content, cfg.bert)
        beside = self.checkpoint.parent / "bert"
        if self.own_model is not None:
            copy = str(beside) if (beside / "config.json").is_file() else self.own_model.bert
            self.own_model.bert = cfg.bert or copy
        text_backbone.check_vocabulary(self.model_config.bert, content, beside, str(self.checkpoint))
        self.benchmark = EVALUATIONS[str(cfg.benchmark)](**vars(benchmark_files(cfg, self.model_config)))
        self.subject = Subject(
            vars(self.model_config), self.checkpoint, feature_settings(content), fine_tuned_on(content)
        )
        self.best_possible = read_best_possible(self.benchmark, Path(cfg.data))
        self.plan = prepare(self.benchmark, self.subject)
        if self.own_model is not None and self.plan.per_frame:
            raise ValueError(
                f"{self.benchmark.name} asks for the states of single seconds; the model {self.own_model._name} of this "
                "checkpoint gives embeddings of whole clips alone: evaluate it on retrieval or multiple choice"
            )
        self.tokenizer = text_backbone.load_tokenizer(self.model_config.bert)
        self.vocabulary = self.tokenizer.get_vocab()  # as in pre-training, for models that ask the task
        self.pictures = page_pictures(cfg.report, cfg.videos)
        self.encoded: list[EncodedBatch] = []
        check_launch()
        hold_folder(cfg.results_path, str(cfg.benchmark), "task.results_path")  # other benchmarks may run beside it

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> BaseFairseqModel:
        """The checkpoint's model, with the weights to evaluate.

        Raises:
            ValueError: for settings of the model on the command line: they are the checkpoint's own.
        """
        for setting in fields(VideoClipConfig):
            default = setting.default_factory() if callable(setting.default_factory) else setting.default
            if setting.name not in ("_name", "bert") and getattr(cfg, setting.name, default) != default:
                raise ValueError(
                    f"model.{setting.name} is {getattr(cfg, setting.name)}: an evaluation takes the settings of the model "
                    f"from {self.checkpoint} (only model.bert can be given): leave it out"
                )
        content, self.content = self.content or read_checkpoint(self.checkpoint), None  # only needed once
        if self.own_model is not None:
            model: BaseFairseqModel = MODEL_REGISTRY[self.own_model._name].build_model(self.own_model, self)
            model.load_state_dict(weights_to_evaluate(content))
        else:
            model = FairseqVideoClipModel.from_config(self.model_config)
            load_weights(model, weights_to_evaluate(content), str(self.checkpoint))
        keep_weights(model)
        return model

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """`train` is the placeholder, any other split the benchmark."""
        if split == "train":
            self.datasets[split] = PlaceholderDataset()
            return
        self.datasets[split] = EncodingBatches(
            self.plan,
            self.benchmark.features,
            self.tokenizer,
            max_pieces=self.model_config.max_text_pieces,
            batch_size=self.cfg.batch_size,
            both_sides=self.own_model is not None,
        )

    def get_batch_iterator(
        self, dataset: FairseqDataset, num_shards: int = 1, shard_id: int = 0, num_workers: int = 0, **kwargs: Any
    ) -> EpochBatchIterating:
        """One placeholder a process, or every batch of the benchmark once."""
        shard = {"num_shards": num_shards, "shard_id": shard_id}
        if isinstance(dataset, PlaceholderDataset):
            return FixedEpochIterator(dataset, num_shards, **shard)
        return FixedEpochIterator(dataset, len(dataset), num_workers=num_workers, **shard)

    def train_step(self, sample: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, int, dict]:
        """Nothing is trained."""
        return torch.zeros(()), 1, {"loss": 0.0, "nsentences": 1, "ntokens": 1}

    def begin_valid_epoch(self, epoch: int, model: BaseFairseqModel) -> None:
        """Start with no results."""
        self.encoded = []

    def valid_step(self, sample: dict, model: BaseFairseqModel, criterion: Any) -> tuple[torch.Tensor, int, dict]:
        """Encode one batch and keep the result."""
        while hasattr(model, "module"):  # what joins several processes' gradients: there are none
            model = model.module
        self.encoded.append(encode_batch(model, sample, self.plan))
        return torch.zeros(()), 1, {"loss": 0.0, "nsentences": sample["nsentences"], "ntokens": 1}

    def reduce_metrics(self, logging_outputs: Sequence[dict], criterion: Any) -> None:
        """fairseq wants a loss to follow; there is none."""
        metrics.log_scalar("loss", 0.0)

    @staticmethod
    def logging_outputs_can_be_summed(criterion: Any) -> bool:
        """They are zeros."""
        return True

    def post_validate(self, model: BaseFairseqModel, stats: dict, agg: Any) -> None:
        """Gather what all processes encoded; the first scores it and writes the results."""
        batches = gather_to_first(self.encoded)
        self.encoded = []
        for name in LOGGERS_AFTER_RESULTS:
            logging.getLogger(name).addFilter(silence)
        if batches is None:
            return
        results = conclude(
            self.benchmark,
            assemble(self.plan, batches),
            self.subject,
            config={"task": OmegaConf.to_container(self.cfg, resolve=True, enum_to_str=True)},
            best_possible=self.best_possible,
            folder=Path(self.cfg.results_path),
        )
        path = Path(self.cfg.results_path) / f"{self.benchmark.name}.json"
        page = self.write_page(path)
        logger.info(f"results in {path}{f', page in {page}' if page else ''}\n{format_table(results)}")

    def write_page(self, results: Path) -> Path | None:
        """The page beside the results, where one is wanted and the libraries are there."""
        if self.pictures is None:
            return None
        from mmpt_plugin.report.evaluation_pages import write_evaluation_page

        return write_evaluation_page([results], pictures=self.pictures)

    def max_positions(self) -> None:
        """Windows and texts are cut to the model's lengths: none is too long."""
        return None


def keep_weights(model: BaseFairseqModel) -> None:
    """Let the model keep its weights when fairseq loads the checkpoint's last ones, which may not be those to evaluate."""

    def own_instead(state_dict: dict[str, Any]) -> None:
        state_dict.clear()
        state_dict.update(model.state_dict())

    model.upgrade_state_dict = own_instead


def given_model_settings() -> list[str]:
    """The command line's settings of the model, but for the text backbone.

    A task's own settings do not tell: fairseq has filled in the model's defaults before.
    """
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    settings = [override for override in overrides if override.lstrip("+").startswith("model.")]
    return [setting for setting in settings if not setting.lstrip("+").startswith(("model.bert=", "model._name="))]


def gather_to_first(encoded: list[EncodedBatch]) -> list[EncodedBatch] | None:
    """The results of all processes on the first one; None on the others."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return encoded
    first = torch.distributed.get_rank() == 0
    parts: list[Any] | None = [None] * torch.distributed.get_world_size() if first else None
    torch.distributed.gather_object(encoded, parts)
    return [batch for part in parts for batch in part] if parts is not None else None


def own_model_settings(content: dict[str, Any]) -> Any:
    """The settings of a checkpoint whose model a plug-in of the user's registers; None for ours and MMPT's.

    Raises:
        ValueError: if no such model is registered.
    """
    settings = (content.get("cfg") or {}).get("model")
    name = settings.get("_name") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or name in (None, "videoclip"):
        return None
    if name not in MODEL_DATACLASS_REGISTRY:
        raise ValueError(
            f"checkpoint.restore_file: its model is {name!r}, which nothing registers here: set common.user_dir to the folder "
            "that does, as in its training"
        )
    schema = OmegaConf.structured(MODEL_DATACLASS_REGISTRY[name])
    return OmegaConf.to_object(OmegaConf.merge(schema, settings))


class EncodingBatches(EncodingDataset, FairseqDataset):
    """The batches of a plan, for fairseq's data loader."""


class PlaceholderDataset(FairseqDataset):
    """Empty batches for the one step that fairseq insists on."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"placeholder": True}

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """The item itself."""
        return samples[0]
