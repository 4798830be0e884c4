"""MSR-VTT multiple choice: its reader on malformed files, its benchmark on the original's recorded scores."""

import json

import numpy as np
import pytest

from mmpt_plugin.data.windows import Window
from mmpt_plugin.evaluation.benchmark import Encodings
from mmpt_plugin.evaluation.benchmarks.msrvtt_qa import MsrvttQa, MultipleChoiceQuestion, read_msrvtt_qa

HEADER = "\tkey\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"


def write(tmp_path, content):
    path = tmp_path / "MSR_MC_test.csv"
    path.write_text(content)
    return path


def test_questions_are_read_as_text(tmp_path):
    path = write(tmp_path, HEADER + "0\tmc0\tmsr7\tNA\tnull\tnan\tNone\tx, y\t4\n")
    assert read_msrvtt_qa(path) == [MultipleChoiceQuestion("video7", ("NA", "null", "nan", "None", "x, y"), 4)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEADER.replace("\t", ",") + "0,mc0,msr7,a,b,c,d,e,0\n", "looks comma separated, not tab"),
        ("key\tvid_key\ta1\ta2\ta3\ta4\tanswer\nk\tm\ta\tb\tc\td\t0\n", r"\['a5'\] are missing"),
        (HEADER + "0\tmc0\tmsr7\ta\tb\tc\td\te\t5\n", r"line 2: answer '5' is none of 0\.\.4"),
        (HEADER + "0\tmc0\tmsr7\ta\tb\tc\td\te\t-1\n", "none of"),
        (HEADER + "0\tmc0\tmsr7\ta\tb\tc\td\te\t\n", "answer ''"),
        (HEADER + "0\tmc0\tmsr7\ta\tb\tc\td\te\ta1\n", "none of"),
        (HEADER + "0\tmc0\tmsr7\ta\tb\t\td\te\t0\n", "empty vid_key or option"),
        (HEADER + "0\tmc0\tmsr7\ta\tb\tc\td\te\n", "8 cells"),
        ("key,vid_key,video_id,sentence\nret0,msr0,video0,a\n", "are missing"),
    ],
)
def test_malformed_files_are_refused(tmp_path, content, words):
    with pytest.raises(ValueError, match=words) as error:
        read_msrvtt_qa(write(tmp_path, content))
    assert "the official MSR_MC_test.csv" in str(error.value)


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / "msrvtt"
    (folder / "features").mkdir(parents=True)
    write(
        folder,
        HEADER
        + "0\tk\tmsr1\ta\tb\tc\td\te\t1\n"
        + "1\tk\tmsr2\ta\ta\tc\td\te\t1\n"  # the right sentence is offered twice
        + "2\tk\tmsr1\tb\tb\tc\td\tf\t4\n",  # a wrong one is
    )
    for video, seconds in (("video1", 40), ("video2", 5)):
        np.save(folder / "features" / f"{video}.npy", np.zeros((seconds, 4), np.float16))
    return MsrvttQa(tmp_path, feature_size=4)


def test_each_option_and_video_is_encoded_once(benchmark):
    plan = benchmark.plan()
    assert plan.texts == ["a", "b", "c", "d", "e", "f"]
    assert plan.windows == [Window("video1", 0, 32), Window("video2", 0, 5)]


def test_scores_are_products_and_equal_texts_tie(benchmark):
    rng = np.random.default_rng(0)
    text, video = rng.normal(size=(6, 16)).astype(np.float32), rng.normal(size=(2, 16)).astype(np.float32)
    scores = benchmark.score(Encodings(text, video))["scores"]
    options = [[0, 1, 2, 3, 4], [0, 0, 2, 3, 4], [1, 1, 2, 3, 5]]
    for question, video_row in enumerate([0, 1, 0]):
        np.testing.assert_allclose(scores[question], text[options[question]] @ video[video_row], atol=1e-5)
    assert scores[1, 0] == scores[1, 1] and scores[2, 0] == scores[2, 1]


def test_evaluation_by_hand(benchmark):
    scores = np.array([[0, 2, 1, 1, 1], [3, 3, 1, 1, 1], [1, 1, 0, 0, 1]])
    evaluation = benchmark.evaluate({"scores": scores})
    # right; right (both best options are the right sentence); wrong (ties with another text)
    assert evaluation.metrics == {"accuracy": 2 / 3}
    # the original takes the first of equals: only question 0 is right
    assert evaluation.original == {"accuracy": 1 / 3}
    # one, two and one of five options hold the right sentence
    assert evaluation.baselines["chance"]["accuracy"] == pytest.approx(4 / 15)
    assert evaluation.queries == 3
    # video1 has the questions 0 and 2, one of them right; video2 question 1, right
    assert evaluation.sums.videos.tolist() == ["video1", "video2"]
    assert evaluation.sums.metrics(np.array([1, 0])) == {"accuracy": 0.5}
    assert evaluation.intervals == {"accuracy": (0.5, 1.0)}


def test_a_constant_model_gets_nothing(benchmark):
    assert benchmark.evaluate({"scores": np.zeros((3, 5))}).metrics == {"accuracy": 0.0}


@pytest.mark.parametrize(
    "scores", [np.zeros((3, 4)), np.zeros((2, 5)), np.full((3, 5), np.nan), np.full((3, 5), np.inf)]
)
def test_scores_that_do_not_fit_are_refused(benchmark, scores):
    with pytest.raises(ValueError, match="scores"):
        benchmark.evaluate({"scores": scores})


def test_the_recorded_scores_give_the_recorded_accuracy(golden_part):
    folder = golden_part / "eval_msrvtt_qa"
    benchmark = MsrvttQa(
        folder,
        annotations=folder / "data" / "msrvtt-qa" / "MSR_MC_test.csv",
        features=folder / "data" / "feat" / "feat_vtt_s3d",
    )
    with np.load(folder / "golden.npz") as arrays:
        scores, answer = arrays["scores"], arrays["answer"]
    assert [question.answer for question in benchmark.questions] == answer[:, 0].tolist()
    evaluation = benchmark.evaluate({"scores": scores})
    recorded = json.loads((folder / "metrics.json").read_text())["acc"]
    assert evaluation.original["accuracy"] == pytest.approx(recorded, abs=1e-12)
    doubled = sum(len(set(question.options)) < 5 for question in benchmark.questions)
    assert evaluation.metrics["accuracy"] == pytest.approx(recorded, abs=doubled / len(scores))
