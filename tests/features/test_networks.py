"""Feature networks by name, against what they are made of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpt_plugin.features import networks
from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig, load_network, register_network, tensors_sha256
from mmpt_plugin.features.s3d import S3D, load_s3d

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def s3d_weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("s3d") / "s3d_howto100m.pth"
    torch.save(S3D().state_dict(), path)
    return path


def save_preprocessing(folder: Path, **settings) -> None:
    settings = {"size": {"height": 32, "width": 32}, "image_mean": MEAN, "image_std": STD, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory) -> Path:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("models") / "tiny-vit"
    torch.manual_seed(0)
    ViTModel(ViTConfig(**TINY)).save_pretrained(folder)
    save_preprocessing(folder)
    return folder


TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}


def pixel_values(frames: Tensor) -> Tensor:
    """Reference version: (frames, 3, H, W)."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((frames / 255 - mean) / std).permute(0, 3, 1, 2)


def test_s3d(s3d_weights, frames):
    network = load_network(NetworkConfig("s3d", s3d_weights))
    assert (network.name, network.feature_size, network.fixed_batch) == ("s3d", 512, False)
    model = load_s3d(s3d_weights)
    assert network.weights_sha256 == tensors_sha256(model)
    with torch.no_grad():
        plain = model(frames.permute(0, 4, 1, 2, 3) / 255)
    assert (network(frames) - plain).abs().max() < 3e-4 * plain.abs().max()
    assert network(frames).dtype == torch.float32
    assert not network(frames).requires_grad


def test_s3d_in_bfloat16(s3d_weights, frames):
    exact = load_network(NetworkConfig("s3d", s3d_weights))(frames)
    rounded = load_network(NetworkConfig("s3d", s3d_weights, precision="bf16"))(frames)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 1e-2 * exact.abs().max()


def test_transformers_model_is_applied_to_frames_and_averaged(vit_folder, frames):
    from transformers import ViTModel

    network = load_network(NetworkConfig(f"hf:{vit_folder}"))
    assert (network.name, network.feature_size) == ("hf:tiny-vit", 24)
    model = ViTModel.from_pretrained(vit_folder).eval()
    with torch.no_grad():
        expected = [
            torch.stack([model(pixel_values=pixel_values(frame[None])).pooler_output[0] for frame in second]).mean(
                dim=0
            )
            for second in frames
        ]
    torch.testing.assert_close(network(frames), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_transformers_model_without_trained_pooler_gives_the_mean_over_patches(tmp_path, frames):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    classifier = ViTForImageClassification(ViTConfig(**TINY)).eval()
    classifier.save_pretrained(tmp_path / "vit")
    save_preprocessing(tmp_path / "vit")
    first, second = (load_network(NetworkConfig(f"hf:{tmp_path / 'vit'}")) for _ in range(2))
    assert first.weights_sha256 == second.weights_sha256
    with torch.no_grad():
        states = classifier.vit(pixel_values=pixel_values(frames[0])).last_hidden_state
    torch.testing.assert_close(first(frames)[0], states.mean(dim=1).mean(dim=0), rtol=1e-4, atol=1e-5)


def test_clip_gives_its_projected_image_vectors(tmp_path, frames):
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 99,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=TINY, projection_dim=12)).eval()
    model.save_pretrained(tmp_path / "clip")
    save_preprocessing(
        tmp_path / "clip", do_center_crop=True, crop_size={"height": 32, "width": 32}, size={"shortest_edge": 40}
    )
    network = load_network(NetworkConfig(f"hf:{tmp_path / 'clip'}"))
    assert network.feature_size == 12
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=pixel_values(frames[1])).pooler_output
        expected = model.visual_projection(pooled).mean(dim=0)
    torch.testing.assert_close(network(frames)[1], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def vit_copy(vit_folder, tmp_path) -> Path:
    return shutil.copytree(vit_folder, tmp_path / "tiny-vit")


def test_processor_configuration_of_transformers_5(vit_copy, vit_folder, frames):
    settings = json.loads((vit_copy / "preprocessor_config.json").read_text())
    (vit_copy / "preprocessor_config.json").unlink()
    (vit_copy / "processor_config.json").write_text(json.dumps({"image_processor": settings, "tokenizer": {}}))
    network, same = (load_network(NetworkConfig(f"hf:{folder}")) for folder in (vit_copy, vit_folder))
    assert torch.equal(network(frames), same(frames))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no preprocessor_config.json and no processor_config.json"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "no settings"),
        ({"size": None}, "states no image size"),
        ({"size": 10**9}, "states no image size"),
        ({"size": 0}, "states no image size"),
        ({"image_mean": None}, "image_mean is None"),
        ({"image_mean": [0.5, 0.5]}, "image_mean"),
        ({"image_std": [0, 1, 1]}, "none may be 0"),
        ({"image_std": ["1", 1, 1]}, "image_std"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"rescale_factor": float("nan")}, "NaN is no number"),
    ],
)
def test_damaged_preprocessing_is_named(vit_copy, content, message):
    path = vit_copy / "preprocessor_config.json"
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        save_preprocessing(vit_copy, **content)
    with pytest.raises(ValueError, match=message) as caught:
        load_network(NetworkConfig(f"hf:{vit_copy}"))
    assert "tiny-vit" in str(caught.value)


def test_video_model_is_refused_by_name(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEModel

    tiny = {**TINY, "num_frames": 2, "tubelet_size": 1}
    VideoMAEModel(VideoMAEConfig(**tiny)).save_pretrained(tmp_path / "mae")
    save_preprocessing(tmp_path / "mae")
    with pytest.raises(ValueError, match=r"mae holds a video model \(videomae\)"):
        load_network(NetworkConfig(f"hf:{tmp_path / 'mae'}"))


def test_text_model_is_refused(tiny_bert):
    shutil.copytree(tiny_bert, folder := tiny_bert.parent / "bert-for-frames", dirs_exist_ok=True)
    save_preprocessing(folder)
    with pytest.raises(ValueError, match="BertModel does not take single pictures of 32 x 32"):
        load_network(NetworkConfig(f"hf:{folder}"))


def test_code_of_the_folder_is_not_run(vit_copy, monkeypatch):
    (vit_copy / "own.py").write_text("raise SystemExit('foreign code ran')\n")
    config = json.loads((vit_copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (vit_copy / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="tiny-vit"):
        load_network(NetworkConfig(f"hf:{vit_copy}"))


def test_frames_of_another_size_are_resized(vit_folder):
    network = load_network(NetworkConfig(f"hf:{vit_folder}"))
    gray = torch.full((1, 2, 224, 224, 3), 128, dtype=torch.uint8)
    torch.testing.assert_close(network(gray), network(gray[:, :, :32, :32]), rtol=1e-4, atol=1e-5)


def test_hash_depends_on_the_values_alone(vit_folder, s3d_weights):
    hashes = {load_network(NetworkConfig(f"hf:{vit_folder}")).weights_sha256 for _ in range(2)}
    assert len(hashes) == 1
    model = load_s3d(s3d_weights)
    before = tensors_sha256(model)
    with torch.no_grad():
        model.fc.bias[0] += 1e-3
    assert tensors_sha256(model) != before


def test_own_network_by_name(monkeypatch, frames):
    monkeypatch.setattr(networks, "NETWORKS", {})

    @register_network("colour")
    def load(argument: str, config: NetworkConfig) -> FeatureNetwork:
        return FeatureNetwork(
            f"colour:{argument}", "0", 3, lambda frames: frames.float().mean(dim=(1, 2, 3)) * float(argument)
        )

    network = load_network(NetworkConfig("colour:2"))
    torch.testing.assert_close(network(frames), 2 * frames.float().mean(dim=(1, 2, 3)))
    with pytest.raises(ValueError, match="registered already"):
        register_network("colour")(load)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (NetworkConfig("resnet"), "--network resnet: unknown"),
        (NetworkConfig("s3d"), "--checkpoint"),
        (NetworkConfig("s3d:x", Path("a.pth")), "--checkpoint"),
        (NetworkConfig("s3d", Path("a.pth"), precision="int8"), "--precision int8"),
        (NetworkConfig("hf:"), "names the model's folder"),
        (NetworkConfig("hf:x", Path("a.pth")), "takes no --checkpoint"),
    ],
)
def test_bad_settings(config, message):
    with pytest.raises(ValueError, match=message):
        load_network(config)


def test_s3d_file_is_named_by_the_network_or_lies_where_torch_keeps_its_files(tmp_path, s3d_weights, monkeypatch):
    by_name = load_network(NetworkConfig(f"s3d:{s3d_weights}"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(s3d_weights, tmp_path / "checkpoints" / "s3d_howto100m.pth")
    assert by_name.name == "s3d"
    assert load_network(NetworkConfig("s3d")).weights_sha256 == by_name.weights_sha256


def test_missing_weights_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.pth"):
        load_network(NetworkConfig("s3d", tmp_path / "a.pth"))
    with pytest.raises(ValueError, match="none"):
        load_network(NetworkConfig(f"hf:{tmp_path / 'none'}"))
