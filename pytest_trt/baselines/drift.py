"""Accuracy against its own past: within tolerance, but worse than it was. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ERROR_GROWTH", "TOP1_DROP", "accuracy_drift"]

# An engine that is rebuilt with other tactics moves its error by some ten percent; a changed recipe, a lost
# weight or another kernel by factors.
ERROR_GROWTH = 2.0
TOP1_DROP = 0.02
# Below this share of the stored error's output scale, an error is rounding of the last bit and may double freely.
_NEGLIGIBLE_RMSE = 1e-6


def accuracy_drift(stored: Mapping[str, Mapping[str, Any]], outputs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compare per-output metrics (``rmse``, ``top1``) with the stored ones; return a sentence per regression."""
    sentences = []
    for name, old in stored.items():
        new = outputs.get(name)
        if new is None:
            sentences.append(f"output {name!r} of the baseline is gone")
            continue
        before, now = old.get("rmse"), new.get("rmse")
        if before is not None and now is not None and now > max(before, _NEGLIGIBLE_RMSE) * ERROR_GROWTH:
            sentences.append(
                f"output {name!r}: rmse {before:.3g} → {now:.3g}, more than {ERROR_GROWTH:g} times the baseline's"
            )
        before, now = old.get("top1"), new.get("top1")
        if before is not None and now is not None and now < before - TOP1_DROP:
            sentences.append(f"output {name!r}: top-1 agreement {before:.3f} → {now:.3f}")
    return sentences
