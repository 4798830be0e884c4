"""One transformer for both modalities: against Hugging Face's padded computation, and in checkpoints once."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmpt_plugin import VideoClip
from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.loading import check_state_dict
from mmpt_plugin.models.videoclip import VideoClipModel

from .batches import without_padding

LENGTHS = torch.tensor([[8], [1], [5], [0], [3]])


def config_of(folder: Path, **settings: object) -> VideoClipConfig:
    return VideoClipConfig(**{"bert": str(folder), "shared_encoder": True, "video_layers": None, **settings})


@pytest.fixture
def model(tiny_bert: Path) -> VideoClipModel:
    """With weights large enough to tell tokens apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VideoClipModel.from_backbone(config_of(tiny_bert)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        "video_features": torch.randn(5, 8, 512, generator=rng),
        "video_mask": torch.arange(8) < LENGTHS,
        "text_ids": torch.randint(5, 19, (5, 10), generator=rng),
        "text_mask": torch.arange(10) < LENGTHS + 2,
    }


def test_it_starts_from_the_folders_weights_and_has_them_once(tiny_bert: Path) -> None:
    model, source = VideoClipModel.from_backbone(config_of(tiny_bert)), load_file(tiny_bert / "model.safetensors")
    assert model.video_encoder.transformer is model.text_encoder.transformer
    names = {f"text_encoder.transformer.{key}" for key in source}
    names |= {f"video_encoder.{key}" for key in model.video_encoder.state_dict()}
    assert set(model.state_dict()) == names
    assert all(key.startswith("feature_projection.") for key in model.video_encoder.state_dict())
    assert all(torch.equal(model.state_dict()[f"text_encoder.transformer.{key}"], source[key]) for key in source)
    assert len(list(model.parameters())) == len(model.state_dict()) == len({id(p) for p in model.parameters()})


def test_both_modalities_equal_the_padded_computation(model: VideoClipModel, inputs: dict[str, torch.Tensor]) -> None:
    padded = copy.deepcopy(model.text_encoder.transformer)
    padded.set_attn_implementation("eager")
    text_ids, text_mask = inputs["text_ids"], inputs["text_mask"]
    expected = padded(
        input_ids=text_ids, attention_mask=text_mask.long(), token_type_ids=torch.ones_like(text_ids)
    ).last_hidden_state
    states = model.encode_text(text_ids, text_mask, return_hidden_states=True)
    torch.testing.assert_close(states, expected * text_mask[..., None], rtol=0, atol=1e-4)

    words = padded.get_input_embeddings().weight
    for attend_to_cls in (True, False):
        states = model.encode_video(inputs["video_features"], inputs["video_mask"], attend_to_cls, True)
        for ours, features, length in zip(states, inputs["video_features"], LENGTHS[:, 0].tolist()):
            projected = model.video_encoder.feature_projection(features[:length])
            row = torch.cat([words[model.cls_id, None], projected, words[model.sep_id, None]])[None]
            mask = torch.ones(1, length + 2, dtype=torch.long)
            mask[0, 0] = attend_to_cls
            expected = padded(
                inputs_embeds=row,
                attention_mask=mask,
                position_ids=torch.tensor([[*range(length + 1), 33]]),
                token_type_ids=torch.zeros(1, length + 2, dtype=torch.long),
            ).last_hidden_state[0]
            torch.testing.assert_close(ours[: length + 2], expected, rtol=0, atol=1e-4)


def test_token_types_tell_the_modalities_apart(model: VideoClipModel, inputs: dict[str, torch.Tensor]) -> None:
    before = model(**without_padding(**inputs))
    types = model.text_encoder.transformer.embeddings.token_type_embeddings.weight
    for row, changed, kept in (
        (0, "video_embeddings", "text_embeddings"),
        (1, "text_embeddings", "video_embeddings"),
    ):
        with torch.no_grad():
            types[row] += torch.randn(types.shape[1])
        after = model(**without_padding(**inputs))
        assert torch.equal(after[kept], before[kept]) and not torch.allclose(after[changed], before[changed])
        before = after


def test_chunks_give_the_whole_batchs_gradients(model: VideoClipModel, inputs: dict[str, torch.Tensor]) -> None:
    gradients = []
    for model.chunk_pairs in (0, 2):
        model.zero_grad()
        output = model(**without_padding(**inputs))
        symmetric_info_nce(output["video_embeddings"], output["text_embeddings"]).backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    whole, chunked = gradients
    for name, gradient in whole.items():
        largest = max(gradient.abs().max().item(), 1.0)
        torch.testing.assert_close(chunked[name], gradient, rtol=0, atol=1e-5 * largest, msg=name)


def test_a_copy_shares_within_itself(model: VideoClipModel, inputs: dict[str, torch.Tensor]) -> None:
    """fairseq's EMA and half precision work on copies."""
    clone = copy.deepcopy(model)
    assert clone.video_encoder.transformer is clone.text_encoder.transformer is not model.text_encoder.transformer
    assert clone.bfloat16()(**without_padding(**inputs))["video_embeddings"].dtype == torch.bfloat16
    assert model(**without_padding(**inputs))["video_embeddings"].dtype == torch.float32


def test_a_checkpoint_holds_the_weights_once_and_loads(
    pretrain, tmp_path: Path, inputs: dict[str, torch.Tensor]
) -> None:
    pretrain(tmp_path, "optimization.max_update=2", "model.shared_encoder=true", "model.video_layers=null")
    content = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert not any(key.startswith("video_encoder.transformer") for key in content["model"])
    clip = VideoClip.from_pretrained(tmp_path / "checkpoint_last.pt")
    assert clip.model.video_encoder.transformer is clip.model.text_encoder.transformer
    assert all(torch.equal(value, content["model"][key]) for key, value in clip.model.state_dict().items())
    assert clip.encode_text(["add the onion"]).shape == (1, 32)


# --- what is refused ---


def test_towers_of_different_depth(tiny_bert: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model\.video_layers is 2 and '.*' has 3 layers: set model\.video_layers=null"
    ):
        VideoClipModel.from_config(config_of(tiny_bert, video_layers=2))
    VideoClipModel.from_config(config_of(tiny_bert, video_layers=3))


def test_a_bert_with_one_token_type(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"type_vocab_size": 1}))
    with pytest.raises(ValueError, match=r"a token type for video and one for text; '.*' .* with 1 token types"):
        VideoClipModel.from_config(config_of(folder))


def test_a_checkpoint_of_two_towers(model: VideoClipModel, tiny_model: VideoClipModel, tiny_checkpoint: Path) -> None:
    weights = read_checkpoint(tiny_checkpoint)["model"]
    with pytest.raises(ValueError, match=r"unknown: video_encoder\.transformer\..* Check .*model\.shared_encoder"):
        check_state_dict(model, weights, "two.pt")
    with pytest.raises(ValueError, match=r"missing: video_encoder\.transformer\..* Check .*model\.shared_encoder"):
        check_state_dict(tiny_model, model.state_dict(), "one.pt")


def test_a_checkpoint_of_another_width(model: VideoClipModel) -> None:
    weights = model.state_dict()
    weights["video_encoder.feature_projection.output.weight"] = torch.zeros(48, 48)
    with pytest.raises(ValueError, match=r"of another shape: .*output\.weight \(48, 48\) instead of \(32, 32\)"):
        check_state_dict(model, weights, "wide.pt")
