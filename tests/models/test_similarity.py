"""One way of comparing embeddings, which is the model's: unit vectors, a learned scale, and whoever reads them."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.criterions.contrastive import DirectedContrastiveCriterion, VideoTextContrastiveCriterion, info_nce
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.checkpoint import check_same_similarity
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.loading import check_state_dict
from mmpt_plugin.models.similarity import similarity, similarity_to_own, unit_rows
from mmpt_plugin.models.text_backbone import load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel

from ..together import criterion_of

PACKAGE = Path(__file__).resolve().parents[2] / "mmpt_plugin"
PRODUCTS_OF_OTHER_THINGS = {  # file -> why a matrix product there compares no texts with videos
    "models/similarity.py": "the one place",
    "models/packing.py": "attention",
    "models/pooling.py": "means over parts of clips",
    "criterions/false_negatives.py": "words that texts share",
    "evaluation/bootstrap.py": "sums over drawn videos",
    "evaluation/benchmarks/didemo.py": "means over the seconds of moments",
    "report/shares.py": "sums over drawn videos",
    "retrieval/clusters.py": "distances of videos",
    "search/grid_network.py": "a feature network",
    "search/library.py": "copies among videos",
    "search/vectors.py": "neighbours among videos",
}


@pytest.fixture
def normalised(tiny_bert: Path, tiny_model: VideoClipModel) -> VideoClipModel:
    """The tiny model's weights, with unit vectors, a learned scale and a learned bias."""
    cfg = VideoClipConfig(bert=str(tiny_bert), video_layers=2, normalize=True, logit_scale=True, logit_bias=-10.0)
    model = VideoClipModel.from_config(cfg).eval()
    assert set(model.state_dict()) - set(tiny_model.state_dict()) == {"logit_scale", "logit_bias"}
    model.load_state_dict(tiny_model.state_dict(), strict=False)
    return model


def inputs() -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "video_features": torch.randn(9, 512, generator=generator),
        "video_lengths": np.array([4, 5]),
        "text_ids": torch.tensor([2, 7, 3, 2, 6, 8, 3]),
        "text_lengths": np.array([3, 4]),
    }


def test_embeddings_are_compared_in_one_place_alone() -> None:
    with_products = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(isinstance(node, ast.MatMult) for node in ast.walk(ast.parse(path.read_text())))
    }
    assert with_products == PRODUCTS_OF_OTHER_THINGS.keys()


def test_similarities_by_hand() -> None:
    queries, candidates = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0, 1.0], [0.0, -1.0], [1.0, 1.0]])
    expected = [[5.0, -2.0, 3.0], [1.0, -1.0, 1.0]]
    np.testing.assert_array_equal(similarity(queries, candidates), expected)
    np.testing.assert_array_equal(similarity(queries, candidates[0]), [5.0, 1.0])
    assert similarity(torch.tensor(queries), torch.tensor(candidates)).tolist() == expected
    own = np.stack([candidates, candidates[::-1]])
    np.testing.assert_array_equal(similarity_to_own(queries, own), [expected[0], expected[1][::-1]])
    np.testing.assert_array_equal(unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0.0, 0.0]])


def test_off_by_default_to_the_last_bit(tiny_model: VideoClipModel) -> None:
    batch = inputs()
    output = tiny_model(**batch)
    hidden = tiny_model.video_encoder(batch["video_features"], batch["video_lengths"])
    assert torch.equal(output["video_embeddings"], tiny_model.pool(hidden, batch["video_lengths"] + 2))
    assert output.keys() == {"video_embeddings", "text_embeddings"}
    assert not {"logit_scale", "logit_bias"} & set(tiny_model.state_dict())


def test_a_normalised_model_gives_unit_vectors(tiny_model: VideoClipModel, normalised: VideoClipModel) -> None:
    batch = inputs()
    plain, ours = tiny_model(**batch), normalised(**batch)
    for side in ("video_embeddings", "text_embeddings"):
        torch.testing.assert_close(ours[side], plain[side] / plain[side].norm(dim=1, keepdim=True))
        assert plain[side].norm(dim=1).min() > 1.5  # so that it made a difference
    seconds = normalised.encode_seconds(batch["video_features"], batch["video_lengths"])
    torch.testing.assert_close(seconds.norm(dim=1), torch.ones(9))
    mask = torch.ones(1, 4, dtype=torch.bool)
    padded = normalised.encode_video(batch["video_features"][None, :4], mask)
    torch.testing.assert_close(padded[0], ours["video_embeddings"][0])
    hidden = normalised.half().embed_texts(batch["text_ids"], batch["text_lengths"])
    assert hidden.dtype == torch.float32  # lengths are exact whatever the model's precision


def test_scale_and_bias_start_end_and_are_learned_as_clips_and_siglips(normalised: VideoClipModel) -> None:
    output = normalised(**inputs())
    assert output["logit_scale"].item() == pytest.approx(1 / 0.07)
    assert output["logit_bias"].item() == -10
    with torch.no_grad():
        normalised.logit_scale.fill_(7.0)
    scale = normalised(**inputs())["logit_scale"]
    assert scale.item() == pytest.approx(100)
    scale.backward()
    assert normalised.logit_scale.grad.item() == pytest.approx(100)  # at the ceiling it can still be taken back


def test_logits_of_seconds_are_scaled_cosines(normalised: VideoClipModel) -> None:
    batch = inputs()
    logits = normalised.classify_frames(**batch)
    seconds = normalised.encode_seconds(batch["video_features"], batch["video_lengths"], attend_to_cls=False)
    texts = normalised.embed_texts(batch["text_ids"], batch["text_lengths"])
    torch.testing.assert_close(logits, seconds @ texts.T / 0.07 - 10)


def test_a_frame_classifier_sees_states_as_they_are(tiny_bert: Path) -> None:
    batch, logits = inputs(), []
    for normalize in (False, True):
        torch.manual_seed(0)
        cfg = VideoClipConfig(bert=str(tiny_bert), video_layers=2, normalize=normalize, frame_labels=[3, 4])
        model = VideoClipModel.from_config(cfg).eval()
        logits.append(model.classify_frames(batch["video_features"], batch["video_lengths"]))
    assert torch.equal(*logits)


class Fixed(torch.nn.Module):
    """A model of given embeddings with a learned scale."""

    def __init__(self, video: torch.Tensor, text: torch.Tensor, log_scale: float) -> None:
        super().__init__()
        self.video, self.text = video, text
        self.logit_scale = torch.nn.Parameter(torch.tensor(log_scale, dtype=torch.float64))

    def forward(self) -> dict[str, torch.Tensor]:
        return {"video_embeddings": self.video, "text_embeddings": self.text, "logit_scale": self.logit_scale.exp()}


@pytest.mark.parametrize("kind", [VideoTextContrastiveCriterion, DirectedContrastiveCriterion])
def test_the_scale_is_an_inverse_temperature_and_learns(kind: type) -> None:
    video, text = torch.nn.functional.normalize(torch.randn(2, 5, 3), dim=2)
    direction = {"direction": "text_to_video"} if kind is DirectedContrastiveCriterion else {}
    criterion = criterion_of(kind, **direction)
    sample = {"net_input": {}, "nsentences": 5, "ntokens": 9}

    def loss_at(log_scale: float) -> torch.Tensor:
        return criterion(Fixed(video, text, log_scale), sample)[0]

    own = torch.arange(5)
    expected = info_nce(text, video, own, 1 / 14)
    if kind is VideoTextContrastiveCriterion:
        expected = expected + info_nce(video, text, own, 1 / 14)
    torch.testing.assert_close(loss_at(math.log(14)), expected)
    model = Fixed(video, text, math.log(14))
    criterion(model, sample)[0].backward()
    slope = (loss_at(math.log(14) + 0.01) - loss_at(math.log(14) - 0.01)) / 0.02
    assert model.logit_scale.grad.item() == pytest.approx(slope.item(), rel=1e-2)


def test_settings_that_exclude_one_another(normalised: VideoClipModel, caplog: pytest.LogCaptureFixture) -> None:
    fixed = criterion_of(temperature=0.07)
    with pytest.raises(ValueError, match=r"model\.logit_scale learns what criterion\.temperature=0\.07 would fix"):
        fixed.check_model(normalised)
    criterion = criterion_of()
    with pytest.raises(ValueError, match=r"model\.logit_bias is read by criterion sigmoid alone"):
        criterion.check_model(normalised)
    normalised.logit_bias = None
    criterion.check_model(normalised)
    assert not caplog.messages
    normalised.logit_scale = None
    criterion.check_model(normalised)
    assert "set model.logit_scale=true, or a temperature of about 0.07" in caplog.text
    with pytest.raises(ValueError, match=r"model\.logit_bias is nan: it must be finite"):
        VideoClipConfig.of({"bert": "x", "logit_bias": math.nan}, "config.json")


def test_a_checkpoint_goes_on_with_the_similarity_it_was_trained_for() -> None:
    def checkpoint(**settings: object) -> dict:
        return {"cfg": {"model": {"_name": "videoclip", **settings}}}

    paper, modern = VideoClipConfig(), VideoClipConfig(normalize=True, logit_scale=True)
    check_same_similarity(checkpoint(), paper, "a.pt")  # from before there were such settings
    check_same_similarity({"args": None}, paper, "mmpt.pt")
    check_same_similarity(checkpoint(normalize=True, logit_scale=True), modern, "a.pt")
    check_same_similarity(checkpoint(), modern, "a.pt", may_begin=True)
    with pytest.raises(ValueError, match=r"a\.pt was trained without model\.normalize, and this run has it set"):
        check_same_similarity(checkpoint(), modern, "a.pt")
    for may_begin in (False, True):
        with pytest.raises(ValueError, match=r"a\.pt was trained with model\.normalize, and this run has it not set"):
            check_same_similarity(checkpoint(normalize=True), paper, "a.pt", may_begin=may_begin)
    with pytest.raises(ValueError, match=r"a\.pt was trained with model\.logit_bias"):
        check_same_similarity(checkpoint(normalize=True, logit_scale=True, logit_bias=-10.0), modern, "a.pt")


def test_weights_of_another_similarity_are_refused_by_name(
    tiny_model: VideoClipModel, normalised: VideoClipModel
) -> None:
    with pytest.raises(
        ValueError, match=r"2 unknown: logit_bias, logit_scale.*model\.logit_scale and model\.logit_bias"
    ):
        check_state_dict(tiny_model, normalised.state_dict(), "a.pt")
    with pytest.raises(
        ValueError, match=r"2 missing: logit_bias, logit_scale.*model\.logit_scale and model\.logit_bias"
    ):
        check_state_dict(normalised, tiny_model.state_dict(), "a.pt")


def test_inference_gives_what_the_model_compares(tiny_bert: Path, normalised: VideoClipModel) -> None:
    clip = VideoClip(normalised, load_tokenizer(str(tiny_bert)))
    rng = np.random.default_rng(0)
    for embeddings in (
        clip.encode_text(["add the onions", "stir"]),
        clip.encode_video(features=[rng.standard_normal((70, 512)), rng.standard_normal((3, 512))]),
    ):
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(2))
