"""VideoClip in a few lines, against the original's embeddings and against itself."""

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoClip


@pytest.fixture
def clip(tiny_checkpoint) -> VideoClip:
    return VideoClip.from_pretrained(tiny_checkpoint)


def test_embeddings_of_the_originals_checkpoint(golden):
    folder = golden / "model"
    clip = VideoClip.from_pretrained(folder / "checkpoint_best.pt", bert=str(folder / "bert-tiny"))
    inputs, outputs = np.load(folder / "inputs.npz"), np.load(folder / "outputs.npz")
    features = [rows[mask] for rows, mask in zip(inputs["vfeats"], inputs["vmasks"])]
    np.testing.assert_allclose(clip.encode_video(features=features), outputs["pooled_video"], atol=1e-5)


def test_texts_of_the_originals_checkpoint(golden):
    import json

    folder = golden / "model"
    clip = VideoClip.from_pretrained(folder / "checkpoint_best.pt", bert=str(folder / "bert-tiny"))
    texts = json.loads((golden / "eval_youcook" / "details.json").read_text())["decoded_texts"]
    expected = np.load(golden / "eval_youcook" / "golden.npz")["pooled_text"]
    np.testing.assert_allclose(clip.encode_text(texts), expected, atol=1e-5)


def test_no_batch_size_changes_a_result(clip):
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((seconds, 512), dtype=np.float32) for seconds in (3, 70, 0, 32, 33, 1)]
    texts = ["add the onions", "stir", "", "cut the potatoes to a pan"]
    torch.testing.assert_close(
        clip.encode_video(features, batch_size=1), clip.encode_video(features), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(clip.encode_text(texts, batch_size=1), clip.encode_text(texts), rtol=1e-5, atol=1e-5)


def test_a_long_video_is_the_mean_of_its_windows(clip):
    video = np.random.default_rng(0).standard_normal((50, 512), dtype=np.float32)
    windows = clip.encode_video([video[:32], video[16:48], video[32:]])  # starts 0, 16, 32: the third reaches the end
    torch.testing.assert_close(clip.encode_video([video])[0], windows.mean(0), rtol=1e-5, atol=1e-5)


def test_nothing_gives_nothing(clip):
    assert clip.encode_text([]).shape == clip.encode_video([]).shape == (0, 32)


@pytest.mark.parametrize(
    "features, message",
    [
        (np.zeros((3, 100)), r"features\[0\] has shape \(3, 100\); \(seconds, 512\)"),
        (np.zeros(512), r"features\[0\] has shape \(512,\)"),
        (np.full((3, 512), np.nan), r"features\[0\] holds NaN"),
    ],
)
def test_wrong_features(clip, features, message):
    with pytest.raises(ValueError, match=message):
        clip.encode_video([features])


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        VideoClip.from_pretrained(tmp_path / "none.pt")
