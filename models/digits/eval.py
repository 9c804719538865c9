"""How sure the model is of the right digit: the metric ``confidence`` of trt.toml."""

from __future__ import annotations

import numpy as np


def score(outputs, labels):
    """The probability that softmax gives the true digit, one per image."""
    logits = outputs["logits"].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]
