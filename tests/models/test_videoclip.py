"""The model against the original's outputs, and on its own."""

import json

import numpy as np
import pytest
import torch

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.loading import load_videoclip
from mmpt_plugin.models.mmpt_checkpoint import from_mmpt
from mmpt_plugin.models.videoclip import VideoClipModel, frame_classifier

from .batches import without_padding

WITHOUT_SECOND_TOKEN = [0, *range(2, 64)]  # the original puts the video's [SEP] second in its captions


@pytest.fixture(scope="module")
def reference(golden):
    folder = golden / "model"
    arrays = np.load(folder / "inputs.npz")
    inputs = {
        "video_features": torch.tensor(arrays["vfeats"]),
        "video_mask": torch.tensor(arrays["vmasks"]),
        "text_ids": torch.tensor(arrays["caps"][:, WITHOUT_SECOND_TOKEN]),
        "text_mask": torch.tensor(arrays["cmasks"][:, WITHOUT_SECOND_TOKEN]),
    }
    model, _ = load_videoclip(folder / "checkpoint_best.pt", str(folder / "bert-tiny"))
    return folder, model, inputs, dict(np.load(folder / "outputs.npz"))


def real_rows(hidden: np.ndarray, mask: torch.Tensor, last: int) -> list[np.ndarray]:
    """Of the original's padded states, those of [CLS], the real tokens, and [SEP] at position `last`."""
    return [states[[0, *(np.flatnonzero(row) + 1), last]] for states, row in zip(hidden, mask.numpy())]


def test_embeddings_equal_the_originals(reference):
    _, model, inputs, outputs = reference
    embeddings = model(**without_padding(**inputs))
    np.testing.assert_allclose(embeddings["video_embeddings"].detach(), outputs["pooled_video"], atol=1e-5)
    np.testing.assert_allclose(embeddings["text_embeddings"].detach(), outputs["pooled_text"], atol=1e-5)


@pytest.mark.parametrize("attend_to_cls, key", [(True, "hidden_video"), (False, "hidden_video_dummy_caps")])
def test_video_states_equal_the_originals(reference, attend_to_cls, key):
    _, model, inputs, outputs = reference
    states = model.encode_video(
        inputs["video_features"], inputs["video_mask"], attend_to_cls=attend_to_cls, return_hidden_states=True
    ).detach()
    for ours, theirs in zip(states, real_rows(outputs[key], inputs["video_mask"], last=33)):
        np.testing.assert_allclose(ours[: len(theirs)], theirs, atol=1e-5)
        assert not ours[len(theirs) :].any()


def test_padded_states_equal_the_originals(reference):
    _, model, inputs, outputs = reference
    features, mask = inputs["video_features"], inputs["video_mask"]
    lengths, attended = np.full(len(mask), mask.shape[1]), mask.sum(1).numpy()
    states = model.video_encoder(features.flatten(0, 1), lengths, attended_lengths=attended)
    np.testing.assert_allclose(states.detach(), outputs["hidden_video"], atol=1e-5)


def test_text_states_equal_the_originals(reference):
    _, model, inputs, outputs = reference
    states = model.encode_text(inputs["text_ids"], inputs["text_mask"], return_hidden_states=True).detach()
    for ours, theirs, mask in zip(states, outputs["hidden_text"], inputs["text_mask"]):
        np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-5)
        assert not ours[~mask].any()


def test_fewer_frames_do_not_move_the_sep(reference):
    _, model, inputs, outputs = reference
    short = model.encode_video(inputs["video_features"][:, :10], inputs["video_mask"][:, :10])
    np.testing.assert_allclose(short.detach(), outputs["pooled_video_first10frames"], atol=1e-5)


def test_halved_checkpoint(reference, tmp_path):
    folder, _, inputs, _ = reference
    from mmpt_plugin.models.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(folder / "checkpoint_best.pt")
    model = {key: value.half() if value.is_floating_point() else value for key, value in checkpoint["model"].items()}
    torch.save({"model": model}, tmp_path / "half.pt")
    halved, _ = load_videoclip(tmp_path / "half.pt", str(folder / "bert-tiny"))
    expected = np.load(folder / "outputs_from_checkpoint_fp16.npz")
    embeddings = halved(**without_padding(**inputs))
    np.testing.assert_allclose(embeddings["video_embeddings"].detach(), expected["pooled_video"], atol=1e-5)
    np.testing.assert_allclose(embeddings["text_embeddings"].detach(), expected["pooled_text"], atol=1e-5)


def test_loss_and_gradients_equal_the_originals(reference):
    folder, model, inputs, _ = reference
    expected = json.loads((folder / "loss_and_gradients.json").read_text())
    model.zero_grad()
    output = model(**without_padding(**inputs))
    loss = symmetric_info_nce(output["video_embeddings"], output["text_embeddings"])
    assert loss.item() == pytest.approx(expected["losses"]["MMContraLoss"], rel=1e-5)
    loss.backward()
    total = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
    assert total.item() == pytest.approx(expected["grad_total_norm"], rel=1e-4)

    # the original's name of each of our parameters, found by renaming a dictionary that maps its names to themselves
    names = {key: key for key, norm in expected["grad_norm_per_parameter"].items() if norm is not None}
    video_words = "video_encoder.bert.embeddings.word_embeddings.weight"
    ours = from_mmpt({key: name for key, name in names.items() if key != video_words}, 101, 102)
    gradients = {key: p.grad for key, p in model.named_parameters()}
    for key, name in ours.items():
        norm = expected["grad_norm_per_parameter"][name]
        assert gradients[key].norm().item() == pytest.approx(norm, rel=1e-4, abs=1e-6), name
    full = np.load(folder / "gradients_full.npz")
    compared = 0
    for key, name in ours.items():
        if name in full and full[name].shape == tuple(gradients[key].shape):
            np.testing.assert_allclose(
                gradients[key], full[name], rtol=1e-3, atol=1e-5 * np.abs(full[name]).max(), err_msg=name
            )
            compared += 1
    assert compared > 0


def test_starts_from_the_berts_weights(golden):
    folder = golden / "model"
    model = VideoClipModel.from_backbone(VideoClipConfig(bert=str(folder / "bert-tiny")))
    source = torch.load(folder / "bert-tiny" / "pytorch_model.bin", weights_only=True)
    mapping = json.loads((folder / "init_from_bert_mapping.json").read_text())
    copied = {key: source[name].float() for key, name in mapping.items() if name in source}
    ours, own = from_mmpt(copied, 101, 102), model.state_dict()
    assert len(ours) > 200
    for key, value in ours.items():
        assert torch.equal(own[key], value), key
    assert {key for key in own if key not in ours} == {key for key in own if "feature_projection" in key}
    assert own["video_encoder.feature_projection.input.weight"].std().item() == pytest.approx(0.02, rel=0.05)


def test_garbage_behind_masks_changes_nothing(tiny_model):
    features, mask = torch.randn(3, 8, 512), torch.arange(8) < torch.tensor([[8], [3], [0]])
    clean = tiny_model.encode_video(features * mask[..., None], mask)
    assert torch.equal(tiny_model.encode_video(features.masked_fill(~mask[..., None], torch.nan), mask), clean)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 0, 1]], "has real positions behind padded ones"),
        ([[1, 1]], r"shape \(1, 2\) does not fit values of the shape \(1, 3"),
        ([1, 1, 1], r"shape \(3,\) does not fit"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tiny_model, mask, message):
    with pytest.raises(ValueError, match=f"video_mask .*{message}"):
        tiny_model.encode_video(torch.zeros(1, 3, 512), torch.tensor(mask))
    with pytest.raises(ValueError, match=f"text_mask .*{message}"):
        tiny_model.encode_text(torch.zeros(1, 3, dtype=torch.int64), torch.tensor(mask).bool())


def test_each_item_alone_equals_the_batch(tiny_model):
    features, lengths = torch.randn(4, 8, 512), torch.tensor([[8], [3], [1], [0]])
    mask = torch.arange(8) < lengths
    together = tiny_model.encode_video(features, mask)
    for i, length in enumerate(lengths[:, 0]):
        alone = tiny_model.encode_video(features[i : i + 1, : max(length, 1)], mask[i : i + 1, : max(length, 1)])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_too_long_inputs_are_refused(tiny_model):
    with pytest.raises(ValueError, match=r"33 seconds .* model\.max_video_seconds is 32"):
        tiny_model.encode_video(torch.zeros(1, 33, 512), torch.ones(1, 33, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"64 tokens .* model\.max_text_pieces"):
        tiny_model.encode_text(torch.zeros(1, 64, dtype=torch.int64), torch.ones(1, 64, dtype=torch.bool))


def test_logits_of_seconds_are_those_of_their_states(tiny_model):
    lengths, tokens = np.array([5, 0, 3, 8]), np.array([4, 7])
    features, text_ids = torch.randn(16, 512), torch.randint(5, 19, (11,))
    mask = torch.arange(8) < torch.tensor(lengths)[:, None]
    padded = torch.nn.utils.rnn.pad_sequence(features.split(lengths.tolist()), batch_first=True)
    states = tiny_model.encode_video(padded, mask, attend_to_cls=False, return_hidden_states=True)
    seconds = torch.cat([own[1 : length + 1] for own, length in zip(states, lengths)])
    texts = tiny_model.embed_texts(text_ids, tokens)
    torch.testing.assert_close(tiny_model.classify_frames(features, lengths, text_ids, tokens), seconds @ texts.T)
    tiny_model.frame_classifier = frame_classifier(tiny_model.video_encoder, 4)
    output = tiny_model(features, lengths, frames=True)
    torch.testing.assert_close(output["frame_logits"], tiny_model.frame_classifier(seconds))
