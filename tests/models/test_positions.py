"""Clips that are longer, or have more features a second: positions, states of seconds, checkpoints of shorter clips."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoClip
from mmpt_plugin.evaluation.benchmark import EncodingPlan
from mmpt_plugin.evaluation.encoding import encode_batch
from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.positions import POSITIONS, resampled, stretched
from mmpt_plugin.models.videoclip import VideoClipModel, means_of_seconds

NAME = f"video_encoder.transformer.{POSITIONS}"


def build(bert: Path, **settings: object) -> VideoClipModel:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return VideoClipModel.from_backbone(
            VideoClipConfig(**{"bert": str(bert), "video_layers": 2, **settings})
        ).eval()


def test_resampled_by_hand() -> None:
    rows = torch.tensor([[0.0, 6.0], [3.0, 0.0]])
    expected = torch.tensor([[0.0, 6.0], [1.0, 4.0], [2.0, 2.0], [3.0, 0.0]])
    torch.testing.assert_close(resampled(rows, 4), expected)
    assert torch.equal(resampled(rows, 2), rows)


def test_stretched_by_hand() -> None:
    """[CLS] at 1, two features, [SEP] at 4 become [CLS] at 1, four features, [SEP] at 6."""
    trained = torch.tensor([-1.0, 50, 0, 3, 70, -2])[:, None]
    new = torch.arange(100.0, 109)[:, None]
    table = stretched(trained, new, first=1, old_length=2, new_length=4)
    assert table.flatten().tolist() == [100, 50, 0, 1, 2, 3, 70, 107, 108]


def test_a_backbone_of_few_positions_serves_long_clips(tiny_bert: Path) -> None:
    model, short = build(tiny_bert, max_video_seconds=128), build(tiny_bert)
    table = model.state_dict()[NAME]
    assert len(table) == 130 and len(short.state_dict()[NAME]) == 64
    torch.testing.assert_close(table, resampled(short.state_dict()[NAME], 130))
    text = f"text_encoder.transformer.{POSITIONS}"
    assert torch.equal(model.state_dict()[text], short.state_dict()[text])
    clip = torch.randn(1, 128, 512)
    first, last = (
        model.encode_video(clip[:, part], torch.ones(1, 64, dtype=torch.bool))
        for part in (slice(0, 64), slice(64, 128))
    )
    whole = model.encode_video(clip, torch.ones(1, 128, dtype=torch.bool))
    assert whole.isfinite().all() and not torch.allclose(whole, (first + last) / 2, atol=1e-4)
    with pytest.raises(ValueError, match=r"a clip of 129 seconds was given, model\.max_video_seconds is 128"):
        model.encode_video(torch.randn(1, 129, 512), torch.ones(1, 129, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"has 64 positions; .* need 130"):  # the text cannot have more
        build(tiny_bert, max_video_seconds=128, shared_encoder=True, video_layers=None)


def test_states_of_seconds_are_means_of_their_features(tiny_bert: Path) -> None:
    states = torch.arange(8.0)[:, None]
    means = means_of_seconds(states, np.array([5, 0, 3]), 2)
    assert means.flatten().tolist() == [0.5, 2.5, 4, 5.5, 7]  # the last second of each has one row
    model = build(tiny_bert, features_per_second=2, max_video_seconds=16)
    features = torch.randn(8, 512)
    lengths = np.array([5, 0, 3])
    hidden = model.video_encoder(features, lengths)
    seconds = model.encode_seconds(features, lengths)
    assert seconds.shape == (5, 32)
    torch.testing.assert_close(seconds[1], hidden[0, 3:5].mean(0))
    torch.testing.assert_close(seconds[4], hidden[2, 3])


def test_sixteen_seconds_of_two_are_thirty_two_of_one(tiny_bert: Path) -> None:
    """The tower sees rows; a second is what they are called."""
    model, other = build(tiny_bert, features_per_second=2, max_video_seconds=16), build(tiny_bert)
    features = [np.random.default_rng(0).standard_normal((rows, 512)) for rows in (32, 9)]
    clips = (VideoClip(own, None) for own in (model, other))  # type: ignore[arg-type]
    torch.testing.assert_close(*(clip.encode_video(features) for clip in clips), rtol=0, atol=1e-6)


def test_lengths_that_no_table_can_hold_are_refused(tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.features_per_second 64: their product, .*, must be at most 65536"):
        build(tiny_bert, max_video_seconds=2000, features_per_second=64)
    with pytest.raises(ValueError, match=r"model\.features_per_second is 0: it must be at least 1 and at most 64"):
        build(tiny_bert, features_per_second=0)


def test_another_run_begins_with_longer_clips(
    pretrain: Callable[..., None], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """It starts from interpolated positions, stops and goes on without interpolating again, and an average goes along."""
    longer = (
        "model.max_video_seconds=40",
        "task.max_clip_seconds=40",
        "task.retrieval.enabled=false",
        "ema.store_ema=true",
        "ema.ema_decay=0.5",
    )
    begin = f"checkpoint.finetune_from_model={tiny_checkpoint}"
    pretrain(tmp_path / "none", *longer, begin, "optimization.max_update=1", "optimization.lr=[0.0]")
    before, after = (read_checkpoint(p) for p in (tiny_checkpoint, tmp_path / "none" / "checkpoint_last.pt"))
    old, new = before["model"][NAME], after["model"][NAME]
    torch.testing.assert_close(new[1:41], resampled(old[1:33], 40))
    assert torch.equal(new[0], old[0]) and torch.equal(new[41], old[33])
    torch.testing.assert_close(after["extra_state"]["ema"][NAME], new)
    text = f"text_encoder.transformer.{POSITIONS}"
    assert torch.equal(after["model"][text], before["model"][text])
    pretrain(tmp_path / "none", *longer, begin, "optimization.max_update=2", "optimization.lr=[0.0]")
    assert torch.equal(read_checkpoint(tmp_path / "none" / "checkpoint_last.pt")["model"][NAME], new)
    clip = VideoClip.from_pretrained(tmp_path / "none" / "checkpoint_last.pt")
    assert clip.model.video_encoder.max_seconds == 40 and len(clip.encode_video([np.zeros((90, 512))])) == 1
    with pytest.raises(ValueError, match=r"model\.max_video_seconds is 32, and the run of .* had 40: restore it"):
        pretrain(tmp_path / "none", "task.retrieval.enabled=false", "optimization.max_update=3")


def test_padded_windows_have_the_states_of_all_their_seconds(tiny_bert: Path) -> None:
    """As DiDeMo's protocol asks; padded seconds are attended to by none, whatever the features of a second."""
    model = build(tiny_bert, features_per_second=2)
    features, lengths = torch.randn(5, 512), np.array([3, 2])
    batch = {"kind": "video", "indices": [0, 1], "net_input": {"video_features": features, "video_lengths": lengths}}
    plan = EncodingPlan([], [], per_frame=True, pad_to=4)
    first, second = encode_batch(model, batch, plan).states
    assert first.shape == second.shape == (4, 32)
    padded = torch.zeros(8, 512)
    padded[:3] = features[:3]
    expected = model.video_encoder(padded, np.array([8]), attended_lengths=np.array([3]))[0, 1:9]
    torch.testing.assert_close(torch.from_numpy(first), expected.unflatten(0, (4, 2)).mean(1), rtol=0, atol=1e-6)
    plain = encode_batch(model, batch, EncodingPlan([], [], per_frame=True)).states
    assert [len(states) for states in plain] == [2, 1]
