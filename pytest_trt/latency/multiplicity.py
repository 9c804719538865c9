"""How many comparisons a verdict is corrected for, where each case is judged when its turn comes. Pure."""

from __future__ import annotations

import math

from pytest_trt.latency.gate import TAIL

__all__ = ["comparisons_of"]


def comparisons_of(cases: int, *, confirmed: bool) -> int:
    """Return the ``comparisons`` for ``decide`` that keep a run of *cases* unchanged ones red in 2.5 % of runs at most.

    Where a FAIL must be *confirmed* by a second, independent measurement, both have to err: the chance is squared, and
    40 cases need no more than one does.
    """
    if not confirmed:
        return max(1, cases)
    # cases · (TAIL / n)² ≤ TAIL
    return max(1, math.ceil(math.sqrt(TAIL * cases)))
