"""How many loads two engines take until they are judged, on loads of invented speeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pytest_trt.lab.turns import judge_turns
from pytest_trt.latency import PRIORS, Outcome, decide
from pytest_trt.settings import Settings

SETTINGS = Settings(warmup=0.0, duration=0.001)
FIRST = 3 * SETTINGS.loads


class Engine:
    """Each load has a speed of its own, *spread* apart (of the logarithm); it is a session and its clock."""

    name = "graph"

    def __init__(self, ms: float, spread: float, rng: np.random.Generator) -> None:
        self._ms, self._spread, self._rng = ms, spread, rng
        self.loads = 0

    def again(self) -> Any:
        self.loads += 1
        self._now = self._ms * float(np.exp(self._spread * self._rng.standard_normal()))
        return self

    def clock(self, *arguments: Any, **options: Any) -> Any:
        return self

    def time(self, launch: Callable[[], None], count: int) -> Any:
        return np.full(count, self._now)

    def stage(self, feeds: Any) -> None: ...

    def launch(self) -> None: ...

    def conditions(self) -> dict[str, Any]:
        return {}


def judged(slower: float, *, spread: float = 0.0, seed: int = 0, clock: str = "graph", **how: Any) -> tuple[Any, int]:
    rng = np.random.default_rng(seed)
    old, new = Engine(4.0, spread, rng), Engine(4.0 * slower, spread, rng)
    for engine in (old, new):
        engine.name = clock
    verdict, found = judge_turns(SETTINGS, clock, (old.again, {}), (new.again, {}), **{"threshold": 0.03, **how})
    assert len(found.baseline_ms) == old.loads == new.loads
    return verdict, old.loads


def test_what_is_clear_takes_no_more_loads() -> None:
    assert [(judged(ratio)[0].outcome, judged(ratio)[1]) for ratio in (1.0, 1.1)] == [
        (Outcome.PASS, FIRST),
        (Outcome.FAIL, FIRST),
    ]


def test_what_is_open_is_judged_again_after_more_loads() -> None:
    seen, again = judged(1.05)
    open_, last = judged(1.03)

    assert (seen.outcome, again) == (Outcome.FAIL, 2 * FIRST)
    assert (open_.outcome, last) == (Outcome.INCONCLUSIVE, 4 * FIRST)


@pytest.mark.parametrize(("how", "loads"), [({"rebuilt": True}, FIRST), ({"clock": "host"}, SETTINGS.loads)])
def test_more_loads_where_they_cannot_help(how: dict[str, Any], loads: int) -> None:
    verdict, taken = judged(1.03, **how)

    assert (verdict.outcome, taken) == (Outcome.INCONCLUSIVE, loads)


def test_an_engine_is_never_slower_than_itself() -> None:
    """A machine that disturbs one side alone: red for two engines, noise for one."""
    verdict, loads = judged(1.5, same=True)

    assert judged(1.5)[0].outcome is Outcome.FAIL
    assert (verdict.outcome, loads) == (Outcome.INCONCLUSIVE, 4 * FIRST)
    assert verdict.sentence.startswith("+50.0% against the baseline")
    assert (
        "cannot tell whether slower by 3.0%; both sides are the very same plan, so that this is noise"
        in verdict.sentence
    )
    assert judged(1.0, same=True)[0].outcome is Outcome.PASS
    assert judged(0.5)[0].improved
    assert not judged(0.5, same=True)[0].improved


def test_the_interval_is_corrected_for_the_looks_that_there_may_be() -> None:
    """Also where the first one was enough."""
    same = np.ones((FIRST, 8))
    how: dict[str, Any] = {"threshold": 0.03, "clock": "graph", "paired": True, "repeats": "loads"}

    assert judged(1.0)[0] == decide(same, same, looks=3, **how)
    assert judged(1.0, rebuilt=True)[0] == decide(same, same, rebuilt=True, **how)


def test_looking_again_makes_no_more_mistakes() -> None:
    """Loads as far apart as the prior says, and a slowdown of exactly the threshold."""
    outcomes = [judged(1.03, spread=PRIORS["graph"].loads, seed=seed)[0].outcome for seed in range(120)]

    assert outcomes.count(Outcome.FAIL) <= 6
    assert outcomes.count(Outcome.PASS) <= 6
