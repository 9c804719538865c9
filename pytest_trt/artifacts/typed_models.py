"""What is known of a typed model without making it: by its source, the recipe with its options, and the ranges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.facts import recall, recall_model
from pytest_trt.artifacts.store import Store

if TYPE_CHECKING:
    from pytest_trt.spec.model import Model
    from pytest_trt.spec.precision import Precision, Ranges

__all__ = ["recall_tensors", "recall_typed"]


def recall_typed(
    store: Store,
    source: Model,
    precision: Precision,
    options: Mapping[str, Any],
    ranges: Ranges | None,
    make: Callable[[], tuple[Model, Mapping[str, Any]]],
) -> tuple[Model, dict[str, Any]]:
    """Return what *make* gives, the typed model and the recipe's notes, as ``recall_model`` does.

    *options* are the recipe's own, and *ranges* those that it is given: nothing else may go into it.
    """
    ingredients = {
        **_described(source, precision.name, options),
        "recipe": precision.recipe,
        "ranges": None if ranges is None else _digest(ranges),
    }
    return recall_model(store, f"typed {precision.name}", ingredients, make, source.name)


def recall_tensors(store: Store, source: Model, options: Mapping[str, Any], precision: str) -> list[str]:
    """The tensors of *source* whose ranges a calibrated recipe needs."""
    from pytest_trt.spec.precision.ranges import calibration_tensors

    ingredients = _described(source, precision, options)
    label = f"facts of {source.name}: tensors of {precision}"
    found: list[str] = recall(
        store,
        "calibration tensors",
        ingredients,
        lambda: list(calibration_tensors(source.proto, options, precision)),
        label=label,
    )
    return found


def _described(source: Model, precision: str, options: Mapping[str, Any]) -> dict[str, Any]:
    # TOML's values: each has a text of its own.
    described = {name: repr(value) for name, value in options.items()}
    return {"model": source.fingerprint, "precision": precision, "options": described}


def _digest(ranges: Ranges) -> str:
    found = {name: [float(low), float(high)] for name, (low, high) in ranges.items()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
