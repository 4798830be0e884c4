"""Settings that make no sense are refused where the task is set up, before a model is built or data are read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq.tasks import setup_task
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.files import UnusableFile
from mmpt_plugin.runs import errors
from mmpt_plugin.runs.errors import alone
from mmpt_plugin.tasks.base import TrainingTask, on_host
from mmpt_plugin.tasks.pretraining import VideoClipPretrainingTask

from ..together import composed


@pytest.fixture
def begin(tiny_settings: tuple[str, ...], tmp_path: Path) -> Callable[..., VideoClipPretrainingTask]:
    """A pre-training run as far as fairseq sets up its task."""

    def run(*overrides: object) -> VideoClipPretrainingTask:
        cfg = composed("pretrain", *tiny_settings, f"checkpoint.save_dir={tmp_path / 'run'}", *overrides)
        plain = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))  # as fairseq does
        return setup_task(plain.task)

    return run


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.videos_per_batch=0", r"task\.videos_per_batch is 0: it must be at least 1"),
        ("task.clips_per_video=0", r"task\.clips_per_video is 0: it must be at least 1 and at most 10000"),
        ("task.clips_per_video=1000000000000", r"task\.clips_per_video is 1000000000000: it must be"),
        ("task.min_text_tokens=-1", r"task\.min_text_tokens is -1"),
        ("task.max_text_tokens=0", r"task\.max_text_tokens is 0"),
        ("task.min_clip_seconds=0", r"task\.min_clip_seconds is 0"),
        ("task.max_clip_seconds=-3", r"task\.max_clip_seconds is -3"),
        ("task.bag_captions=0", r"task\.bag_captions is 0"),
        (
            "task.retrieval.num_neighbors=3",
            r"task\.retrieval\.num_neighbors is 3: a cluster keeps task\.videos_per_batch=4",
        ),
        ("task.retrieval.every=0", r"task\.retrieval\.every is 0: it must be at least 1"),
        ("task.retrieval.start_epoch=0", r"task\.retrieval\.start_epoch is 0"),
        (
            "task.retrieval.start_recall=0",
            r"task\.retrieval\.start_recall is 0\.0: it must be more than 0 and at most 1",
        ),
        (
            ["task.retrieval.start_recall=0.2", "dataset.disable_validation=true"],
            r"task\.retrieval\.start_recall is 0\.2, a recall of validation, and dataset\.disable_validation is true",
        ),
        (
            ["lr_scheduler._name=cosine", "~lr_scheduler.total_num_update"],
            r"lr_scheduler\._name is cosine, .*: set optimization\.max_update, or lr_scheduler\.lr_period_updates",
        ),
        (["ema.store_ema=true", "ema.ema_decay=1"], r"ema\.ema_decay is 1\.0: it must be at least 0 and less than 1"),
        ("task.retrieval.clips_per_video=0", r"task\.retrieval\.clips_per_video is 0"),
        ("task.retrieval.min_recall=1.5", r"task\.retrieval\.min_recall is 1\.5: it must be more than 0 and at most 1"),
        ("task.retrieval.num_centroids=0", r"task\.retrieval\.num_centroids is 0"),
        ("task.retrieval.max_nprobe=0", r"task\.retrieval\.max_nprobe is 0"),
        ("dataset.batch_size=0", r"dataset\.batch_size is 0: it must be at least 1"),
        ("dataset.num_workers=-1", r"dataset\.num_workers is -1: it must be at least 0"),
        ("common.seed=-1", r"common\.seed is -1"),
        ("optimization.max_update=-1", r"optimization\.max_update is -1"),
        ("optimization.update_freq=[1,0]", r"optimization\.update_freq is 0"),
        ("checkpoint.restore_file=/nowhere/a.pt", r"checkpoint\.restore_file: no checkpoint at /nowhere/a\.pt"),
        ("checkpoint.finetune_from_model=/nowhere/a.pt", r"checkpoint\.finetune_from_model: no checkpoint at"),
    ],
)
def test_out_of_bounds(begin: Callable, tmp_path: Path, override: str | list[str], message: str) -> None:
    overrides = [override] if isinstance(override, str) else override
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        begin(f"task.data={tmp_path / 'nothing'}", *overrides)  # no data are opened


@pytest.mark.parametrize(
    "override",
    ["task.clip_sampling=both", "task.retrieval.pick=best", "task.verify=never", "task.on_missing=ignore"],
)
def test_choices(begin: Callable, override: str) -> None:
    key, value = override.removeprefix("task.").split("=")
    with pytest.raises(ValidationError, match=rf"Invalid value '{value}', expected one of (?s:.)*{key}"):
        begin(override)


@pytest.mark.parametrize(
    ("length", "batches", "refused"),
    [
        ({"max_update": 10}, 100, "the run is 10 updates long"),
        ({"max_update": 11}, 100, None),
        ({"max_epoch": 2}, 5, "max_epoch=2 with 5 batches an epoch"),
        ({"max_epoch": 3}, 5, None),
        ({"max_epoch": 3, "update_freq": [1, 2]}, 5, None),  # 5 + 3 + 3 updates
        ({"max_epoch": 3, "update_freq": [2]}, 5, "9 updates"),
        ({"max_epoch": 3, "max_update": 9}, 5, "9 updates"),
        ({}, 1, None),  # without an end
        ({"max_update": 1, "warmup_updates": None}, 1, None),
    ],
)
def test_a_warm_up_that_is_longer_than_the_run(length: dict, batches: int, refused: str | None) -> None:
    cfg = SimpleNamespace(**{"max_update": 0, "max_epoch": 0, "update_freq": [1], "warmup_updates": 11} | length)
    check = TrainingTask.check_warm_up
    if refused is None:
        check(None, cfg, batches)
        return
    with pytest.raises(ValueError, match=rf"{refused}.*lr_scheduler\.warmup_updates=11: set that to a tenth"):
        check(None, cfg, batches)


def test_the_warm_up_is_looked_at_where_the_length_is_known(begin: Callable) -> None:
    task = begin("lr_scheduler.warmup_updates=13", "task.retrieval.enabled=false")  # 2 epochs of 6 updates
    task.load_dataset("train")
    with pytest.raises(ValueError, match=r"the run is 12 updates long .*warmup_updates=13"):
        task.get_batch_iterator(task.datasets["train"], 1)


def test_a_colon_in_the_data_folder_is_part_of_its_name(begin: Callable, tiny_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    shutil.copytree(tiny_data, folder)
    task = begin(f"task.data='{folder}'", "task.retrieval.enabled=false")
    assert task.cfg.data == str(folder) and task.has_sharded_data("train") is False
    task.load_dataset("train")
    assert len(task.datasets["train"].corpus) == 24


def test_training_and_validation_videos_of_different_features_are_refused(
    begin: Callable, tiny_data: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    shutil.rmtree(data / "howto100m" / "shards")
    import numpy as np

    for split, network in (("train", "s3d"), ("val", "other")):
        videos = (data / "howto100m" / f"{split}.txt").read_text().split()
        source = {"features": {"network": network, "per_second": 1}}
        with ShardWriter(data / "howto100m" / "shards", split, source=source) as writer:
            for video in videos:
                writer.add(video, np.ones((9, 512)), np.array([[0.0, 4.0]]), [np.array([6])])
    task = begin(f"task.data={data}", "task.retrieval.enabled=false")
    task.load_dataset("valid")
    with pytest.raises(ValueError, match=r"features of val\.txt .*network: 'other' here, 's3d' expected"):
        task.load_dataset("train")


def test_the_run_of_another_program_cannot_be_gone_on_with(begin: Callable, tmp_path: Path) -> None:
    foreign = tmp_path / "mmpt.pt"
    torch.save({"model": {}, "extra_state": {"train_iterator": {"epoch": 3}}}, foreign)
    with pytest.raises(ValueError, match=rf"not saved by this package's pre-training .*finetune_from_model={foreign}"):
        begin(f"checkpoint.restore_file={foreign}")
    begin(f"checkpoint.finetune_from_model={foreign}")
    begin(f"checkpoint.restore_file={foreign}", "checkpoint.reset_dataloader=true")


# --- what is logged ---


def test_values_are_fetched_from_the_device_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [{"loss": torch.tensor(2.5), "n": 3}, {"loss": torch.tensor(1), "hits": torch.tensor([4.0])}]
    stacked: list[int] = []
    original = torch.stack
    monkeypatch.setattr(torch, "stack", lambda tensors: stacked.append(len(tensors)) or original(tensors))
    assert on_host(outputs) == [{"loss": 2.5, "n": 3}, {"loss": 1.0, "hits": 4.0}]
    assert stacked == [3]
    assert on_host([{"n": 3}, {}]) == [{"n": 3}, {}] and stacked == [3]


# --- errors on the command line ---


def test_a_clear_error_stands_alone_under_hydra_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def ours() -> None:
        from mmpt_plugin.bounds import check_bounds
        from mmpt_plugin.retrieval.settings import RetrievalConfig

        check_bounds(RetrievalConfig(every=0), RetrievalConfig, "task.retrieval")

    def anothers() -> None:
        int("none")

    with pytest.raises(ValueError, match="every is 0"):
        alone(ours)()
    monkeypatch.setattr(errors.HydraConfig, "initialized", staticmethod(lambda: True))
    with pytest.raises(SystemExit, match=r"^ValueError: task\.retrieval\.every is 0.*\n\(HYDRA_FULL_ERROR=1 shows"):
        alone(ours)()
    with pytest.raises(ValueError, match="invalid literal"):
        alone(anothers)()
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ValueError, match="every is 0"):
        alone(ours)()
    assert issubclass(UnusableFile, errors.CLEAR)


def test_what_fairseq_calls_is_wrapped(begin: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(errors.HydraConfig, "initialized", staticmethod(lambda: True))
    with pytest.raises(SystemExit, match="videos_per_batch is 0"):
        begin("task.videos_per_batch=0")
    task = begin(f"task.data={tmp_path / 'nothing'}")
    with pytest.raises(SystemExit, match=r"train\.txt: missing"):
        task.load_dataset("train")
