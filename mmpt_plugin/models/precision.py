"""Where products have to be in float32."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def outside_autocast(values: Tensor) -> AbstractContextManager:
    """A context in which float32 products stay float32, on the device of `values`.

    Dot products of unnormalised states and embeddings are large: half precision has too few digits for them, or no room.
    fairseq runs a whole training step, the loss included, under autocast where `common.amp` is set.
    """
    device = values.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
