"""The world of real pictures, in little: made-up photographs and a voice that hums."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from demo.pictures import films, make_films, packages, speech
from demo.pictures.films import CROSSING, FPS, HEIGHT, WIDTH, Scene, Shot, plan_film, small_photograph
from demo.pictures.gather import Picture, background_photographs, english_name, is_photograph, named_photographs
from demo.pictures.make_films import casts, deal, film_path, split_names, write_world
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
    (folder / "food").mkdir()
    for i in range(20):
        place = folder / ("animals" if i < 12 else "food")
        write_picture(place / f"p{i:02}.png", photograph(rng))
        (place / f"p{i:02}.txt").write_text(f"A thing {chr(97 + i)}.\nde.utf8=Ding.\n")
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


@pytest.fixture(scope="module")
def backgrounds(tmp_path_factory) -> list[Path]:
    """Two photographs, one of them upright."""
    folder, rng = tmp_path_factory.mktemp("nature"), np.random.default_rng(1)
    for name, size in (("wide", (90, 160, 4)), ("tall", (160, 90, 4))):
        write_picture(folder / f"{name}.png", rng.integers(0, 256, size, np.uint8))
        (folder / f"{name}.png").rename(folder / f"{name}.jpg")  # told by content
    return background_photographs(folder)


def hum(sentence: str) -> np.ndarray:
    """A voice that takes a hundredth of a second a letter."""
    return np.full(len(sentence) * speech.RATE // 100, 1000, np.int16)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A koala.\nach.utf8=Marac.", "a koala"),
        ("The moon.", "the moon"),
        ("An old Chinese sailing ship.", "an old Chinese sailing ship"),
        ("A dumper. It carries its load in the front.", "a dumper"),
        ("A wheelie bin! Give me your trash!", "a wheelie bin"),
        ("A peacock (a male peafowl).", "a peacock"),
        ("A plumber’s wrench.", "a plumber's wrench"),
        ("A “Fuji” apple.", "a Fuji apple"),
        ("Two wild boars.", "two wild boars"),
        ("Big fireworks.", None),
        ("A stethoscope lets your doctor listen.", None),
        ("Another tombstone.", None),
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
    flat = picture.copy()
    flat[10:-10, 10:60] = (200, 10, 10, 255)  # 50 of 80 columns in one colour
    assert not is_photograph(flat)
    flat[10:-10, 10:40] = picture[10:-10, 10:40]  # 20 of them
    assert is_photograph(flat)
    assert is_photograph(picture[:80, :64])
    assert not is_photograph(picture[:60, :60])
    picture[..., 3] = 0
    assert not is_photograph(picture)


def test_one_photograph_a_name(pictures):
    assert [picture.name for picture in pictures] == [f"a thing {chr(97 + i)}" for i in range(20)]
    assert [picture.theme for picture in pictures] == ["animals"] * 12 + ["garden"] * 8


def test_pictures_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no photograph with a name"):
        named_photographs(tmp_path)
    with pytest.raises(ValueError, match="no photographs; the folder of Debian's mate-backgrounds"):
        background_photographs(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(ValueError, match=r"there is no apt-get here .*comfyui-workflow-templates-media.*made by AI"):
        packages.package_folder("no-such-package", "usr/share/none", tmp_path)
    with pytest.raises(ValueError, match="package espeak-ng is needed"):
        speech.speakers(tmp_path)


@pytest.fixture
def debian(tmp_path, monkeypatch):
    """An apt-get that knows the packages voice and libvoice and refuses others; an empty cache."""
    cache = tmp_path / "cache"

    def run(command, cwd, **_):
        package = command[-1]
        if command[1] == "--simulate":
            return subprocess.CompletedProcess(
                command, 0, "Reading...\nInst libvoice (1)\nInst voice (1)\nConf voice\n"
            )
        if command[0] == "dpkg-deb":
            name = command[2].partition("_")[0]
            file = cwd / ("usr/bin/voice" if name == "voice" else "usr/lib/x/libvoice.so.1")
            file.parent.mkdir(parents=True)
            file.touch()
        elif package in ("voice", "libvoice"):
            (cwd / f"{package}_1.deb").touch()
        else:
            raise subprocess.CalledProcessError(100, command, stderr="W: old\nE: no package")
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in ("apt-get", "dpkg-deb") else None)
    return cache


def test_packages_are_unpacked_without_root(debian):
    assert packages.package_folder("voice", "usr/bin", debian) in (Path("/usr/bin"), debian / "usr/bin")
    name, voice = packages.program(["voice", "other"], debian)
    assert (name, voice.path) == ("voice", str(debian / "usr/bin/voice"))
    assert voice.environment == {"LD_LIBRARY_PATH": str(debian / "usr/lib/x")}
    assert not list(debian.glob("*.deb"))
    with pytest.raises(ValueError, match=r"other could not be had \(E: no package\): try `apt-get update` first"):
        packages.package_folder("other", "usr/share/other", debian)


def test_a_package_of_another_version(debian):
    with pytest.raises(ValueError, match="package voice has no folder usr/share/none"):
        packages.package_folder("voice", "usr/share/none", debian)


def test_speech(tmp_path):
    if not any(map(shutil.which, speech.VOICES)):
        pytest.skip("NOT TESTED: neither espeak-ng nor flite is installed, so no sentence is spoken")
    voice = speech.speakers(tmp_path)[0]
    short, long = (voice(text) for text in ("A koala.", "A koala sits in a tall tree and sleeps all day."))
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


def test_pictures_move_over_a_photograph(pictures, backgrounds):
    rng = np.random.default_rng(0)
    for background in backgrounds:
        scene = Scene(Shot(pictures[0], 2, 8), background, rng)
        frames = [scene.at(second) for second in (2, 5, 8)]
        assert {frame.shape for frame in frames} == {(3, HEIGHT, WIDTH)}
        assert (frames[0] != frames[1]).any() and (frames[1] != frames[2]).any()
        for frame in frames:  # what lies outside of the picture is the photograph's, and it is in the middle square
            covered = (frame != scene.background).any(dim=0)
            assert 0.1 < covered.float().mean() < 0.8
            columns = torch.nonzero(covered.any(dim=0))[:, 0]
            assert (WIDTH - HEIGHT) / 2 <= columns.float().mean() <= (WIDTH + HEIGHT) / 2
        assert min(small_photograph(background).shape[1:]) >= 2 * HEIGHT


def test_world(tmp_path, pictures, backgrounds, monkeypatch):
    monkeypatch.setattr(make_films, "PICTURES_A_FILM", 4)
    monkeypatch.setattr(films, "SHOWN", (0.8, 1.0))
    monkeypatch.setattr(films, "SPOKEN_LATE", (-0.5, 0.5))
    pictures = pictures[8:16]
    truth = write_world(tmp_path, pictures, backgrounds, [hum], 1, 0, 1)
    assert json.loads((tmp_path / "truth.json").read_text())["films"] == truth
    names = {
        split: {shot["name"] for film in truth.values() if film["split"] == split for shot in film["shots"]}
        for split in ("train", "seen", "unseen")
    }
    assert names["train"] == names["seen"] and not names["unseen"] & names["train"]
    film_id, film = next(iter(truth.items()))
    with av.open(str(film_path(tmp_path, film_id))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.audio
    assert len(frames) / FPS >= film["shots"][-1]["end"] - 1 / FPS
    before, after = film["shots"][:2]
    cut = int(after["start"] * FPS)
    pair = frames[cut - 1].astype(int), frames[cut + int(CROSSING * FPS) + 1].astype(int)
    assert np.abs(pair[0] - pair[1]).mean() > 10 and before["end"] == after["start"]
    for split in ("seen", "unseen"):
        with (tmp_path / f"{split}.csv").open() as file:
            rows = [row["text"] for row in csv.DictReader(file)]
        assert len(rows) == len(set(rows)) and set(rows) == names[split]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    film_path(tmp_path, film_id).unlink()
    assert write_world(tmp_path, pictures, backgrounds, [hum], 1, 0, 1) == truth
    assert [path for path in times if path.stat().st_mtime_ns != times[path]] == [film_path(tmp_path, film_id)]
    with pytest.raises(ValueError, match=r"holds another world .*'rounds': 1.*choose another folder"):
        write_world(tmp_path, pictures, backgrounds, [hum], 2, 0, 1)


def test_names_are_split_once_in_each_theme(pictures):
    split = split_names(pictures, 0)
    assert split["train"] == split["seen"]
    assert sorted(picture.theme for picture in split["unseen"]) == ["animals"] * 3 + ["garden"] * 2
    assert sorted([*split["train"], *split["unseen"]], key=lambda picture: picture.name) == pictures
    assert split_names(pictures, 1) != split


def test_each_picture_comes_as_often_as_it_should(pictures, monkeypatch):
    monkeypatch.setattr(make_films, "PICTURES_A_FILM", 5)
    dealt = deal(pictures, np.random.default_rng(0))
    assert sorted(map(len, dealt)) == [4, 4, 4, 4, 4]  # 12 animals in three films, 8 of the garden in two
    assert all(len({picture.theme for picture in film}) == 1 for film in dealt)
    films_of = casts(pictures, 3, 0)
    for split, times in (("train", 3), ("seen", 1), ("unseen", 1)):
        shown = [picture.name for film, cast in films_of.items() if film.startswith(split) for picture in cast]
        assert {shown.count(name) for name in set(shown)} == {times}
    assert films_of == casts(pictures, 3, 0) != casts(pictures, 3, 1)


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
    network_name = f"efficientnet-lite2:{tmp_path / 'lite2.pth'}"
    network = load_network(NetworkConfig(network_name))
    assert (network.name, network.feature_size) == ("efficientnet-lite2", 1280)
    expected = load_efficientnet(tmp_path / "lite2.pth")(prepared(frames[:, 0]))
    torch.testing.assert_close(network(frames), expected, rtol=1e-4, atol=1e-5)
    halved = load_network(NetworkConfig(network_name, precision="bf16"))
    assert halved.weights_sha256 == network.weights_sha256
    assert 1e-3 < (halved(frames) - expected).norm() / expected.norm() < 0.1
    assert model.classify(prepared(frames[0])).shape == (1, 1000)


def test_pictures_are_prepared_as_in_training():
    gray = prepared(torch.full((1, 32, 32, 3), 127, dtype=torch.uint8))
    assert gray.shape == (1, 3, SIZE, SIZE)
    assert gray.abs().max() < 1e-5
