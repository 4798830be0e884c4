"""Some hundred seeded mutations of every kind of caption file: a clear error that names the file, or sound captions."""

import random
from pathlib import Path

import pytest

from mmpt_plugin.captions import Left, Tidying, read_captions, tidy

from ..mutations import mutations
from .caption_files import LINES, MANY_VIDEOS, ONE_VIDEO, write_all

MUTATIONS = 300


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ONE_VIDEO, *MANY_VIDEOS, "official.zip", "howto.pickle", "talk.srt.gz"])
def test_mutated_files(tmp_path: Path, name: str) -> None:
    kinds = ("plain", "gz", tmp_path.name)
    source = next(path for path in write_all(tmp_path) if path.name == name and path.parent.name in kinds)
    victim = tmp_path / "victim" / name
    victim.parent.mkdir()
    outcomes = {"same": 0, "other": 0, "refused": 0}
    for content in mutations(source.read_bytes(), MUTATIONS, random.Random(name)):
        victim.write_bytes(content)
        try:
            entries = list(read_captions(victim))
            captions = []
            for entry in entries:
                if isinstance(entry, Left):
                    assert str(victim) in entry.message
                    outcomes["refused"] += 1
                else:
                    captions += tidy(entry, Tidying())[0]
        except (ValueError, FileNotFoundError) as error:
            assert str(victim) in str(error) or "video " in str(error), error
            outcomes["refused"] += 1
            continue
        for start, end, text in captions:
            assert 0 <= start <= end < 1e9 and text == " ".join(text.split()) != ""
        outcomes["same" if [text for _, _, text in captions] == [text for _, _, text in LINES] else "other"] += 1
    assert outcomes["refused"] > MUTATIONS / 20, outcomes
