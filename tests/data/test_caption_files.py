"""mmpt_plugin/data/caption_files.py."""

import json

import numpy as np
import pytest

from mmpt_plugin.data.caption_files import (
    PreparedCaptions,
    load_captions,
    merge_captions,
    write_captions,
)
from mmpt_plugin.data.captions import Caption
from mmpt_plugin.files import UnusableFile

CAPTIONS = [Caption(0.0, 1.5, [3, 4]), Caption(1.5, 2.0, [5])]


@pytest.fixture
def prepared(tmp_path):
    for number, videos in enumerate([[("-a", CAPTIONS), ("none", [])], [('é"\\', CAPTIONS[:1])]]):
        write_captions(tmp_path / f"{number}", videos, settings={"rule": "words"}, counts={"lines": 4})
    merge_captions([tmp_path / "0", tmp_path / "1"], tmp_path / "captions.jsonl")
    return tmp_path / "captions.jsonl"


class TestPreparedCaptions:
    def test_round_trip(self, prepared):
        captions = PreparedCaptions(prepared)
        assert captions.settings == {"rule": "words"}
        assert captions.counts == {
            "captions": 3,
            "lines": 8,
            "pieces": 5,
            "videos": 2,
            "videos_without_captions": 1,
        }
        assert list(captions.offsets) == ["-a", 'é"\\']
        (second, second_tokens), (first, first_tokens) = load_captions(
            prepared, [captions.offsets['é"\\'], captions.offsets["-a"]]
        )
        np.testing.assert_array_equal(first, [[0.0, 1.5], [1.5, 2.0]])
        np.testing.assert_array_equal(second, [[0.0, 1.5]])
        assert first_tokens == [[3, 4], [5]] and second_tokens == [[3, 4]]

    def test_nothing_is_left_beside_it(self, prepared):
        assert sorted(path.name for path in prepared.parent.iterdir()) == ["0", "1", "captions.jsonl"]

    @pytest.mark.parametrize("lost", [1, 60])
    def test_refuses_a_file_that_was_cut_short(self, prepared, lost):
        prepared.write_bytes(prepared.read_bytes()[:-lost])
        with pytest.raises(ValueError, match=r"captions\.jsonl: .*(make|Copy)"):
            PreparedCaptions(prepared)

    def test_refuses_a_file_that_lost_a_line(self, prepared):
        prepared.write_bytes(b"".join(prepared.read_bytes().splitlines(keepends=True)[:-1]))
        with pytest.raises(ValueError, match="1 videos, its first line says 2"):
            PreparedCaptions(prepared)

    @pytest.mark.parametrize("content", ["", "{}\n", '{"a": {"start": []}}', "\x00\x01"])
    def test_refuses_another_file(self, tmp_path, content):
        (tmp_path / "captions.jsonl").write_text(content)
        with pytest.raises(ValueError, match="no file of prepared captions"):
            PreparedCaptions(tmp_path / "captions.jsonl")

    def test_refuses_another_version(self, prepared):
        prepared.write_bytes(prepared.read_bytes().replace(b'"version":1', b'"version":9'))
        with pytest.raises(ValueError, match="this reader knows"):
            PreparedCaptions(prepared)

    def test_names_what_makes_a_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"prepare_captions\.py makes it"):
            PreparedCaptions(tmp_path / "captions.jsonl")

    def test_parts_must_be_of_one_kind(self, tmp_path):
        for name in "ab":
            write_captions(tmp_path / name, [("v", CAPTIONS)], settings={"rule": name}, counts={})
        with pytest.raises(ValueError, match=r"b: made with \{'rule': 'b'\}"):
            merge_captions([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
        assert not (tmp_path / "all").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": [0.0, 1e30]}, "a time is no number of seconds"),
        ({"start": ["0", 1.5]}, "a time is no number of seconds"),
        ({"end": [True, 2]}, "a time is no number of seconds"),
        ({"start": [5.0, 1.0]}, "not in the order of their starts"),
        ({"end": [1.5]}, "2 starts, 1 ends"),
        ({"tokens": [[3], [10]]}, "word pieces 3 to 10, but the tokenizer has 10"),
        ({"tokens": [[3], [-1]]}, "word pieces -1 to 3"),
        ({"tokens": [[3], [True]]}, "no list of whole numbers"),
        ({"tokens": {}}, "no lists"),
    ],
)
def test_a_line_with_other_values_is_refused(tmp_path, change, message):
    path = tmp_path / "captions.jsonl"
    write_captions(path, [("v", CAPTIONS)], settings={"vocabulary_size": 10}, counts={})
    header, line = path.read_text().splitlines()
    path.write_text(f"{header}\n{json.dumps(json.loads(line) | change, separators=(',', ':'))}\n")
    with pytest.raises(UnusableFile, match=rf"captions\.jsonl, video v: .*{message}"):
        list(load_captions(path, list(PreparedCaptions(path).offsets.values())))


@pytest.mark.parametrize(
    ("video_id", "message"),
    [(" a", "blanks"), ("a\nb", "line break"), ("", "is empty"), ("\ud800", "cannot be read|surrogate")],
)
def test_an_id_that_breaks_lists_is_refused(tmp_path, video_id, message):
    path = tmp_path / "captions.jsonl"
    write_captions(path, [("v", CAPTIONS)], settings={}, counts={})
    path.write_text(path.read_text().replace('"v"', json.dumps(video_id)))
    with pytest.raises(UnusableFile, match=message):
        PreparedCaptions(path)


def test_a_video_twice_is_refused(tmp_path):
    path = tmp_path / "captions.jsonl"
    write_captions(path, [("v", CAPTIONS)] * 2, settings={}, counts={})
    with pytest.raises(UnusableFile, match="video v is in the file twice"):
        PreparedCaptions(path)
