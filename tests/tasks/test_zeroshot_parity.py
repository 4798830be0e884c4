"""Every benchmark through fairseq with the original's checkpoint and files: its scores and its metrics."""

import json

import numpy as np
import pytest

from mmpt_plugin.evaluation.results import read_results

FILES = {  # benchmark: reference folder, its annotations, its features
    "youcook2": ("eval_youcook", "youcook", "feat_youcook_s3d"),
    "msrvtt": ("eval_msrvtt", "msrvtt/MSRVTT_JSFUSION_test.csv", "feat_vtt_s3d"),
    "msrvtt_qa": ("eval_msrvtt_qa", "msrvtt-qa/MSR_MC_test.csv", "feat_vtt_s3d"),
    "didemo_moment": ("eval_didemo", "didemo/test_data.json", "feat_didemo_s3d"),
    "coin": ("eval_coin", "coin/COIN.json", "feat_coin_s3d"),
    "crosstask": ("eval_crosstask", "crosstask/crosstask_release", "feat_crosstask_s3d"),
}


@pytest.fixture
def evaluate(golden, fairseq_train, tmp_path):
    def run(name: str, *overrides: str) -> tuple[dict, dict, dict, dict]:
        folder, annotations, features = FILES[name]
        data = golden / folder / "data"
        fairseq_train(
            f"zeroshot_{name}",
            f"task.data={data}",
            f"task.annotations={data / annotations}",
            f"task.features={data / 'feat' / features}",
            f"checkpoint.restore_file={golden / 'model' / 'checkpoint_best.pt'}",
            f"model.bert={golden / 'model' / 'bert-tiny'}",
            f"task.results_path={tmp_path}",
            "task.on_missing=skip",
            "dataset.num_workers=0",
            *overrides,
        )
        results = read_results(tmp_path / f"{name}.json")
        scores = dict(np.load(tmp_path / f"{name}_scores.npz"))
        expected = json.loads((golden / folder / "metrics.json").read_text())
        return results, scores, expected, dict(np.load(golden / folder / "golden.npz"))

    return run


@pytest.mark.parametrize("name", ["youcook2", "msrvtt"])
@pytest.mark.parametrize("batch_size", [128, 7])
def test_retrieval(evaluate, golden, name, batch_size):
    results, scores, expected, arrays = evaluate(name, f"task.batch_size={batch_size}")
    np.testing.assert_allclose(scores["similarities"], arrays["scores"], atol=1e-4)
    details = json.loads((golden / FILES[name][0] / "details.json").read_text())
    tie_free = details["tie_free_alternatives"]["pessimistic_rank = number of >= scores minus 1"]
    ties = len(arrays["rank_rows"]) - len(arrays["scores"])
    for ours, theirs in (("R@1", "R1"), ("R@5", "R5"), ("R@10", "R10")):
        assert results["metrics"][ours] == pytest.approx(tie_free[theirs], abs=1 / len(arrays["scores"]) + 1e-9)
        assert results["original"][ours] == pytest.approx(expected[theirs], abs=max(ties, 1) / len(arrays["scores"]))


def test_multiple_choice(evaluate):
    results, scores, expected, arrays = evaluate("msrvtt_qa")
    (similarities,) = (value for value in scores.values() if value.shape == arrays["scores"].shape)
    np.testing.assert_allclose(similarities, arrays["scores"], atol=1e-4)
    ambiguous = np.ceil(len(arrays["pred"]) / 10)  # questions with a duplicated option
    assert results["metrics"]["accuracy"] == pytest.approx(expected["acc"], abs=ambiguous / len(arrays["pred"]))


def test_moments(evaluate):
    results, scores, expected, arrays = evaluate("didemo_moment")
    (similarities,) = (value for value in scores.values() if value.shape == arrays["scores"].shape)
    np.testing.assert_allclose(similarities, arrays["scores"], atol=1e-4)
    for ours, theirs in (("R@1", "rank1"), ("R@5", "rank5"), ("mIoU", "miou")):
        assert results["metrics"][ours] == pytest.approx(expected[theirs], abs=1e-9)


def test_action_segmentation(evaluate):
    results, scores, expected, arrays = evaluate("coin")
    (logits,) = (value for value in scores.values() if value.shape == arrays["logits"].shape)
    np.testing.assert_allclose(logits, arrays["logits"], atol=1e-4)
    assert results["metrics"]["frame_accuracy"] == pytest.approx(expected["frame_acc"], abs=1e-9)


def test_step_localisation(evaluate):
    results, scores, expected, arrays = evaluate("crosstask", "task.split=original")
    sizes = scores["video_lengths"] * scores["video_steps"]
    for task, video, logits in zip(
        scores["tasks"], scores["video_ids"], np.split(scores["logits"], sizes.cumsum()[:-1])
    ):
        np.testing.assert_allclose(logits, arrays[f"{task}/{video}/logits"].ravel(), atol=1e-4)
    assert results["original"]["recall"] == pytest.approx(expected["recall"], abs=1e-9)
    for task, recall in results["original"]["recall_per_task"].items():
        assert recall == pytest.approx(expected[task], abs=1e-9)
