"""Optimizers registered with fairseq: Adam as one kernel a step, and one that changes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II

from mmpt_plugin.bounds import check_bounds
from mmpt_plugin.models.towers import TEXT, place_of


@dataclass
class FusedAdamConfig(FairseqDataclass):
    """The names of fairseq's `adam`, so that either can be chosen by `optimizer._name` alone."""

    adam_betas: Any = field(default="(0.9, 0.999)", metadata={"help": "decay of the gradients' two running means"})
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the denominator"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled from the gradient, as in AdamW"})
    text_rate: float = field(
        default=1.0,
        metadata={"help": "the text tower's learning rate is optimization.lr times this", "above": 0, "at_most": 100},
    )
    layer_decay: float = field(
        default=1.0,
        metadata={
            "help": "a layer's learning rate is this times that of the layer above it, in both towers",
            "above": 0,
            "at_most": 1,
        },
    )
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
        check_bounds(cfg, FusedAdamConfig, "optimizer")
        if cfg.text_rate != 1 or cfg.layer_decay != 1:
            params = groups_by_rate(params, cfg.text_rate, cfg.layer_decay)
        self._optimizer = torch.optim.AdamW(params, fused=True, **self.optimizer_config)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, of each group times its own factor."""
        for group in self.param_groups:
            group["lr"] = lr * group.get("rate", 1.0)

    def get_lr(self) -> float:
        """The learning rate without the groups' factors."""
        group = self.param_groups[0]
        return float(group["lr"] / group.get("rate", 1.0))

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None) -> None:
        """fairseq's, for a run that goes on with the same groups.

        Raises:
            ValueError: if the checkpoint's groups are others.
        """
        saved, own = (
            [(group.get("rate", 1.0), len(group["params"])) for group in groups]
            for groups in (state_dict["param_groups"], self.param_groups)
        )
        if saved != own:
            raise ValueError(
                f"the checkpoint's optimizer has groups of (factor, parameters) {saved}, this run's are {own}: restore "
                "optimizer.text_rate, optimizer.layer_decay and the model's settings, or set "
                "checkpoint.reset_optimizer=true to go on with a new optimizer"
            )
        super().load_state_dict(state_dict, optimizer_overrides)

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


def groups_by_rate(
    parameters: Iterable[torch.nn.Parameter], text_rate: float, layer_decay: float
) -> list[dict[str, Any]]:
    """Parameters in torch's groups, each with the factor of its learning rate as `rate`, the largest first.

    What belongs to no tower, such as the projection of features, has the factor 1. Layers' rates fall off as in BERT's
    fine-tuning by Howard and Ruder, 2018 (https://arxiv.org/abs/1801.06146, section 3.2).

    Raises:
        ValueError: if the parameters are not known one by one, or none is of a text tower that is to have a rate of its own.
    """
    listed = list(parameters)
    places = [place_of(parameter) for parameter in listed]
    if not any(places):
        raise ValueError(
            f"optimizer.text_rate is {text_rate} and optimizer.layer_decay {layer_decay}, but it is not known which parameters "
            "are of which layer: set common.fp16_no_flatten_grads=true where common.fp16=true joins them all, or both to 1 "
            "for a model of your own (fairseq's composite optimizer takes its param_group)"
        )
    if text_rate != 1 and all(place is None or place.tower != TEXT for place in places):
        raise ValueError(
            f"optimizer.text_rate is {text_rate}, but no text tower is trained that is not the video's too: set it to 1, or "
            "model.shared_encoder and model.freeze_text to false"
        )
    groups: dict[float, list[torch.nn.Parameter]] = defaultdict(list)
    for parameter, place in zip(listed, places):
        rate = 1.0
        if place is not None:
            rate = (text_rate if place.tower == TEXT else 1.0) * layer_decay**place.above
        groups[rate].append(parameter)
    return [{"params": groups[rate], "rate": rate} for rate in sorted(groups, reverse=True)]


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
