"""torch's DistributedDataParallel around the model itself: fairseq, whose default it is, allows it on GPUs only."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mmpt_plugin.criterions.contrastive import symmetric_info_nce
from mmpt_plugin.data.pairs import Inputs
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.videoclip import VideoClipModel

from .batches import without_padding

pytestmark = pytest.mark.slow


def batch(seed: int) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    seconds, tokens = (torch.randint(2, 9, (5, 1), generator=generator) for _ in range(2))
    return without_padding(
        torch.randn(5, 8, 512, generator=generator),
        torch.arange(8) < seconds,
        torch.randint(5, 19, (5, 8), generator=generator),
        torch.arange(8) < tokens,
    )


def backward(model: torch.nn.Module, inputs: Inputs, bf16: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model(**inputs)
    symmetric_info_nce(output["video_embeddings"].float(), output["text_embeddings"].float()).backward()


def work(rank: int, folder: Path, model: VideoClipModel, bf16: bool) -> None:
    """Two steps, so that the second finds the reducer ready; the gradients of their sum."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    parallel = DistributedDataParallel(model)
    for step in range(2):
        backward(parallel, batch(2 * step + rank), bf16)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.save(gradients, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("chunk_pairs", "shared_encoder", "bf16"),
    [(0, False, False), (2, False, False), (2, True, False), (2, False, True)],
)
def test_gradients_are_the_mean_of_the_processes(tiny_bert, tmp_path, chunk_pairs, shared_encoder, bf16):
    torch.manual_seed(1)
    config = VideoClipConfig(
        bert=str(tiny_bert),
        chunk_pairs=chunk_pairs,
        shared_encoder=shared_encoder,
        video_layers=None if shared_encoder else 2,
    )
    model = VideoClipModel.from_backbone(config).eval()  # evaluation: no dropout, whose masks would differ
    torch.multiprocessing.spawn(work, (tmp_path, copy.deepcopy(model), bf16), nprocs=2)
    for seed in range(4):
        backward(model, batch(seed), bf16)
    gradients = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=0, atol=0)
        tolerance = (
            {"rtol": 2e-2, "atol": 2e-2 * parameter.grad.abs().max().item()} if bf16 else {"rtol": 1e-4, "atol": 1e-5}
        )
        torch.testing.assert_close(gradients[0][name], parameter.grad / 2, **tolerance)
