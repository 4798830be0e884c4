"""mmpt_plugin/data/caption_files.py."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt_plugin.data import caption_files
from mmpt_plugin.data.caption_files import (
    PreparedCaptions,
    load_captions,
    merge_captions,
    read_raw_captions,
    write_captions,
)
from mmpt_plugin.data.captions import Caption

times = st.lists(st.floats(0, 9, width=32) | st.integers(0, 9) | st.sampled_from([math.nan, math.inf, -math.inf]))
said = st.lists(st.text(st.sampled_from('ab"\\NaN,:[]{} \n\té'), max_size=8) | st.none() | st.just(math.nan))
raw = st.dictionaries(
    st.text(st.sampled_from('ab-_"\\'), max_size=5), st.fixed_dictionaries({"start": times, "end": times, "text": said})
)


class NamedBytes(io.BytesIO):
    name = "raw_caption.json"


def without_nan(value):
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TestReadRawCaptions:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
    @given(raw, st.integers(1, 40), st.sampled_from([None, 1]), st.booleans())
    def test_equals_reading_it_whole(self, content, block, indent, ascii_only):
        content = content or {"video": {}}
        text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(caption_files, "BLOCK_BYTES", block)
            found = dict(read_raw_captions(NamedBytes(text.encode())))
        assert found == without_nan(content)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"a": {"start": [1, 2', "raw_caption.json: no whole JSON file, after 0 videos"),
            ('{"a": {"start": []}, "b": {"text": ["x', "raw_caption.json: no whole JSON file, after 1 videos"),
            ('{"a": {}, "a": {}}', "video a is in the file twice"),
            ("[1, 2]", "holds no videos"),
            ("{}", "holds no videos"),
            ("", "no whole JSON file"),
            ("<html>", "no whole JSON file"),
        ],
    )
    def test_refuses_other_files(self, text, message):
        with pytest.raises(ValueError, match=message):
            list(read_raw_captions(NamedBytes(text.encode())))

    @pytest.mark.slow
    def test_holds_one_video_at_a_time(self, tmp_path):
        path = tmp_path / "raw_caption.json"
        video = json.dumps(
            {"start": [1.25] * 100, "end": [2.5] * 100, "text": ["add the salt and stir", math.nan] * 50}
        )
        with path.open("w") as file:
            file.write("{" + ", ".join(f'"{i}": {video}' for i in range(80_000)) + "}")
        assert path.stat().st_size > 200 << 20
        code = (
            "import resource, sys\n"
            "from mmpt_plugin.data.caption_files import read_raw_captions\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            f"videos = sum(1 for _ in read_raw_captions(open({str(path)!r}, 'rb')))\n"
            "print(videos, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        videos, kibibytes = map(int, output.split())
        assert videos == 80_000
        assert kibibytes < 50 << 10  # beyond what the imports take


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
