"""The world of real pictures, in little: made-up photographs, a voice that hums, random weights."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from demo.pictures import make_films, speech
from demo.pictures.films import CROSSING, FPS, plan_film
from demo.pictures.gather import Picture, english_name, is_photograph, named_photographs, stamps_folder
from demo.pictures.make_films import split_names, write_world
from mmpt_plugin.features.efficientnet import SIZE, EfficientNetLite2, SameConv, load_efficientnet, prepared
from mmpt_plugin.features.networks import NetworkConfig, load_network


def photograph(rng: np.random.Generator) -> np.ndarray:
    """Pixels (120, 100, 4) of many shades, opaque but for a border."""
    picture = rng.integers(0, 256, (120, 100, 4), np.uint8)
    picture[..., 3] = 0
    picture[10:-10, 10:-10, 3] = 255
    return picture


def write_picture(path: Path, picture: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "rgba"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgba")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


@pytest.fixture(scope="module")
def stamps(tmp_path_factory) -> Path:
    """A folder as the package has it: 20 photographs, a drawing, a sentence, a twin, a cartoon."""
    folder, rng = tmp_path_factory.mktemp("stamps"), np.random.default_rng(0)
    (folder / "animals" / "cartoon").mkdir(parents=True)
    for i in range(20):
        write_picture(folder / "animals" / f"p{i:02}.png", photograph(rng))
        (folder / "animals" / f"p{i:02}.txt").write_text(f"A thing {chr(97 + i)}.\nde.utf8=Ding.\n")
    for name, text, picture in (
        ("animals/drawing", "A drawing.", np.full((120, 100, 4), 255, np.uint8)),
        ("animals/sentence", "A thing that is much too long to be named so.", photograph(rng)),
        ("animals/twin", "A thing a.", photograph(rng)),
        ("animals/cartoon/funny", "A funny thing.", photograph(rng)),
    ):
        write_picture(folder / f"{name}.png", picture)
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def pictures(stamps) -> list[Picture]:
    return named_photographs(stamps)


def hum(sentence: str) -> np.ndarray:
    """A voice that takes a tenth of a second a letter."""
    return np.full(len(sentence) * speech.RATE // 10, 1000, np.int16)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A koala.\nach.utf8=Marac.", "a koala"),
        ("The moon.", "the moon"),
        ("An old Chinese sailing ship.", "an old Chinese sailing ship"),
        ("A chocolate easter egg. Yum!", None),
        ("Big fireworks.", None),
        ("A stethoscope lets your doctor listen.", None),
        ("", None),
    ],
)
def test_names(tmp_path, text, name):
    (tmp_path / "a.txt").write_text(text)
    assert english_name(tmp_path / "a.txt") == name
    assert english_name(tmp_path / "b.txt") is None


def test_photographs_are_told_from_drawings():
    picture = photograph(np.random.default_rng(0))
    assert is_photograph(picture)
    assert not is_photograph(picture // 64 * 64)
    assert not is_photograph(picture[:90])
    picture[..., 3] = 0
    assert not is_photograph(picture)


def test_one_photograph_a_name(pictures):
    assert [picture.name for picture in pictures] == [f"a thing {chr(97 + i)}" for i in range(20)]


def test_pictures_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no photograph with a name"):
        named_photographs(tmp_path)
    monkeypatch.setattr("demo.pictures.gather.INSTALLED", tmp_path / "none")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match="there is no apt-get here"):
        stamps_folder(tmp_path)
    with pytest.raises(ValueError, match="apt-get install espeak-ng"):
        speech.speaker(0)


def test_speech():
    if not any(map(shutil.which, speech.VOICES)):
        pytest.skip("NOT TESTED: neither espeak-ng nor flite is installed, so no sentence is spoken")
    short, long = (speech.speaker(0)(text) for text in ("A koala.", "A koala sits in a tall tree and sleeps all day."))
    assert short.dtype == np.int16
    assert 0.3 * speech.RATE < len(short) < len(long)
    assert np.abs(long).max() > 1000


def test_nobody_speaks_twice_at_once(pictures):
    film = plan_film(pictures, hum, np.random.default_rng(0))
    assert [shot.picture for shot in film.shots] == pictures
    assert all(before.end == after.start for before, after in zip(film.shots, film.shots[1:]))
    ends = [line.start + len(line.sound) / speech.RATE for line in film.sentences]
    assert all(line.start >= end for line, end in zip(film.sentences[1:], ends))
    assert film.seconds == max(film.shots[-1].end, ends[-1])
    named = [line.text for line in film.sentences if "thing" in line.text]
    assert 10 < len(named) < 20  # some pictures are passed over
    assert len(named) < len(film.sentences)  # and something else is said


def test_world(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(make_films, "PICTURES_A_FILM", (2, 3))
    write_world(tmp_path, pictures, {"train": 2, "seen": 1, "unseen": 1}, 0, [hum])
    truth = json.loads((tmp_path / "truth.json").read_text())["films"]
    names = {
        split: {shot["name"] for film in truth.values() if film["split"] == split for shot in film["shots"]}
        for split in ("train", "seen", "unseen")
    }
    assert not names["unseen"] & (names["train"] | names["seen"])
    for film_id, film in truth.items():
        with av.open(str(tmp_path / "films" / f"{film_id}.mp4")) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert container.streams.audio
        assert len(frames) / FPS >= film["shots"][-1]["end"] - 1 / FPS
        for before, after in zip(film["shots"], film["shots"][1:]):  # each shot has another background
            cut = int(after["start"] * FPS)
            pair = frames[cut - 1].astype(int), frames[cut + int(CROSSING * FPS) + 1].astype(int)
            assert np.abs(pair[0] - pair[1]).mean() > 10 > np.abs(frames[cut - 1].astype(int) - frames[cut - 2]).mean()
            assert before["end"] == after["start"]
    for split in ("seen", "unseen"):
        with (tmp_path / f"{split}.csv").open() as file:
            assert {row["text"] for row in csv.DictReader(file)} == names[split]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "films").iterdir()}
    write_world(tmp_path, pictures, {"train": 3, "seen": 1, "unseen": 1}, 0, [hum])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    again = json.loads((tmp_path / "truth.json").read_text())["films"]
    assert {film_id: again[film_id] for film_id in truth} == truth
    with pytest.raises(ValueError, match="5 pictures are too few"):
        write_world(tmp_path, pictures[:5], {"train": 1}, 0, [hum])


def test_names_are_split_once(pictures):
    split = split_names(pictures, 0)
    assert split["train"] == split["seen"]
    assert len(split["train"]) == 16
    assert {*split["train"], *split["unseen"]} == set(pictures)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_convolutions_pad_at_the_end(size, kernel, stride):
    layer = SameConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(layer.weight)
    sums = layer(torch.ones(1, 1, size, size))[0, 0]
    outputs = -(-size // stride)
    assert sums.shape == (outputs, outputs)
    padding = max((outputs - 1) * stride + kernel - size, 0)
    assert sums[0, 0] == (kernel - padding // 2) ** 2


@torch.no_grad()
def test_efficientnet(tmp_path):
    torch.manual_seed(0)
    model = EfficientNetLite2().eval()
    assert len(model.state_dict()) == 386  # as the public file has
    torch.save(model.state_dict(), tmp_path / "lite2.pth")
    frames = torch.randint(0, 256, (2, 1, 64, 64, 3), dtype=torch.uint8)
    network = load_network(NetworkConfig(f"efficientnet-lite2:{tmp_path / 'lite2.pth'}"))
    assert (network.name, network.feature_size) == ("efficientnet-lite2", 1280)
    expected = load_efficientnet(tmp_path / "lite2.pth")(prepared(frames[:, 0]))
    torch.testing.assert_close(network(frames), expected, rtol=1e-4, atol=1e-5)
    assert model.classify(prepared(frames[0])).shape == (1, 1000)


def test_pictures_are_prepared_as_in_training():
    gray = prepared(torch.full((1, 32, 32, 3), 127, dtype=torch.uint8))
    assert gray.shape == (1, 3, SIZE, SIZE)
    assert gray.abs().max() < 1e-5
