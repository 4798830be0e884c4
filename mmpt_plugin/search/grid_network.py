"""A feature network without weights for demos and tests: what a coarse grid of the picture shows, and how it changes.

It sees colours, places and movements, and nothing else. `--network grid`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmpt_plugin.features.networks import FeatureNetwork, NetworkConfig, register_network

CELLS = 12
FEATURE_SIZE = 512
SEED = 20211


@register_network("grid")
def load_grid(argument: str, config: NetworkConfig) -> FeatureNetwork:
    """The mean and the deviation of each cell's colour over the second, mixed by one fixed random projection.

    Raises:
        ValueError: if it is given weights.
    """
    if argument or config.checkpoint is not None:
        raise ValueError(f"--network grid has no weights and takes none, got {config.network}")
    generator = torch.Generator().manual_seed(SEED)
    values = 2 * 3 * CELLS * CELLS
    projection = torch.randn(values, FEATURE_SIZE, generator=generator) / values**0.5
    projection = projection.to(config.device)

    def embed(frames: Tensor) -> Tensor:
        seconds, pictures = frames.shape[:2]
        images = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        cells = F.adaptive_avg_pool2d(images, CELLS).flatten(2)  # (seconds x pictures, 3, cells)
        cells = cells - cells.median(dim=2, keepdim=True).values  # the table is no news
        cells = cells.reshape(seconds, pictures, -1)
        both = torch.cat([cells.mean(dim=1), 3 * cells.std(dim=1, correction=0)], dim=1)
        return both @ projection + 0.02 * projection.mean(dim=0)

    return FeatureNetwork("grid", "none", FEATURE_SIZE, embed, config.device)
