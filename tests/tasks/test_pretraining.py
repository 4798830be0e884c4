"""Pre-training through fairseq-hydra-train on a few videos: it runs with every option, and refuses bad input early."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.logging import progress_bar

from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.models.checkpoint import read_checkpoint, sha256
from mmpt_plugin.models.loading import load_videoclip
from mmpt_plugin.retrieval import cluster_groups
from mmpt_plugin.retrieval.cluster_groups import ClusterGroups
from mmpt_plugin.tasks import pretraining

ONE_UPDATE = "optimization.max_update=1"


@pytest.fixture
def refreshed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The epochs in which videos were embedded, and how many."""
    seen: list[tuple[int, int]] = []
    original = cluster_groups.embed_videos

    def recording(model, dataset, epoch, *, videos=None, **settings):
        seen.append((epoch, len(dataset.corpus) if videos is None else len(videos)))
        return original(model, dataset, epoch, videos=videos, **settings)

    monkeypatch.setattr(cluster_groups, "embed_videos", recording)
    return seen


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoint_last.pt")["model"]


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# --- it trains ---


def test_trains_logs_and_saves(
    pretrain: Callable[..., None], losses: list[float], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pretrain(tmp_path, "optimization.max_epoch=5", "common.log_interval=1", "common.log_format=json")
    assert len(losses) == 5 * 6 and all(math.isfinite(loss) for loss in losses)
    assert np.mean(losses[-6:]) < np.mean(losses[:6])  # 8 pairs a batch, 5 epochs
    content = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert content["extra_state"]["train_iterator"]["epoch"] == 6
    assert math.isfinite(content["extra_state"]["val_loss"])
    assert (tmp_path / "checkpoint_best.pt").is_file()
    assert {path.name for path in (tmp_path / "bert").iterdir()} >= {"config.json", "tokenizer_config.json"}
    inner = next(message for message in caplog.messages if "train_text_to_video" in message)
    for value in ("train_loss", "train_video_to_text", "train_pairs_per_s", "train_lr", "train_gnorm"):
        assert value in inner
    assert any("valid_loss" in message and "valid_text_to_video" in message for message in caplog.messages)
    assert any("clusters of epoch 5: 6 of 4 videos" in message for message in caplog.messages)


def test_tensorboard_where_it_is_installed(
    pretrain: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr(progress_bar, "_tensorboard_writers", {})  # which fairseq keeps from one run to the next
    pretrain(tmp_path, ONE_UPDATE)
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))


def test_validation_draws_the_same_clips_each_time(
    pretrain: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[tuple] = []
    original = pretraining.VideoClipPretrainingTask.valid_step

    def recording(task, sample, model, criterion):
        batches.append((sample["video_id"], sample["net_input"]["video_features"].sum().item()))
        return original(task, sample, model, criterion)

    monkeypatch.setattr(pretraining.VideoClipPretrainingTask, "valid_step", recording)
    pretrain(tmp_path)
    assert len(batches) == 2 * 2 and batches[:2] == batches[2:]  # 5 videos: groups of 4 and 1, in 2 epochs
    assert [len(set(video_ids)) for video_ids, _ in batches[:2]] == [4, 1]


@pytest.mark.parametrize("retrieval", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_bfloat16(pretrain: Callable[..., None], losses: list[float], tmp_path: Path, retrieval: bool) -> None:
    pretrain(tmp_path, "common.bf16=true", ONE_UPDATE, f"task.retrieval.enabled={retrieval}")
    assert len(losses) == 1 and math.isfinite(losses[0])
    weights = model_of(tmp_path)
    assert all(value.isfinite().all() for value in weights.values())
    model, _ = load_videoclip(tmp_path / "checkpoint_last.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_groups_and_updates_of_an_epoch(
    pretrain: Callable[..., None], losses: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 groups of 4 videos: batches of 2 groups leave one over; an update takes 2 batches."""
    batches: list[int] = []
    original = pretraining.VideoClipPretrainingTask.train_step

    def recording(task, sample, *arguments, **settings):
        batches.append(sample["nsentences"])
        return original(task, sample, *arguments, **settings)

    monkeypatch.setattr(pretraining.VideoClipPretrainingTask, "train_step", recording)
    pretrain(
        tmp_path,
        "optimization.update_freq=[2]",
        "dataset.batch_size=2",
        "optimization.max_epoch=1",
        "task.retrieval.enabled=false",
    )
    assert batches == [2 * 4 * 2] * 3
    assert read_checkpoint(tmp_path / "checkpoint_last.pt")["optimizer_history"][-1]["num_updates"] == 2


def test_aligned_clips(pretrain: Callable[..., None], losses: list[float], tmp_path: Path) -> None:
    pretrain(tmp_path, "task.clip_sampling=aligned", ONE_UPDATE)
    assert len(losses) == 1


# --- retrieval ---


def test_videos_are_embedded_when_an_epoch_starts_and_never_after_the_last(
    pretrain: Callable[..., None], refreshed: list[tuple[int, int]], tmp_path: Path
) -> None:
    pretrain(tmp_path, "optimization.max_epoch=3")
    assert refreshed == [(1, 24), (2, 24), (3, 24)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(["start_epoch=2"], [(2, 24), (3, 24)], marks=pytest.mark.slow),
        (["every=2"], [(1, 24), (3, 24)]),
        (["clips=first_32s", "pick=nearest"], [(1, 24), (2, 24), (3, 24)]),
        pytest.param(["index=ivf"], [(1, 24), (2, 24), (3, 24)], marks=pytest.mark.slow),
        pytest.param(["enabled=false"], [], marks=pytest.mark.slow),
    ],
)
def test_options(
    pretrain: Callable[..., None],
    losses: list[float],
    refreshed: list[tuple[int, int]],
    tmp_path: Path,
    options: list[str],
    expected: list[tuple[int, int]],
) -> None:
    pretrain(tmp_path, "optimization.max_epoch=3", *(f"task.retrieval.{option}" for option in options))
    assert refreshed == expected
    assert len(losses) == 18 and all(math.isfinite(loss) for loss in losses)


def test_embeddings_of_training_are_reused(
    pretrain: Callable[..., None],
    refreshed: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[set[int]] = []
    original = ClusterGroups.groups

    def recording(groups, epoch):
        result = original(groups, epoch)
        used.append(set(result.flat))
        return result

    monkeypatch.setattr(ClusterGroups, "groups", recording)
    pretrain(tmp_path, "task.retrieval.embeddings=reuse")
    assert len(used[0]) < 24 and refreshed == [(1, 24), (2, 24 - len(used[0]))]


@pytest.mark.parametrize("precision", [[], pytest.param(["common.bf16=true"], marks=pytest.mark.slow)])
def test_an_ignored_hook_leaves_no_trace_in_training(
    pretrain: Callable[..., None],
    losses: list[float],
    refreshed: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: list[str],
) -> None:
    pretrain(tmp_path / "without", "task.retrieval.enabled=false", "ema.store_ema=true", *precision)
    without = list(losses)
    losses.clear()
    original = ClusterGroups.groups

    def ignored(groups: ClusterGroups, epoch: int) -> np.ndarray:
        original(groups, epoch)
        return groups.random.groups(epoch)

    monkeypatch.setattr(ClusterGroups, "groups", ignored)
    pretrain(tmp_path / "ignored", "ema.store_ema=true", *precision)
    assert refreshed == [(1, 24), (2, 24)]
    assert losses == without
    assert_same_weights(model_of(tmp_path / "ignored"), model_of(tmp_path / "without"))


# --- bad input: an error before training starts ---


@pytest.fixture
def data(tiny_data: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data, to damage."""
    return Path(shutil.copytree(tiny_data, tmp_path / "data"))


@pytest.fixture
def refused(
    pretrain: Callable[..., None], losses: list[float], tmp_path: Path
) -> Callable[..., pytest.ExceptionInfo[Exception]]:
    """Asserts that a run fails with such a message, having trained and saved nothing."""

    def run(message: str, *overrides: str) -> pytest.ExceptionInfo[Exception]:
        with pytest.raises(Exception, match=message) as caught:
            pretrain(tmp_path / "run", *overrides)
        assert losses == []
        assert not list((tmp_path / "run").glob("*.pt"))
        return caught

    return run


def test_videos_that_no_shard_has(data: Path, refused, pretrain, losses: list[float], tmp_path: Path) -> None:
    with (data / "howto100m" / "train.txt").open("a") as file:
        file.write("nowhere1\nnowhere2\n")
    refused(
        r"2 of 26 listed videos are in no shard: nowhere1, nowhere2\. Make their shards, or set task\.on_missing=skip",
        f"task.data={data}",
    )
    pretrain(tmp_path / "run", f"task.data={data}", "task.on_missing=skip", ONE_UPDATE)
    assert len(losses) == 1


def test_a_video_without_captions(data: Path, refused) -> None:
    with ShardWriter(data / "howto100m" / "shards", "silent", source={"network": "random"}) as writer:
        writer.add("silent", np.ones((9, 512)), [], [])
    with (data / "howto100m" / "train.txt").open("a") as file:
        file.write("silent\n")
    refused(
        r"1 of 25 listed videos have no seconds of features or no captions: silent\. .*task\.on_missing=skip",
        f"task.data={data}",
    )


@pytest.mark.parametrize(("name", "other"), [("caption_starts", "feature_starts"), ("feature_starts", "index")])
def test_shards_of_different_lengths_for_video_and_text(data: Path, refused, name: str, other: str) -> None:
    path = data / "howto100m" / "shards" / "train_00000" / f"{name}.npy"
    starts = np.load(path)
    np.save(path, np.delete(starts, 1))  # a video less
    refused(rf"{name}\.npy counts 23 items, but .*{other}\.(npy|json) counts 24", f"task.data={data}")


def test_features_of_another_width(refused) -> None:
    refused(
        r"features\.npy: features are 512 wide, model\.feature_size is 1024\. Set model\.feature_size=512",
        "model.feature_size=1024",
    )


@pytest.mark.parametrize(("name", "what"), [("features", "features"), ("caption_times", "caption times")])
def test_values_that_are_not_finite(data: Path, refused, name: str, what: str) -> None:
    path = data / "howto100m" / "shards" / "train_00000" / f"{name}.npy"
    values = np.load(path, mmap_mode="r+")
    values[0, 1] = np.nan
    values.flush()
    refused(r"altered or damaged: sha256", f"task.data={data}")
    index_path = path.with_name("index.json")
    index = json.loads(index_path.read_text())
    index["arrays"][name]["sha256"] = sha256(path)  # as if it had been written so
    index_path.write_text(json.dumps(index))
    refused(rf"video train00: {what} are NaN, infinite or out of bounds", f"task.data={data}")


def test_a_truncated_shard(data: Path, refused) -> None:
    path = data / "howto100m" / "shards" / "val_00000" / "features.npy"
    path.write_bytes(path.read_bytes()[:-10])
    refused(r"val_00000/features\.npy: truncated or altered: [\d,]+ bytes, but its header", f"task.data={data}")


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_altered_shard(data: Path, refused, split: str) -> None:
    path = data / "howto100m" / "shards" / f"{split}_00000" / "tokens.npy"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    refused(
        rf"{split}_00000/tokens\.npy: altered or damaged: sha256 .* Copy or make the shard again", f"task.data={data}"
    )


@pytest.mark.parametrize(("split", "content"), [("train", ""), ("val", "\n \n")])
def test_an_empty_list(data: Path, refused, split: str, content: str) -> None:
    (data / "howto100m" / f"{split}.txt").write_text(content)
    refused(rf"{split}\.txt: the list is empty\. It must name the split's videos", f"task.data={data}")


def test_no_list_and_no_shards(data: Path, refused, tmp_path: Path) -> None:
    refused(r"val\.txt: missing\. It must list", f"task.data={tmp_path / 'nothing'}")
    shutil.rmtree(data / "howto100m" / "shards")
    refused(r"shards: no shards\. Expected either folders with an index\.json", f"task.data={data}")


def test_a_bert_without_weights(tiny_bert: Path, refused, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "bert", ignore=shutil.ignore_patterns("*.safetensors")))
    refused(r"model\.bert: no weights at '.*bert' \(model\.safetensors or pytorch_model\.bin\)", f"model.bert={folder}")


def test_a_bert_whose_width_its_heads_do_not_divide(tiny_bert: Path, refused, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"num_attention_heads": 4', '"num_attention_heads": 5'))
    refused(r"hidden_size 32, which is not divisible by its num_attention_heads 5", f"model.bert={folder}")


def test_no_bert(refused, tmp_path: Path) -> None:
    refused(r"model\.bert: no BERT configuration at '.*nothing'", f"model.bert={tmp_path / 'nothing'}")


@pytest.mark.parametrize(
    "key", ["task.videos_per_bach", "task.retrieval.num_neighbours", "model.layers", "criterion.temp"]
)
def test_a_misspelt_key(refused, tmp_path: Path, key: str) -> None:
    name = key.rpartition(".")[2]
    nowhere = f"task.data={tmp_path / 'nothing'}"  # nothing is read before keys are checked
    refused(rf"Could not override '{key}'", f"{key}=1", nowhere)
    refused(rf"Key '{name}' not in '\w*Config'|Key '{name}' is not in struct", f"+{key}=1", nowhere)  # as if in a YAML


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.videos_per_batch=25", r"task\.videos_per_batch is 25 and the training list has 24 videos"),
        pytest.param(
            "dataset.batch_size=7", r"has 6 groups .* dataset\.batch_size=7 groups need 7", marks=pytest.mark.slow
        ),
        ("task.min_text_tokens=65", r"text_tokens must be \(smallest, largest\)"),
        ("criterion.temperature=0", r"criterion\.temperature is 0.*: it must be positive"),
        pytest.param("model.video_layers=4", r"model\.video_layers is 4; '.*' has 3 layers", marks=pytest.mark.slow),
        pytest.param(
            "model.max_text_pieces=63",
            r"64 positions; model\.max_video_seconds and model\.max_text_pieces need 65",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_settings_that_make_no_sense(refused, override: str, message: str) -> None:
    refused(message, "task.retrieval.num_neighbors=64", override)


def test_a_place_to_save_that_cannot_be_written(
    pretrain: Callable[..., None], losses: list[float], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        pretrain(tmp_path / "file" / "run")
    assert losses == []
