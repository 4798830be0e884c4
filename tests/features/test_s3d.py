"""S3D: parity with reference data made by running the original, and the fast versions against the plain one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmpt_plugin.features.s3d import (
    S3D,
    SlicedMaxPool3d,
    TemporalConv,
    ZeroPaddedMaxPool3d,
    load_s3d,
    optimize_for_inference,
    space_to_depth,
)

CASES = ("a", "b", "c")


@pytest.fixture(scope="module")
def reference_state(golden: Path) -> dict[str, Tensor]:
    arrays = np.load(golden / "s3d" / "state_dict_fp16.npz")
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


@pytest.fixture(scope="module")
def reference_model(reference_state: dict[str, Tensor]) -> S3D:
    model = S3D()
    model.load_state_dict(reference_state)
    return model.eval()


@pytest.fixture(scope="module")
def videos(golden: Path) -> dict[str, Tensor]:
    arrays = np.load(golden / "s3d" / "inputs_uint8.npz")
    return {case: torch.from_numpy(arrays[f"video_{case}"]).float() / 255 for case in CASES}


@pytest.fixture(scope="module")
def outputs(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "s3d" / "outputs.npz"))


def random_model() -> S3D:
    """Weights that keep the activations' size, as training does."""
    torch.manual_seed(0)
    model = S3D().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    nn.init.zeros_(model.fc.bias)
    return model


def largest_difference(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray) -> float:
    """Relative to the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_parity_with_the_original(case, reference_model, videos, outputs):
    pooled = reference_model.pooled(videos[case])
    embedding = reference_model(videos[case])
    assert largest_difference(pooled, outputs[f"mixed_5c_{case}"]) < 3e-4
    assert largest_difference(embedding, outputs[f"video_embedding_{case}"]) < 3e-4
    stored = F.normalize(embedding, dim=1).half().numpy()
    np.testing.assert_allclose(stored, outputs[f"feature_l2norm_fp16_{case}"], rtol=0, atol=5e-4)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_folded_network_agrees(case, reference_model, videos, outputs):
    before = {name: value.clone() for name, value in reference_model.state_dict().items()}
    fast = optimize_for_inference(reference_model)
    assert largest_difference(fast(videos[case]), outputs[f"video_embedding_{case}"]) < 3e-4
    assert not any(isinstance(module, nn.BatchNorm3d) for module in fast.modules())
    assert all(torch.equal(value, before[name]) for name, value in reference_model.state_dict().items())


@torch.no_grad()
def test_bfloat16_network_agrees_within_its_precision():
    # On well-conditioned weights. Those of the reference data are not: rounding nothing but the first layer's output to
    # bfloat16 already moves their embeddings by 4 to 10 % (see test_reference_weights_amplify_rounding).
    model = random_model()
    video = torch.rand(2, 3, 30, 64, 64, generator=torch.Generator().manual_seed(0))
    fast = optimize_for_inference(model, torch.bfloat16)
    assert largest_difference(fast(video.bfloat16()).float(), model(video)) < 1e-2


@torch.no_grad()
def test_reference_weights_amplify_rounding(reference_model, videos, outputs):
    handle = reference_model.conv1.register_forward_hook(lambda module, inputs, output: output.bfloat16().float())
    try:
        assert largest_difference(reference_model(videos["a"]), outputs["video_embedding_a"]) > 1e-2
    finally:
        handle.remove()


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-4), (torch.bfloat16, 1e-2)])
def test_compiled_network_agrees(dtype, tolerance):
    model = random_model()
    video = torch.rand(1, 3, 30, 64, 64, generator=torch.Generator().manual_seed(0))
    fast = optimize_for_inference(model, dtype, compiled=True)
    assert largest_difference(fast(video.to(dtype)).float(), model(video)) < tolerance


def test_parameters_are_those_of_the_public_file(golden):
    public = json.loads((golden / "s3d" / "state_dict_keys_shapes.json").read_text())
    video_half = {name: shape for name, (shape, _) in public.items() if not name.startswith("text_module.")}
    assert {name: list(value.shape) for name, value in S3D().state_dict().items()} == video_half


def test_text_half_is_passed_over_and_everything_else_is_strict():
    state = S3D().state_dict()
    model = S3D()
    model.load_state_dict({**state, "text_module.fc1.bias": torch.zeros(2048)})
    with pytest.raises(RuntimeError, match="fc2"):
        model.load_state_dict({**state, "fc2.bias": torch.zeros(2)})
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        model.load_state_dict({name: value for name, value in state.items() if name != "fc.bias"})


def test_load_s3d(tmp_path):
    state = random_model().state_dict()
    torch.save({**state, "text_module.fc1.bias": torch.zeros(2048)}, tmp_path / "s3d.pth")
    model = load_s3d(tmp_path / "s3d.pth")
    assert not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", [lambda state: {"state_dict": state, "epoch": 3}, lambda state: state])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_load_s3d_unwraps(tmp_path, wrap, prefix):
    state = random_model().state_dict()
    torch.save(wrap({f"{prefix}{name}": value for name, value in state.items()}), tmp_path / "s3d.pth")
    assert all(torch.equal(value, state[name]) for name, value in load_s3d(tmp_path / "s3d.pth").state_dict().items())


def test_load_s3d_refuses_damaged_weights_in_few_words(tmp_path):
    state = random_model().state_dict()
    path = tmp_path / "s3d.pth"
    for broken, message in (
        ({**state, "fc.bias": torch.full((512,), torch.nan)}, r"fc\.bias holds NaN"),
        ({**state, "fc.bias": torch.zeros(511)}, r"1 of another shape \(such as fc\.bias \(511,\) for \(512,\)\)"),
        ({f"x.{name}": value for name, value in state.items()}, r"\d+ missing \(such as conv1.*; \d+ unknown"),
        ({**state, "fc.bias": 3}, "1 missing"),
    ):
        torch.save(broken, path)
        with pytest.raises(ValueError, match=message) as caught:
            load_s3d(path)
        assert "s3d.pth" in str(caught.value)
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("content", ["text", "list", "other network"])
def test_load_s3d_refuses_other_files(tmp_path, content):
    path = tmp_path / "s3d.pth"
    if content == "text":
        path.write_text("not found")
    elif content == "list":
        torch.save([torch.zeros(1)], path)
    else:
        torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ValueError, match=r"s3d\.pth"):
        load_s3d(path)


def test_load_s3d_says_where_the_weights_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="https://"):
        load_s3d(tmp_path / "s3d.pth")


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 3, 15, 64, 64), (1, 3, 16, 65, 64), (1, 1, 16, 64, 64), (3, 16, 64, 64)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="even T, H and W"):
        S3D()(torch.zeros(shape))


@torch.no_grad()
def test_smallest_input():
    assert S3D().eval()(torch.rand(1, 3, 2, 32, 32)).shape == (1, 512)


def test_optimizing_needs_evaluation_mode():
    with pytest.raises(ValueError, match="eval"):
        optimize_for_inference(S3D().train())


def test_space_to_depth_puts_every_pixel_where_the_weights_expect_it():
    video = torch.rand(2, 3, 4, 6, 8)
    folded = space_to_depth(video)
    assert folded.shape == (2, 24, 2, 3, 4)
    for c, t, h, w in np.ndindex(3, 4, 6, 8):
        channel = ((t % 2 * 2 + h % 2) * 2 + w % 2) * 3 + c
        assert torch.equal(folded[:, channel, t // 2, h // 2, w // 2], video[:, c, t, h, w])


@torch.no_grad()
def test_stem_equals_padding_evenly_and_dropping_the_first_output():
    # What the reference data's README says of the original.
    model = random_model()
    video = torch.rand(1, 3, 8, 20, 28)
    folded = space_to_depth(video)
    theirs = F.conv3d(folded, model.conv1.conv1.weight, padding=(1, 2, 2))[:, :, 1:, 1:, 1:]
    ours = F.conv3d(F.pad(folded, (1, 2, 1, 2, 0, 1)), model.conv1.conv1.weight)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))])
def test_max_pool_pads_zeros_right_and_keeps_the_incomplete_window(kernel, stride):
    x = -torch.rand(1, 1, 5, 7, 6)  # below zero, so that the zeros around are seen
    ours = ZeroPaddedMaxPool3d(kernel, stride)(x)
    padded = F.pad(
        x, [side for k, s in zip(kernel[::-1], stride[::-1]) for side in (max(k - s, 0) // 2, -(-max(k - s, 0) // 2))]
    )
    sizes = [-(-(n - k) // s) + 1 for n, k, s in zip(padded.shape[2:], kernel, stride)]  # rounded up
    assert list(ours.shape[2:]) == sizes
    for t, h, w in np.ndindex(*sizes):
        window = padded[0, 0]
        for axis, (i, k, s) in enumerate(zip((t, h, w), kernel, stride)):
            window = window.narrow(axis, i * s, min(k, window.shape[axis] - i * s))
        assert ours[0, 0, t, h, w] == window.max()


@pytest.mark.parametrize("sizes", [(15, 28, 28), (8, 14, 13), (1, 3, 2), (2, 1, 5)])
@pytest.mark.parametrize(
    "pool",
    [
        ZeroPaddedMaxPool3d((1, 3, 3), (1, 2, 2)),
        ZeroPaddedMaxPool3d((3, 3, 3), (2, 2, 2)),
        ZeroPaddedMaxPool3d((2, 2, 2), (2, 2, 2)),
        nn.MaxPool3d((3, 3, 3), stride=(1, 1, 1), padding=1),
    ],
)
def test_sliced_max_pool_equals_the_plain_one(pool, sizes):
    x = torch.randn(2, 5, *sizes, generator=torch.Generator().manual_seed(0)).relu()
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        x = x.contiguous(memory_format=memory_format)
        before = x.clone()
        assert torch.equal(
            SlicedMaxPool3d(pool.kernel_size if isinstance(pool, nn.MaxPool3d) else pool.kernel, pool.stride)(x),
            pool(x),
        )
        assert torch.equal(x, before)


@torch.no_grad()
def test_temporal_convolution_equals_the_plain_one():
    conv = nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0))
    x = torch.randn(2, 4, 5, 3, 7).contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(TemporalConv(conv)(x), conv(x))
