"""Two engines take turns over several loads of each, until their ratio is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_trt.backends import Clock, Feeds, Milliseconds, Session
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.latency.interleave import Interleaved
    from pytest_trt.settings import Settings

__all__ = ["History", "clock_of", "judge_turns", "loads_of", "take_turns"]

Again = Callable[[], "Session"]
History = Callable[[int], Sequence[float]]
Enough = Callable[[Sequence["Milliseconds"], Sequence["Milliseconds"]], bool]

# Where loads of one plan differ that is most of the noise, and loading costs less than sampling.
_ROUNDS_A_LOAD = 3
_TIMES = (1, 2, 4)  # as many loads when an open verdict is judged again


def clock_of(session: Session, settings: Settings) -> Clock:
    """The clock that both sides are timed by: the one that the case is measured with."""
    return session.clock(settings.latency_mode, l2_flush=settings.l2_flush, streams=settings.streams)


def take_turns(
    settings: Settings,
    clock: str,
    old: tuple[Again, Feeds],
    new: tuple[Again, Feeds],
    *,
    enough: Enough = lambda *_: False,
    times: int = 1,
) -> Interleaved:
    """Interleave two engines over several loads of each; a side loads itself anew when it is called. *clock* is the
    name of the one that both have. There may be *times* as many loads as usual, until *enough*."""
    from pytest_trt.latency.interleave import Timed, interleave

    count = loads_of(settings, clock)

    def rounds() -> Iterator[tuple[Timed, Timed]]:
        sessions: dict[int, Session] = {}
        for number in range(count * times):
            # Where an engine lies in memory decides how fast it is: neither is always the first to be placed.
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                again, feeds = (old, new)[index]
                sessions[index] = again()
                sessions[index].stage(feeds)
            before, after = (Timed(sessions[index].launch, clock_of(sessions[index], settings)) for index in (0, 1))
            yield before, after

    seconds = settings.duration / count
    return interleave(rounds(), warmup_seconds=settings.warmup, round_seconds=seconds, enough=enough)


def judge_turns(
    settings: Settings,
    clock: str,
    old: tuple[Again, Feeds],
    new: tuple[Again, Feeds],
    *,
    threshold: float,
    same: bool = False,
    rebuilt: bool = False,
    comparisons: int = 1,
    history: History = lambda _: (),
) -> tuple[Verdict, Interleaved]:
    """Let two engines take turns, and judge their ratio as ``decide`` does. A verdict that is open is judged again
    after twice and after four times as many loads, where the loads are what keeps it open. Where both are the *same*
    plan it cannot be red. *history* gives the ratios of engines that took turns with themselves over so many loads."""
    from pytest_trt.latency.gate import Outcome, decide
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.priors import PRIORS

    # More loads say nothing about another build, nor about another process.
    times = _TIMES if PRIORS[prior_of(clock)].builds and not rebuilt else _TIMES[:1]
    looks = {loads_of(settings, clock) * each for each in times}
    verdicts: list[Verdict] = []

    def decided(baseline: Sequence[Milliseconds], candidate: Sequence[Milliseconds]) -> bool:
        if len(baseline) not in looks:
            return False
        verdict = decide(
            baseline,
            candidate,
            threshold=threshold,
            clock=prior_of(clock),
            paired=True,
            repeats="loads",
            rebuilt=rebuilt,
            comparisons=comparisons,
            looks=len(looks),
            history=history(min(looks)),
        )
        verdicts.append(verdict.of_one_plan() if same else verdict)
        return verdicts[-1].outcome is not Outcome.INCONCLUSIVE

    found = take_turns(settings, clock, old, new, enough=decided, times=max(times))
    return verdicts[-1], found


def loads_of(settings: Settings, clock: str) -> int:
    """How often each side is loaded by ``take_turns``, at first."""
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.priors import PRIORS

    # The clocks of a GPU; on a CPU no number of loads would be enough.
    return settings.loads * (_ROUNDS_A_LOAD if PRIORS[prior_of(clock)].builds else 1)
