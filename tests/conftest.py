"""Fixtures shared by all tests."""

from __future__ import annotations

import json
import logging
import pickle
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel

if TYPE_CHECKING:
    from omegaconf import DictConfig

REPOSITORY = Path(__file__).resolve().parents[1]
hypothesis.settings.register_profile("without a clock", deadline=None)  # on a busy machine any example may take long
hypothesis.settings.load_profile("without a clock")
torch.set_num_threads(1)  # the models of the tests are too small to share

GOLDEN = REPOSITORY.parent / "shared" / "golden" / "public"
GOLDEN_PART = REPOSITORY / "tests" / "golden"
WORDS = ("add", "cut", "the", "onion", "##s", "potato", "##es", "salt", "to", "pan", "stir", "a", "b", "c")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """What a command sets in this process ends with its test: logging's levels, handlers and filters."""
    root = logging.getLogger()

    def known() -> list[logging.Logger]:
        return [root, *(one for one in list(root.manager.loggerDict.values()) if isinstance(one, logging.Logger))]

    logging.getLogger("mmpt_plugin").setLevel(logging.NOTSET)  # of a command in a fixture of many tests
    before = {one: (one.level, one.disabled, one.propagate, one.handlers[:], one.filters[:]) for one in known()}
    yield
    for one in known():
        default = (logging.NOTSET, False, True, [], [])
        level, one.disabled, one.propagate, one.handlers[:], one.filters[:] = before.get(one, default)
        one.setLevel(level)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference data made by running the original (see docs/design.md)."""
    if not GOLDEN.is_dir():
        pytest.skip(f"reference data not found at {GOLDEN}: parity with the original is not checked here")
    return GOLDEN


@pytest.fixture(scope="session")
def golden_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of the reference data that every clone has (tests/golden/README.md), with features of the right lengths."""
    folder = tmp_path_factory.mktemp("golden") / "part"
    shutil.copytree(GOLDEN_PART, folder)
    for listed in folder.glob("*/seconds.json"):
        content = json.loads(listed.read_text())
        features = listed.parent / content["folder"]
        features.mkdir(parents=True)
        for video, seconds in content["seconds"].items():
            np.save(features / f"{video}.npy", np.zeros((seconds, 512), np.float16))
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT folder: 3 layers, 32 wide, random weights, a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_bert: Path) -> VideoClipModel:
    """A model that starts from the tiny BERT, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return VideoClipModel.from_backbone(VideoClipConfig(bert=str(tiny_bert), video_layers=2)).eval()


ABSENT = re.compile("No module named '(fairseq|hydra|omegaconf)")
WITHOUT_FAIRSEQ = find_spec("fairseq") is None
"""An environment for embedding alone: what trains is skipped, in `scripts/try_versions.sh`."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if WITHOUT_FAIRSEQ and report.failed and (absent := ABSENT.search(str(report.longrepr))):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {absent[0]}'")
    return report


def needing_fairseq() -> Any:
    """The module `together`."""
    if WITHOUT_FAIRSEQ:
        pytest.skip("fairseq is not installed")
    from . import together

    return together


@pytest.fixture(scope="session")
def compose_run() -> Callable[..., DictConfig]:
    """What `fairseq-hydra-train` makes of a configuration's name and overrides."""
    return needing_fairseq().composed


@pytest.fixture(scope="session")
def fairseq_train() -> Callable[..., None]:
    """`fairseq-hydra-train` in this process: call it with a configuration's name and overrides."""
    return needing_fairseq().train


def tiny_video(rng: np.random.Generator, style: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Features, caption times and word pieces of a video of 5 to 40 seconds, whose features share a style."""
    seconds, captions = rng.integers(5, 41), rng.integers(2, 10)
    features = style + rng.standard_normal((seconds, len(style)))
    times = np.sort(rng.uniform(0, seconds, (captions, 2)), axis=0)
    tokens = [rng.integers(5, 5 + len(WORDS), rng.integers(1, 9)) for _ in range(captions)]
    return features / np.sqrt(len(style)), np.sort(times, axis=1), tokens


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose howto100m has 24 videos of 6 styles to train on and 5 to validate on, in the tiny BERT's words."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    styles = rng.standard_normal((6, 512))
    for split, videos in (("train", 24), ("val", 5)):
        video_ids = [f"{split}{video:02}" for video in range(videos)]
        with ShardWriter(folder / "howto100m" / "shards", f"{split}_00000", source={"network": "random"}) as writer:
            for video, video_id in enumerate(video_ids):
                writer.add(video_id, *tiny_video(rng, styles[video % 6]))
        (folder / "howto100m" / f"{split}.txt").write_text("\n".join(video_ids) + "\n")
    return folder


TINY_PRETRAINING = (  # batches of 4 videos x 2 clips: 6 updates an epoch
    "model.video_layers=2",
    "task.videos_per_batch=4",
    "task.clips_per_video=2",
    "task.retrieval.num_neighbors=8",
    "task.retrieval.clips_per_video=2",
    "dataset.num_workers=0",
    "common.fp16=false",
    "optimization.lr=[0.001]",
    "optimization.max_epoch=2",
    "lr_scheduler.warmup_updates=1",
    "checkpoint.save_interval_updates=0",
    "checkpoint.no_epoch_checkpoints=true",
)


@pytest.fixture(scope="session")
def tiny_settings(tiny_data: Path, tiny_bert: Path) -> tuple[str, ...]:
    """Overrides of `pretrain` that train the tiny BERT on the tiny data."""
    return (*TINY_PRETRAINING, f"task.data={tiny_data}", f"model.bert={tiny_bert}")


@pytest.fixture(scope="session")
def pretrain(fairseq_train: Callable[..., None], tiny_settings: tuple[str, ...]) -> Callable[..., None]:
    """Pre-training with the tiny settings: call it with a save_dir and further overrides."""

    def run(save_dir: Path, *overrides: object) -> None:
        fairseq_train("pretrain", *tiny_settings, f"checkpoint.save_dir={save_dir}", *overrides)

    return run


@pytest.fixture(scope="session")
def tiny_checkpoint(pretrain: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of ours, of two updates."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(folder, "optimization.max_update=2")
    return folder / "checkpoint_last.pt"


@contextmanager
def recorded_losses() -> Iterator[list[float]]:
    """The losses of the training batches while the context lasts, as they come."""
    from mmpt_plugin.criterions import contrastive

    seen: list[float] = []
    original = contrastive.symmetric_info_nce

    def recording(video: torch.Tensor, text: torch.Tensor, temperature: float) -> torch.Tensor:
        loss = original(video, text, temperature)
        if loss.requires_grad:
            seen.append(loss.item())
        return loss

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(contrastive, "symmetric_info_nce", recording)
        yield seen


@pytest.fixture
def losses() -> Iterator[list[float]]:
    """The losses of the training batches of this test's runs."""
    with recorded_losses() as seen:
        yield seen


class WholeRun(NamedTuple):
    """A run of two epochs with the tiny settings that nothing disturbed. Do not change its folder."""

    folder: Path
    losses: list[float]


@pytest.fixture(scope="session")
def whole_run(pretrain: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """What runs that are stopped and resumed are compared with."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with recorded_losses() as seen:
        pretrain(folder)
    return WholeRun(folder, seen)


def save_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def benchmark_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training and test splits of five benchmarks in the official formats, in the tiny BERT's words. Copy it to alter it."""
    folder = tmp_path_factory.mktemp("benchmarks")
    rng = np.random.default_rng(7)

    def save_features(name: str, **seconds: int) -> None:
        (folder / name / "features").mkdir(parents=True, exist_ok=True)
        for video, length in seconds.items():
            rows = rng.standard_normal((length, 512)) / np.sqrt(512)
            np.save(folder / name / "features" / f"{video}.npy", rows.astype(np.float16))

    save_features("youcook2", one=60, two_=25, val=50)
    clips = {"one": [[0, 5], [5, 50], [58, 70]], "two_": [[3, 4], [10, 20]], "val": [[0, 9], [20, 40]]}
    database = {
        video: {
            "subset": "validation" if video == "val" else "training",
            "annotations": [
                {"segment": segment, "id": i, "sentence": f"{WORDS[2 * i]} the onions"} for i, segment in enumerate(own)
            ],
        }
        for video, own in clips.items()
    }
    save_json(folder / "youcook2" / "youcookii_annotations_trainval.json", {"database": database})
    (folder / "youcook2" / "youcook_val.pkl").write_bytes(pickle.dumps([{"id": "val_0"}, {"id": "val_1"}]))

    splits = {"video0": "train", "video1": "train", "video2": "validate", "video3": "test", "video4": "test"}
    save_features("msrvtt", **{video: 8 + 10 * i for i, video in enumerate(splits)})
    captions = [
        {"video_id": video, "caption": f"{verb} {thing}", "sen_id": 0}
        for verb in ("add", "cut", "stir")
        for video, thing in zip(splits, ("a onion", "a potato", "salt", "the pan", "b c"))
    ]
    videos = [{"video_id": video, "split": split} for video, split in splits.items()]
    save_json(folder / "msrvtt" / "MSRVTT_data.json", {"videos": videos, "sentences": captions})
    (folder / "msrvtt" / "MSRVTT_JSFUSION_test.csv").write_text("key,vid_key,video_id,sentence\nr,msr4,video4,stir b\n")
    questions = "\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n" + "".join(
        f"{i}\tmc\tmsr{i}\tadd\tcut\tstir\tsalt\tpan\t0\n" for i in (3, 4)
    )
    (folder / "msrvtt" / "MSR_MC_test.csv").write_text(questions)

    save_features("coin", train_a=40, train_b=9, test_a=35)
    labels = {"3": "add salt", "7": "cut the onions", "12": "stir"}
    shown = {"train_a": ["7", "3"], "train_b": ["12"], "test_a": ["3", "12"]}
    coin = {
        video: {
            "subset": "testing" if video == "test_a" else "training",
            "annotation": [{"id": i, "segment": [4.0 * n, 4.0 * n + 3], "label": labels[i]} for n, i in enumerate(own)],
        }
        for video, own in shown.items()
    }
    save_json(folder / "coin" / "COIN.json", {"database": coin})

    release = folder / "crosstask" / "crosstask_release"
    (release / "annotations").mkdir(parents=True)
    (release / "tasks_primary.txt").write_text("10\nAdd\nhttps://x\n2\nadd the onions,stir\n\n")
    (release / "tasks_related.txt").write_text("20\nCut\nhttps://y\n1\ncut\n\n")
    numbers = range(32)  # 30 to train on and 2 to test on
    save_features("crosstask", **{f"ct{n:02}": 5 + n for n in numbers})
    (release / "videos.csv").write_text("".join(f"10,ct{n:02},https://z\n" for n in numbers) + "10,val,https://z\n")
    (release / "videos_val.csv").write_text("10,val,https://z\n")
    for n in numbers:
        (release / "annotations" / f"10_ct{n:02}.csv").write_text("1,0.0,2.0\n2,2.5,4.0\n")
    return folder
