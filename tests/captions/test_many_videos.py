"""JSON of many videos as a stream."""

import io
import json
import math
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpt_plugin.captions import many_videos
from mmpt_plugin.captions.many_videos import read_raw_captions

times = st.lists(st.floats(0, 9, width=32) | st.integers(0, 9) | st.sampled_from([math.nan, math.inf, -math.inf]))
said = st.lists(st.text(st.sampled_from('ab"\\NaN,:[]{} \n\té'), max_size=8) | st.none() | st.just(math.nan))
raw = st.dictionaries(
    st.text(st.sampled_from('ab-_"\\'), max_size=5), st.fixed_dictionaries({"start": times, "end": times, "text": said})
)


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
            patch.setattr(many_videos, "BLOCK_BYTES", block)
            found = dict(read_raw_captions(io.BytesIO(text.encode()), "raw_caption.json"))
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
            list(read_raw_captions(io.BytesIO(text.encode()), "raw_caption.json"))

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
            "from mmpt_plugin.captions.many_videos import read_raw_captions\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            f"videos = sum(1 for _ in read_raw_captions(open({str(path)!r}, 'rb'), 'raw'))\n"
            "print(videos, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        videos, kibibytes = map(int, output.split())
        assert videos == 80_000
        assert kibibytes < 50 << 10  # beyond what the imports take
