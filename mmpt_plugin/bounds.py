"""Bounds of numeric settings, kept beside their defaults in the metadata of a dataclass's fields.

every: int = field(default=1, metadata={"help": "...", "at_least": 1})
rate: float = field(default=0.5, metadata={"help": "...", "above": 0, "at_most": 1})
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

BOUNDS = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "more than"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "less than"),
}


def check_bounds(settings: Any, schema: type, section: str) -> None:
    """Refuse a number outside of its bounds, or one that is not finite. A setting of None stands for a default.

    Args:
        settings: has the fields of `schema`, as an instance or as hydra's configuration of it.
        schema: the dataclass.
        section: where the settings stand on the command line, such as "task.retrieval".

    Raises:
        ValueError: naming the setting, its value and what is allowed.
    """
    for field in dataclasses.fields(schema):
        bounds = {name: limit for name, limit in field.metadata.items() if name in BOUNDS}
        value = getattr(settings, field.name) if bounds else None
        if value is None:
            continue
        inside = value - value == 0 and all(BOUNDS[name][0](value, limit) for name, limit in bounds.items())
        if not inside:  # neither is nan, nor an infinity, whose difference with itself is nan
            allowed = " and ".join(f"{BOUNDS[name][1]} {limit:g}" for name, limit in bounds.items())
            raise ValueError(f"{section}.{field.name} is {value}: it must be {allowed}")
