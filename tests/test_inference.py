"""VideoClip in a few lines, against the original's embeddings and against itself."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoClip

from .features.video_files import moving_square, write_video


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


@pytest.fixture
def colours(monkeypatch) -> dict:
    """Registers the feature network `colours`, (B, 512), and gives the settings of its features."""
    from mmpt_plugin.features import networks
    from mmpt_plugin.features.manifest import FeatureSettings

    def embed(frames: torch.Tensor) -> torch.Tensor:
        return frames.float().mean(dim=(1, 2, 3)).repeat(1, 171)[:, :512] + 1

    network = networks.FeatureNetwork("colours", "00", 512, embed)
    monkeypatch.setitem(networks.NETWORKS, "colours", lambda argument, config: network)
    return dataclasses.asdict(FeatureSettings("colours", "00", 512, fps=4, frame_size=32))


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [write_video(folder / f"{seconds}.mp4", moving_square(8 * seconds, 64, 48), fps=8) for seconds in (2, 40)]


def test_video_files(tiny_checkpoint, tmp_path, colours, films):
    content = torch.load(tiny_checkpoint, weights_only=False)
    content["task_state"]["features"] = colours
    torch.save(content, tmp_path / "checkpoint.pt")
    clip = VideoClip.from_pretrained(tmp_path / "checkpoint.pt", bert=str(tiny_checkpoint.parent / "bert"))
    features = clip.extract_features(films)
    assert [rows.shape for rows in features] == [(2, 512), (40, 512)]
    embeddings = clip.encode_video(videos=films)
    torch.testing.assert_close(embeddings, clip.encode_video(features))
    torch.testing.assert_close(clip.encode_video(videos=str(films[1])), embeddings[1:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clip.encode_video(videos=films, network="colours"), embeddings)


def test_video_files_need_a_network_that_fits(clip, colours, films, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="network='s3d:FILE'"):
        clip.encode_video(videos=films)
    with pytest.raises(ValueError, match="unknown"):
        clip.encode_video(videos=films, network="resnet")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        clip.encode_video(videos=films, network="s3d:none.pth")
    clip.feature_settings = {**colours, "network": "s3d"}
    with pytest.raises(ValueError, match="s3d needs its weights"):
        clip.encode_video(videos=films)
    with pytest.raises(ValueError, match=r"network: 'colours' here, 's3d' expected"):
        clip.encode_video(videos=films, network="colours")
    with pytest.raises(ValueError, match="one of the two"):
        clip.encode_video()
    clip.feature_settings = colours
    with pytest.raises(FileNotFoundError, match=r"none\.mp4"):
        clip.encode_video(videos=["none.mp4"])
    assert clip.encode_video(videos=[]).shape == (0, 32)


def test_video_files_need_features_of_the_models_size(clip, films, monkeypatch):
    from mmpt_plugin.features import networks

    network = networks.FeatureNetwork("small", "00", 3, lambda frames: frames.float().mean(dim=(1, 2, 3)))
    monkeypatch.setitem(networks.NETWORKS, "small", lambda argument, config: network)
    with pytest.raises(ValueError, match="small makes features of size 3, and the model takes 512"):
        clip.encode_video(videos=films, network="small")


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        VideoClip.from_pretrained(tmp_path / "none.pt")


class Column:
    """As a pandas Series: its items come in order when it is iterated, and by their labels otherwise."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items.values())

    def __len__(self):
        return len(self.items)

    def __getitem__(self, label):
        return self.items[label]


def test_texts_come_in_any_form(clip):
    two = clip.encode_text(["add the onions", "stir"])
    assert torch.equal(clip.encode_text(np.array(["add the onions", "stir"])), two)
    assert torch.equal(clip.encode_text(text for text in ("add the onions", "stir")), two)
    assert torch.equal(clip.encode_text(Column({7: "add the onions", 9: "stir"})), two)
    one = clip.encode_text("add the onions")
    assert one.shape == (1, 32)
    torch.testing.assert_close(one[0], two[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"texts\[1\] is nan, which is no text"):
        clip.encode_text(["add", float("nan")])


def test_options_of_encoding(clip, capsys):
    x = np.random.default_rng(0).standard_normal((5, 512), dtype=np.float32)
    for encode, given in ((clip.encode_text, ["add the onions", ""]), (clip.encode_video, [x, x[:2]])):
        plain = encode(given)
        scaled = encode(given, normalize=True, convert_to_numpy=True, show_progress_bar=True)
        assert isinstance(scaled, np.ndarray) and scaled.dtype == np.float32
        np.testing.assert_allclose(scaled, plain / plain.norm(dim=1, keepdim=True), rtol=1e-5)
        assert "2/2" in capsys.readouterr().err
        with pytest.raises(ValueError, match="batch_size is 0"):
            encode(given, batch_size=0)


def test_features_of_reduced_precision(clip):
    x = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(clip.encode_video([x.bfloat16()]), clip.encode_video([x.bfloat16().float()]))
    with pytest.raises(ValueError, match=r"features\[0\] holds <U1"):
        clip.encode_video([np.full((5, 512), "a")])


def test_rows_that_should_have_length_one(clip):
    clip.feature_settings = {"normalisation": "l2"}  # as the settings of extracted features state
    x = np.random.default_rng(0).standard_normal((5, 512))
    with pytest.raises(ValueError, match=r"features\[1\] has rows of other lengths than 1 \(.* in row 0\)"):
        clip.encode_video([np.zeros((0, 512)), x])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x[2] = 0
    assert clip.encode_video([x.astype(np.float16)]).shape == (1, 32)
