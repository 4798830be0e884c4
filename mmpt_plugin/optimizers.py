"""Optimizers registered with fairseq: Adam as one kernel a step, and one that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II


@dataclass
class FusedAdamConfig(FairseqDataclass):
    """The names of fairseq's `adam`, so that either can be chosen by `optimizer._name` alone."""

    adam_betas: Any = field(default="(0.9, 0.999)", metadata={"help": "decay of the gradients' two running means"})
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the denominator"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled from the gradient, as in AdamW"})
    lr: list[float] = II("optimization.lr")  # noqa: RUF009 (an interpolation is a string)


@register_optimizer("fused_adam", dataclass=FusedAdamConfig)
class FusedAdam(FairseqOptimizer):
    """torch's fused AdamW: one pass over memory a step where fairseq's `adam` makes about ten.

    The update is that of fairseq's but for the place of eps: added after the bias correction, not before. At 1e-8 the two
    differ by less than rounding does.
    """

    supports_flat_params = True

    def __init__(self, cfg: FusedAdamConfig, params: Any) -> None:
        super().__init__(cfg)
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """The settings of torch's optimizer; on resume they override the checkpoint's."""
        betas = self.cfg.adam_betas
        return {
            "lr": self.cfg.lr[0],
            "betas": tuple(
                float(beta) for beta in (betas.strip("() ").split(",") if isinstance(betas, str) else betas)
            ),
            "eps": self.cfg.adam_eps,
            "weight_decay": self.cfg.weight_decay,
        }


@register_optimizer("no_update", dataclass=FairseqDataclass)
class NoUpdate(FairseqOptimizer):
    """An optimizer for evaluation: holds no state, reduces no gradients, changes no weights."""

    def __init__(self, cfg: FairseqDataclass, params: Any) -> None:
        super().__init__(cfg)
        self._optimizer = torch.optim.SGD(params, lr=0.0)

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    def all_reduce_grads(self, module: torch.nn.Module) -> None:
        """There are no gradients."""

    def step(self, closure: Any = None, scale: float = 1.0, groups: Any = None) -> None:
        """Leave the weights as they are."""
