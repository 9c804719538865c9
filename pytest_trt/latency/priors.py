"""The noise that the data at hand cannot show, as numbers with an origin. Pure.

All are standard deviations of log medians, which are relative ones: 0.002 is 0.2 %. Except where something else is
said, each is the pooled value over all recordings of its kind at the upper end of its one-sided 95 % confidence
interval, rounded up to one digit; ``benchmarks/gate_power.py --priors`` prints them from the recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRIORS", "Prior"]


@dataclass(frozen=True)
class Prior:
    """Relative standard deviations of the median of a repeat, by what a repeat is.

    ``processes``: fresh processes that run the same plan. ``pairs``: the ratio of two sides that were interleaved in
    one process. ``loads``: loads of one plan in a process that has used the device before, on top of ``processes``.
    ``builds``: builds of one model, on top of ``processes``.

    ``weight``: as many degrees of freedom the prior is worth, less those that repeats and history have. The more was
    seen, the less it says, and from there on nothing. ``lasting``: the state behind ``processes`` outlasts a run, so
    that more repeats in a run do not make it less.
    """

    processes: float
    pairs: float
    loads: float = 0.0
    builds: float = 0.0
    weight: int = 8
    lasting: bool = False

    def __post_init__(self) -> None:
        values = (self.processes, self.pairs, self.loads, self.builds, self.weight)
        if not all(0 <= value < float("inf") for value in values):
            raise ValueError(f"the figures of a prior are finite and not negative, got {values}")


# Recorded on an NVIDIA H200 under TensorRT 8.6, quiet and beside another process that used the GPU: 0.08 % for a
# graph, doubled because the rule costs nothing here and other GPUs were not recorded. For a plain enqueue it is the
# pooled value itself: at a threshold of 3 % the upper limit (0.65 %) would leave more unchanged code undecided, and the
# margin against a false red is wide either way.
# Pairs: blocks of several engines in turns in one process. Builds: two models, 9 builds, 1.9 % as they came.
# Loads: 32 engines, each measured in two runs that had loaded other plans before, 7.6 % apart at most. This one is as
# it came, without a rounding up: so few plans make a heavy tail that the value is one of the tail already.
_BUILDS = 0.035
_LOADS = 0.016

PRIORS: dict[str, Prior] = {
    "graph": Prior(processes=0.002, pairs=0.002, loads=_LOADS, builds=_BUILDS),
    "sync": Prior(processes=0.005, pairs=0.002, loads=_LOADS, builds=_BUILDS),
    # ONNX Runtime on a shared machine of 2 cores: most processes within 10 %, one in six 1.8 to 2.6 times slower. Eight
    # that agree are no sign that such a one does not come; among twenty there is one with 97 %. The slow ones came one
    # after another: it is the machine's neighbours, who stay.
    # Loads: 12 cases of a few small models, one engine beside itself, loaded anew three times in one process: in the
    # median the deviation of the ratios from load to load was 15 %, which is 10 % a side. Taken after one of them had
    # turned red without a change, on one machine: three loads that agree are luck.
    "host": Prior(processes=0.5, pairs=0.007, loads=0.1, weight=20, lasting=True),
    # The fake backend invents its times: what it does not show is not there.
    "simulated": Prior(processes=0.0, pairs=0.0),
}
