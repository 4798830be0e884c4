"""MSR-VTT: its reader on malformed files, its benchmark on the original's recorded scores."""

import json

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.msrvtt import Msrvtt, MsrvttQuery, read_msrvtt

HEADER = "key,vid_key,video_id,sentence\n"


def write(tmp_path, content):
    path = tmp_path / "MSRVTT_JSFUSION_test.csv"
    path.write_text(content)
    return path


def test_words_that_look_like_gaps_are_text(tmp_path):
    words = ["NA", "null", "None", "nan", 'a "knife", cooking']
    rows = [f'ret{i},msr{i},-v_{i}_,"{word.replace(chr(34), chr(34) * 2)}"\n' for i, word in enumerate(words)]
    assert read_msrvtt(write(tmp_path, HEADER + "".join(rows))) == [
        MsrvttQuery(f"-v_{i}_", word) for i, word in enumerate(words)
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER.replace(",", "\t") + "ret0\tmsr0\tvideo0\ta b\n", "looks tab separated"),
        ("\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n0\tm\tm\ta\tb\tc\td\te\t0\n", "are missing"),
        ("key,vid_key,video_id\nret0,msr0,video0\n", r"\['sentence'\] are missing"),
        (HEADER + "ret0,msr0,video0,\n", "line 2 has an empty video_id or sentence"),
        (HEADER + "ret0,msr0,,a\n", "empty video_id"),
        (HEADER + "ret0,msr0,video0,a,b\n", "5 cells"),
        (HEADER + 'ret0,msr0,video0,"open\nret1,msr1,video1,b\n', "line 3"),
        ('{"database": {}}', "are missing, the header has"),
        (HEADER, "no rows"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, words):
    with pytest.raises(ValueError, match=words) as error:
        read_msrvtt(write(tmp_path, content))
    assert "the official MSRVTT_JSFUSION_test.csv" in str(error.value)


def test_queries_without_features_are_counted(tmp_path):
    folder = tmp_path / "msrvtt"
    (folder / "features").mkdir(parents=True)
    write(folder, HEADER + "r0,m0,a,x\nr1,m1,gone,y\nr2,m2,b,x\nr3,m3,gone,z\n")
    for video, seconds in (("a", 40), ("b", 0)):
        np.save(folder / "features" / f"{video}.npy", np.zeros((seconds, 4), np.float16))
    with pytest.raises(FileNotFoundError, match=r"1 of 3 videos.*gone"):
        Msrvtt(tmp_path, feature_size=4)
    benchmark = Msrvtt(tmp_path, on_missing="skip", feature_size=4)
    assert (benchmark.found, benchmark.missing) == (2, ["gone"])
    assert benchmark.plan().texts == ["x"]
    assert benchmark.plan().windows == [Window("a", 0, 32), Window("b", 0, 0)]


def test_the_recorded_embeddings_give_the_recorded_numbers(golden_part):
    folder = golden_part / "eval_msrvtt"
    benchmark = Msrvtt(
        folder,
        annotations=folder / "data" / "msrvtt" / "MSRVTT_JSFUSION_test.csv",
        features=folder / "data" / "feat" / "feat_vtt_s3d",
    )
    with np.load(folder / "golden.npz") as arrays:
        text, video, recorded = arrays["pooled_text"], arrays["pooled_video"], arrays["scores"]
    plan = benchmark.plan()
    texts = [benchmark.sentences.index(sentence) for sentence in plan.texts]
    windows = [benchmark.windows.index(window) for window in plan.windows]
    scores = benchmark.score(Encodings(text[texts], video[windows]))
    np.testing.assert_allclose(scores["similarities"], recorded, atol=1e-4, rtol=0)
    expected = json.loads((folder / "metrics.json").read_text())
    evaluation, on_recorded = benchmark.evaluate(scores), benchmark.evaluate({"similarities": recorded})
    for ours, theirs in (("R@1", "R1"), ("R@5", "R5"), ("R@10", "R10"), ("median_rank", "MR")):
        assert on_recorded.original[ours] == pytest.approx(expected[theirs], abs=1e-12)
        # two sentences share one video: the original found one of the two ties bit-equal, we find both
        assert evaluation.original[ours] == pytest.approx(expected[theirs], abs=2 / 60)
        assert evaluation.metrics[ours] == pytest.approx(on_recorded.metrics[ours], abs=2 / 60)
    assert evaluation.queries == benchmark.found == 60
