"""A corpus serves the listed videos from the shards, and refuses what it cannot serve."""

import logging
import multiprocessing
import pickle
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpt_plugin.data import corpus as corpus_module
from mmpt_plugin.data import ragged_arrays
from mmpt_plugin.data.captions import vocabulary_sha256
from mmpt_plugin.data.corpus import VideoTextCorpus, open_shards, read_video_list
from mmpt_plugin.data.ragged_arrays import MappedArray
from mmpt_plugin.data.shard_writer import ShardWriter

WIDTH = 3


def random_videos(count: int, seed: int = 0, prefix: str = "video") -> dict:
    """{id: (features, times, tokens)}: 1-50 seconds, 1-9 captions of 0-20 word pieces."""
    rng = np.random.default_rng(seed)

    def video():
        seconds, captions = rng.integers(1, 51), rng.integers(1, 10)
        features = rng.standard_normal((seconds, WIDTH)).astype(np.float16)
        times = np.sort(rng.uniform(0, seconds, (captions, 2))).astype(np.float32)
        tokens = [rng.integers(0, 50, rng.integers(0, 21)).tolist() for _ in range(captions)]
        return features, times, tokens

    return {f"{prefix}{i}": video() for i in range(count)}


def write_ours(folder: Path, name: str, videos: dict, **settings) -> None:
    with ShardWriter(folder, name, feature_size=WIDTH, **settings) as writer:
        for video_id, video in videos.items():
            writer.add(video_id, *video)


def write_mmpt(folder: Path, number: int, videos: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def save(stem, arrays):
        np.save(folder / f"{stem}_starts.npy", np.cumsum([0, *map(len, arrays)]))
        np.save(folder / f"{stem}_data.npy", np.concatenate(arrays))

    features, times, tokens = zip(*videos.values())
    name = f"train_{number}"
    save(name, features)
    save(f"p.{name}.startends", times)
    save(f"p.{name}.caps_ids", [np.array([c + [-1] * (32 - len(c)) for c in video], np.int32) for video in tokens])
    meta = folder / "train_meta.pkl"
    metas = pickle.loads(meta.read_bytes()) if meta.exists() else {}
    meta.write_bytes(pickle.dumps({**metas, number: list(videos)}))


@pytest.fixture(scope="module", params=["ours", "mmpt"])
def stored(request, tmp_path_factory) -> tuple[Path, dict]:
    """A folder of two shards in either format, and what is in them."""
    folder = tmp_path_factory.mktemp(request.param)
    first, second = random_videos(5), random_videos(4, seed=1, prefix="-other")
    if request.param == "ours":
        write_ours(folder, "a", first)
        write_ours(folder, "b", second)
    else:
        write_mmpt(folder, 0, first)
        write_mmpt(folder, 1, second)
    return folder, first | second


def open_corpus(folder: Path, video_ids, **arguments) -> VideoTextCorpus:
    return VideoTextCorpus.open(folder, video_ids, feature_size=WIDTH, **arguments)


LIST = ["video3", "-other2", "video0", "-other0"]  # some of the videos, across both shards, in an order of its own


# --- reading ---


def test_videos_are_served_in_the_order_of_the_list(stored):
    folder, videos = stored
    corpus = open_corpus(folder, LIST)
    assert corpus.video_ids == LIST and len(corpus) == 4 and corpus.missing == [] and corpus.feature_size == WIDTH
    assert corpus.video_seconds.tolist() == [len(videos[video_id][0]) for video_id in LIST]
    assert corpus.caption_counts.tolist() == [len(videos[video_id][1]) for video_id in LIST]
    for i, video_id in enumerate(LIST):
        features, times, tokens = videos[video_id]
        np.testing.assert_array_equal(corpus.features(i), features)
        found_times, token_counts = corpus.captions(i)
        np.testing.assert_array_equal(found_times, times)
        assert token_counts.tolist() == [len(caption) for caption in tokens]
        assert corpus.text(i, 0, len(tokens)).tolist() == list(chain(*tokens))


def test_captions_of_a_group(stored):
    folder, videos = stored
    corpus = open_corpus(folder, LIST)
    group = np.array([2, 0, 2, 1])
    table = corpus.group_captions(group)
    picked = [videos[LIST[i]] for i in group]
    assert table.offsets.tolist() == np.cumsum([0, *(len(times) for _, times, _ in picked)]).tolist()
    times = np.concatenate([times for _, times, _ in picked])
    np.testing.assert_array_equal(np.stack([table.starts, table.ends], axis=1), times)
    assert table.video_seconds.tolist() == [len(features) for features, _, _ in picked]
    assert table.token_counts.tolist() == [len(caption) for _, _, tokens in picked for caption in tokens]


def obvious_clip(video, span, max_seconds, max_pieces, rate):
    """One clip, straight from the lists."""
    (features, _, tokens), (start, end, first, last) = video, span
    rows = features[rate * start : rate * end][: rate * max_seconds]
    return rows, len(rows), list(chain(*tokens[first:last]))[:max_pieces]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), max_seconds=st.integers(1, 40), max_pieces=st.integers(1, 70), rate=st.integers(1, 3))
def test_clips_equal_the_obvious_version(stored, data, max_seconds, max_pieces, rate):
    """Whatever the rows a second; a last second that lacks some has the others."""
    folder, videos = stored
    corpus = open_corpus(folder, LIST, verify="size", features_per_second=rate)
    assert corpus.video_seconds.tolist() == [-(-len(videos[name][0]) // rate) for name in LIST]

    def span_within(length):
        return sorted(data.draw(st.tuples(st.integers(0, length), st.integers(0, length))))

    positions = np.array(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=8)))
    spans = np.array([span_within(corpus.video_seconds[v]) + span_within(corpus.caption_counts[v]) for v in positions])
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MappedArray, "read_ahead", lambda array, *rows: asked.append((array.path, *rows)))
        features, video_lengths, tokens, text_lengths = corpus.clips(
            positions, spans, max_seconds=max_seconds, max_pieces=max_pieces
        )
    read = {(v, rate * span[0] + row) for v, n, span in zip(positions, video_lengths, spans) for row in range(n)}
    assert sum(last - first for _, first, last in asked) == len(read)  # each row once
    expected = [obvious_clip(videos[LIST[v]], span, max_seconds, max_pieces, rate) for v, span in zip(positions, spans)]
    assert features.dtype == np.float16 and tokens.dtype == np.int32
    np.testing.assert_array_equal(features, np.concatenate([rows for rows, _, _ in expected]))
    assert video_lengths.tolist() == [length for _, length, _ in expected]
    assert text_lengths.tolist() == [len(pieces) for _, _, pieces in expected]
    assert tokens.tolist() == list(chain(*(pieces for _, _, pieces in expected)))


@pytest.mark.parametrize(("column", "step"), [(0, -1), (1, 1), (2, -1), (3, 1)])
def test_spans_outside_of_a_video_do_not_read_its_neighbour(stored, column, step):
    corpus = open_corpus(stored[0], LIST)
    whole = np.array([[0, corpus.video_seconds[video], 0, corpus.caption_counts[video]] for video in (0, 1)])
    corpus.clips(np.array([0, 1]), whole)
    whole[1, column] += step
    with pytest.raises(ValueError, match=r"clip 1: seconds .* are not in video -other2"):
        corpus.clips(np.array([0, 1]), whole)


@pytest.mark.parametrize("span", [[1, 0, 0, 1], [0, 1, 1, 0]])
def test_spans_that_run_backwards_are_refused(stored, span):
    with pytest.raises(ValueError, match="clip 0"):
        open_corpus(stored[0], LIST).clips(np.array([0]), np.array([span]))


def test_text_outside_of_a_video_is_refused(stored):
    with pytest.raises(ValueError, match="are not in video video3"):
        open_corpus(stored[0], LIST).text(0, 0, 100)


def test_every_process_opens_its_own_maps(stored):
    """A spawned worker gets the corpus as a pickle, which holds no map and no features."""
    folder, videos = stored
    corpus = open_corpus(folder, LIST)
    pickled = pickle.dumps(corpus)
    assert videos["video3"][0].tobytes() not in pickled
    ragged_arrays._map.cache_clear()
    np.testing.assert_array_equal(pickle.loads(pickled).features(0), videos["video3"][0])


def test_forked_workers_read_the_same(stored):
    corpus = open_corpus(stored[0], LIST)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for i, features in enumerate(pool.map(corpus.features, range(len(LIST)))):
            np.testing.assert_array_equal(features, corpus.features(i))


def test_more_files_than_may_be_mapped_at_a_time(stored, monkeypatch):
    folder, videos = stored
    few = ragged_arrays.lru_cache(maxsize=2)(ragged_arrays._map.__wrapped__)
    monkeypatch.setattr(ragged_arrays, "_map", few)
    corpus = open_corpus(folder, LIST)
    for _ in range(2):
        for i, video_id in enumerate(LIST):
            np.testing.assert_array_equal(corpus.features(i), videos[video_id][0])
            assert corpus.text(i, 0, 1).tolist() == videos[video_id][2][0]
    assert few.cache_info().currsize == 2


# --- lists ---


def test_video_list(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("-aZ_9\n\n--b \r\nc\n")
    assert read_video_list(path) == ["-aZ_9", "--b", "c"]


def test_an_empty_list(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\n \n")
    with pytest.raises(ValueError, match=r"train\.txt: the list is empty"):
        read_video_list(path)


def test_a_list_with_duplicates_names_the_first(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("a\nb\nc\nc\nb\nb\n")
    with pytest.raises(ValueError, match=r"train\.txt: 2 video ids are listed more than once, the first is b"):
        read_video_list(path)


def test_a_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.txt: missing"):
        read_video_list(tmp_path / "train.txt")


# --- bad input ---


def test_missing_videos_are_counted_and_listed(stored, caplog):
    folder = stored[0]
    video_ids = ["video0", *(f"gone{i}" for i in range(7)), "video1"]
    with pytest.raises(
        ValueError, match=r"7 of 9 listed videos are in no shard: gone0, .*gone4, \.\.\..*task\.on_missing"
    ):
        open_corpus(folder, video_ids)
    corpus = open_corpus(folder, video_ids, on_missing="skip")
    assert corpus.video_ids == ["video0", "video1"]
    assert corpus.missing == [f"gone{i}" for i in range(7)]
    assert "left out 7 of 9 videos" in caplog.text


def test_videos_without_seconds_or_captions(tmp_path, caplog):
    videos = random_videos(1) | {
        "no seconds": (np.zeros((0, WIDTH)), [[0, 1]], [[1]]),
        "no captions": (np.ones((2, WIDTH)), [], []),
    }
    write_ours(tmp_path, "a", videos)
    with pytest.raises(
        ValueError, match=r"2 of 3 listed videos have no seconds .* or no captions: no seconds, no captions"
    ):
        open_corpus(tmp_path, list(videos))
    corpus = open_corpus(tmp_path, [*videos, "gone"], on_missing="skip")
    assert corpus.video_ids == ["video0"] and corpus.missing == ["no seconds", "no captions", "gone"]
    assert "1 in no shard, 2 without seconds or captions" in caplog.text


def test_videos_with_fewer_captions_than_a_bag(tmp_path, caplog):
    captions = {name: ([[i, i + 1] for i in range(n)], [[1]] * n) for name, n in (("two", 2), ("three", 3), ("one", 1))}
    write_ours(tmp_path, "a", {name: (np.ones((4, WIDTH)), *captions[name]) for name in captions})
    message = r"2 of 3 listed videos have no seconds .* or fewer than the 3 captions of a bag .*: two, one\."
    with pytest.raises(ValueError, match=message):
        open_corpus(tmp_path, list(captions), min_captions=3)
    corpus = open_corpus(tmp_path, list(captions), min_captions=3, on_missing="skip")
    assert corpus.video_ids == ["three"] and corpus.missing == ["two", "one"]
    assert "2 without seconds or captions (at least 3)" in caplog.text
    assert len(open_corpus(tmp_path, ["two", "three"], min_captions=2)) == 2


def test_texts_are_those_of_clips(stored):
    corpus = open_corpus(stored[0], LIST)
    videos = np.arange(len(corpus)).repeat(2)
    first = np.zeros_like(videos)
    last = np.where(np.arange(len(videos)) % 2, corpus.caption_counts[videos], 1)
    spans = np.stack([first, first, first, last], 1)
    for limit in (1, 5, 61):
        clips = corpus.clips(videos, spans, max_pieces=limit)
        tokens, lengths = corpus.texts(videos, first, last, max_pieces=limit)
        np.testing.assert_array_equal(tokens, clips.pieces)
        np.testing.assert_array_equal(lengths, clips.text_lengths)


def test_no_video_left(stored):
    with pytest.raises(ValueError, match="none of the 2 videos of the list is in a shard"):
        open_corpus(stored[0], ["x", "y"], on_missing="skip")


def test_another_width_names_the_setting(stored):
    with pytest.raises(ValueError, match=r"features are 3 wide, model\.feature_size is 512"):
        VideoTextCorpus.open(stored[0], LIST)


@pytest.mark.parametrize(("setting", "name"), [("on_missing", r"task\.on_missing"), ("verify", r"task\.verify")])
def test_misspelt_settings(stored, setting, name):
    with pytest.raises(ValueError, match=f"{name} is 'ski': choose one of"):
        open_corpus(stored[0], LIST, **{setting: "ski"})


def test_no_shards(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=r"no shards\. Expected either .*index\.json.*train_meta\.pkl"):
            open_shards(folder)


def test_both_kinds_in_one_folder(tmp_path):
    write_ours(tmp_path, "a", random_videos(1))
    write_mmpt(tmp_path, 0, random_videos(1))
    with pytest.raises(ValueError, match=r"holds shards \(a, \.\.\.\) and MMPT's own files"):
        open_shards(tmp_path)


def test_half_written_shards_are_not_read(tmp_path):
    write_ours(tmp_path, "a", random_videos(1))
    (tmp_path / "a").rename(tmp_path / ".b.partial")
    write_ours(tmp_path, "a", random_videos(1))
    assert [shard.name for shard in open_shards(tmp_path)] == ["a"]


def test_a_video_in_two_shards(tmp_path):
    write_ours(tmp_path, "a", random_videos(2))
    write_ours(tmp_path, "b", random_videos(1))
    with pytest.raises(ValueError, match="video video0 is 2 times in shards a, b"):
        open_corpus(tmp_path, ["video1", "video0"])
    assert open_corpus(tmp_path, ["video1"]).video_ids == ["video1"]


def test_shards_made_in_different_ways(tmp_path):
    write_ours(tmp_path, "a", random_videos(1), source={"tokenizer": "x", "fps": 30})
    write_ours(tmp_path, "b", random_videos(1, prefix="other"), source={"tokenizer": "y", "fps": 30})
    with pytest.raises(ValueError, match=r"shards a and b were made in different ways: tokenizer is 'x' and 'y'\."):
        open_corpus(tmp_path, ["video0", "other0"])
    assert open_corpus(tmp_path, ["other0"]).source == {"tokenizer": "y", "fps": 30}


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_how_thoroughly_shards_are_verified(tmp_path, monkeypatch, caplog):
    write_ours(tmp_path, "a", random_videos(2))
    alter(tmp_path / "a" / "tokens.npy")
    for verify in ("auto", "full"):  # small, so auto reads everything
        with pytest.raises(ValueError, match=r"tokens\.npy: altered"):
            open_shards(tmp_path, verify)
    open_shards(tmp_path, "size")
    monkeypatch.setattr(corpus_module, "AUTO_VERIFY_BYTES", 10)
    with caplog.at_level(logging.INFO):
        open_shards(tmp_path, "auto")
    assert "sizes checked, not the content (task.verify=full does)" in caplog.text


@pytest.mark.parametrize(("array", "what"), [(0, "features"), (1, "caption times")])
def test_values_that_are_not_finite(tmp_path, array, what):
    videos = random_videos(130)
    videos["video77"][array][0, 1] = np.nan
    write_mmpt(tmp_path, 0, videos)
    with pytest.raises(ValueError, match=rf"video video77: {what} are NaN, infinite or out of bounds"):
        open_corpus(tmp_path, list(videos))
    # of 130 videos a sample looks at every third: 0, 3, ..., 75, 78, ...; of 65, at every second from the first
    open_corpus(tmp_path, list(videos), verify="size")
    with pytest.raises(ValueError, match="video video77"):
        open_corpus(tmp_path, list(videos)[77:] + list(videos)[:12], verify="size")


def test_a_word_piece_outside_of_the_vocabulary_is_named(tmp_path):
    with ShardWriter(
        tmp_path, "a", feature_size=WIDTH, source={"captions": {"vocabulary_sha256": sha256_of(9)}}
    ) as writer:
        writer.add("v", np.ones((3, WIDTH)), [[0, 1], [1, 2]], [[8], [9]])
    corpus = VideoTextCorpus.open(tmp_path, ["v"], feature_size=WIDTH)
    corpus.check_vocabulary({str(i): i for i in range(9)})
    assert corpus.text(0, 0, 1).tolist() == [8]
    with pytest.raises(ValueError, match="video v: word piece 9 is none of the vocabulary's 9"):
        corpus.text(0, 0, 2)


def sha256_of(size):
    return vocabulary_sha256({str(i): i for i in range(size)})


def test_a_list_with_a_byte_order_mark(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\n")
    assert read_video_list(tmp_path / "train.txt") == ["a", "b"]
    (tmp_path / "train.txt").write_bytes("caf\u00e9".encode("cp1252"))
    with pytest.raises(ValueError, match=r"train\.txt: not UTF-8"):
        read_video_list(tmp_path / "train.txt")
