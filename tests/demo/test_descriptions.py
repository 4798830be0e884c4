"""What benchmarks say about their scores fits the scores, so that a page can be made from the saved arrays alone."""

import numpy as np
import pytest

from mmpt_plugin.evaluation.benchmarks import BENCHMARKS

QUERIES = {"youcook2", "msrvtt", "msrvtt_qa", "didemo_moment", "didemo_retrieval"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_descriptions_fit_the_scores(tiny_corpus, name):
    benchmark = BENCHMARKS[name](tiny_corpus, feature_size=512)
    with np.load(tiny_corpus / benchmark.folder / f"best_possible_{name}.npz") as latent:
        scores = dict(latent)
    described = benchmark.describe()
    assert not described.keys() & scores.keys() and not any(array.dtype.hasobject for array in described.values())
    if name in QUERIES:
        first = scores.get("similarities", scores.get("scores"))
        assert len(described["video_ids"]) == len(first)
    match name:
        case "msrvtt_qa":
            options = described["options"].reshape(scores["scores"].shape)
            right = described["texts"][options[0, described["answers"][0]]]
            assert right == benchmark.questions[0].options[benchmark.questions[0].answer]
        case "didemo_moment":
            moments = [tuple(moment) for moment in described["moments"][0] if moment[0] >= 0]
            assert moments == list(benchmark.queries[0].moments)
            assert described["prior"].shape == (21,)
        case "coin":
            assert len(described["targets"]) == len(scores["logits"])
            assert len(described["labels"]) == len(described["class_label_ids"]) == scores["logits"].shape[1]
        case "crosstask":
            assert described["truths"].shape == scores["logits"].shape
            assert len(described["step_texts"]) == scores["video_steps"].sum()
            assert len(described["task_titles"]) == len(scores["video_ids"])
        case _:
            assert described["spans"].shape == (len(first), 2)
            assert list(described["texts"]) == list(benchmark.sentences)
