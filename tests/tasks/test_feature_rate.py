"""Two features a second, from shards to a trained checkpoint, to labels of seconds and to the search."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoClip
from mmpt_plugin.data.feature_folder import FeatureFolder
from mmpt_plugin.data.shard_writer import ShardWriter
from mmpt_plugin.data.shards import read_shard
from mmpt_plugin.data.windows import Window
from mmpt_plugin.finetuning.datasets import LabelledVideoDataset
from mmpt_plugin.finetuning.training_sets import LabelledVideo
from mmpt_plugin.models.checkpoint import model_settings, read_checkpoint
from mmpt_plugin.preparation.shard_run import shard_statistics
from mmpt_plugin.search.indexing import encode

FEATURES = {"network": "s3d", "weights_sha256": "00", "feature_size": 512, "features_per_second": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 9.5 seconds, of which the shards say that a second has two rows."""
    folder = tmp_path_factory.mktemp("rate") / "howto100m"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        ids = [f"{split}{video}" for video in range(count)]
        with ShardWriter(folder / "shards", f"{split}_0", source={"features": FEATURES}) as writer:
            for video_id in ids:
                writer.add(video_id, rng.standard_normal((19, 512)), [[1.0, 4.0], [5.0, 9.0]], [[6, 7], [8, 9, 10]])
        folder.mkdir(exist_ok=True)
        (folder / f"{split}.txt").write_text("\n".join(ids) + "\n")
    return folder.parent


@pytest.fixture(scope="module")
def checkpoint(pretrain: Callable[..., None], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = ("model.features_per_second=2", "task.retrieval.start_epoch=1", "optimization.max_update=1")
    pretrain(folder, f"task.data={data}", *options, "task.retrieval.num_neighbors=4")
    return folder / "checkpoint_last.pt"


def test_shards_count_seconds(data: Path) -> None:
    statistics = shard_statistics(read_shard(data / "howto100m" / "shards" / "train_0"))
    assert statistics["seconds"] == 8 * 10 and statistics["beyond"] == 0


def test_training_takes_them_and_the_checkpoint_keeps_the_rate(checkpoint: Path) -> None:
    content = read_checkpoint(checkpoint)
    assert model_settings(content)["features_per_second"] == 2
    assert content["task_state"]["features"] == FEATURES
    clip = VideoClip.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"a clip of 32\.5 seconds was given"):
        clip.model.embed_videos(torch.zeros(65, 512), np.array([65]))
    assert clip.encode_video([np.eye(512)[:200]]).shape == (1, 32)


def test_another_rate_is_refused(pretrain: Callable[..., None], data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"howto100m have 2 rows a second, and the model takes 1 \(model\.features_per"
    ):
        pretrain(tmp_path, f"task.data={data}", "optimization.max_update=1")


def test_labels_of_seconds_meet_logits_of_seconds(checkpoint: Path, tmp_path: Path) -> None:
    """A video of 9.5 seconds has ten labels, of which two windows take the first eight and the last six."""
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((19, 512)).astype(np.float16))
    clip = VideoClip.from_pretrained(checkpoint)
    labels = np.eye(10, dtype=np.uint8)[:, :2]
    video = LabelledVideo((Window("v", 0, 8), Window("v", 4, 10)), labels, ("add", "stir"))
    folder = FeatureFolder(tmp_path, features_per_second=2)
    batch = LabelledVideoDataset([video], folder, clip.tokenizer, max_pieces=9)[0]
    assert batch["net_input"]["video_lengths"].tolist() == [16, 11]
    logits = clip.model(**batch["net_input"])["frame_logits"]
    assert logits.shape == batch["target"].shape == (14, 2)


def test_the_search_has_a_state_for_each_second(checkpoint: Path) -> None:
    clip = VideoClip.from_pretrained(checkpoint)
    features = torch.nn.functional.normalize(torch.randn(19, 512), dim=1).numpy().astype(np.float16)
    rows = encode(clip, features, window=16, stride=8)
    assert rows.spans.tolist() == [[0, 10]] and rows.states.shape == (10, 32)
    expected = clip.model.encode_seconds(torch.from_numpy(features).float(), np.array([19]))
    torch.testing.assert_close(torch.from_numpy(rows.states).float(), expected, rtol=0, atol=2e-3)
    torch.testing.assert_close(torch.from_numpy(rows.vectors).float(), clip.encode_video([features]), rtol=0, atol=2e-3)
