"""One file, one network, one call."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.features import networks
from mmpt_plugin.features.manifest import FeatureSettings
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig
from mmpt_plugin.features.one_video import open_extractor
from mmpt_plugin.features.video import VideoBlocks

from .video_files import moving_square, write_video

SETTINGS = dataclasses.asdict(FeatureSettings("colour", "00", 3, fps=10, frame_size=32))


@pytest.fixture
def colour(monkeypatch) -> None:
    """Registers the network `colour`, whose weights can be told to differ: `colour:other`."""

    def load(argument: str, config: NetworkConfig) -> FeatureNetwork:
        return FeatureNetwork("colour", argument or "00", 3, lambda frames: frames.float().mean(dim=(1, 2, 3)) + 1)

    monkeypatch.setitem(networks.NETWORKS, "colour", load)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("one") / "a.mp4", moving_square(70, 64, 48))


def test_features_of_one_video(video, colour):
    extractor = open_extractor(SETTINGS)
    seen: dict[int, tuple[int, ...]] = {}
    found = extractor.extract(video, on_second=lambda second, frames: seen.update({second: frames.shape}))
    blocks = torch.from_numpy(np.stack(list(VideoBlocks(video, fps=10, size=32))))
    expected = torch.nn.functional.normalize(blocks.float().mean(dim=(1, 2, 3)) + 1, dim=1)
    np.testing.assert_allclose(found.features, expected, atol=1e-3)
    assert found.features.dtype == np.float16
    assert (found.frames, found.decoded, found.damaged, found.doubts) == (23, 70, 0, ())
    assert seen == dict.fromkeys(range(3), (10, 32, 32, 3))


def test_settings_are_those_that_are_named(video, colour):
    extractor = open_extractor({**SETTINGS, "fps": 5, "frame_size": 16})
    assert (extractor.fps, extractor.frame_size) == (5, 16)
    extractor = open_extractor(None, "colour")
    assert (extractor.fps, extractor.frame_size) == (30, 224)


def test_other_network_than_the_settings_name_is_refused(colour):
    with pytest.raises(ValueError, match=r"weights_sha256: 'other' here, '00' expected"):
        open_extractor(SETTINGS, "colour:other")
    with pytest.raises(ValueError, match=r"network: 'colour' here, 's3d' expected"):
        open_extractor({**SETTINGS, "network": "s3d"}, "colour")
    with pytest.raises(ValueError, match=r"normalisation: 'l2' here, 'none' expected"):
        open_extractor({**SETTINGS, "normalisation": "none"})


def test_network_that_is_not_known_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="network='s3d:FILE'"):
        open_extractor(None)
    with pytest.raises(ValueError, match="resnet: unknown"):
        open_extractor({**SETTINGS, "network": "resnet"})
    with pytest.raises(ValueError, match="s3d needs its weights"):
        open_extractor({**SETTINGS, "network": "s3d"})
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        open_extractor({**SETTINGS, "network": "s3d"}, f"s3d:{tmp_path / 'none.pth'}")


def test_few_pictures_for_many_rows_are_doubted(tmp_path, colour):
    still = write_video(tmp_path / "still.mkv", moving_square(3, 32, 32), times=[0, 1, 600])
    (doubt,) = open_extractor(SETTINGS).extract(still).doubts
    assert doubt == "20 rows were made of 3 pictures: are the time stamps right?"


def test_several_features_a_second(video, colour):
    """Each is of its own frames; the black frames that fill the last second give none."""
    extractor = open_extractor({**SETTINGS, "features_per_second": 2})
    frames = np.concatenate(list(VideoBlocks(video, fps=10, size=32)))[:23]
    parts = [frames[first : first + 5] for first in range(0, 23, 5)]
    means = [torch.from_numpy(part).float().sum(dim=(0, 1, 2)) / (5 * 32 * 32) + 1 for part in parts]
    expected = torch.nn.functional.normalize(torch.stack(means), dim=1)
    np.testing.assert_allclose(extractor.extract(video).features, expected, atol=1e-3)


def test_rates_that_do_not_fit_are_refused(colour):
    with pytest.raises(ValueError, match=r"3 features a second .* cannot share 10 frames \(--fps\) evenly"):
        open_extractor({**SETTINGS, "features_per_second": 3})
    with pytest.raises(ValueError, match=r"trained on have 1 rows a second, and the model takes 2"):
        open_extractor(SETTINGS, features_per_second=2)
