"""Settings of a latency measurement: what is timed, for how long, and by what it is judged.

They stand apart from ``Settings``, as those of a build do, because whoever tunes a measurement reads them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_trt.option import option as _option
from pytest_trt.option_values import choice, number, path, ratio, switch

__all__ = ["LatencySettings"]


@dataclass(frozen=True)
class LatencySettings:
    """The options of the group ``latency``. Help texts are as in ``Settings``."""

    latency: str = _option("on", choice("on", "off"), "on|off", "measure latency", group="latency")
    threshold: float | None = _option(
        None,
        ratio,
        "SHARE",
        "slowdown against the baseline that is a regression (default: the manifest's, else 5%)",
        group="latency",
    )
    latency_mode: str = _option(
        "graph",
        choice("graph", "queued", "isolated", "throughput"),
        "graph|queued|isolated|throughput",
        "how launches are timed: back to back, as trtexec does, each on an idle device, batches on N streams",
        group="latency",
    )
    l2_flush: bool = _option(
        False, switch, "on|off", "flush the device's L2 cache before each launch (isolated only)", group="latency"
    )
    warmup: float = _option(
        0.2,
        number(0, 600),
        "SECONDS",
        "warm up this long before sampling, and longer while durations still change",
        group="latency",
    )
    duration: float = _option(
        0.9, number(0.001, 3600), "SECONDS", "sample at most this long, over all loads together", group="latency"
    )
    interval: float = _option(
        0.002,
        ratio,
        "SHARE",
        "sample no longer when the median of a load is known to plus or minus this share (95 %)",
        group="latency",
    )
    loads: int = _option(
        3, number(1, 100, int), "N", "load the engine N times, since loads of one plan differ", group="latency"
    )
    inconclusive: str = _option(
        "warn",
        choice("warn", "fail"),
        "warn|fail",
        "what an inconclusive verdict, on latency or on a metric, does to the test",
        group="latency",
    )
    ab: str = _option(
        "on",
        choice("on", "off"),
        "on|off",
        "let the baseline's engine, where it is at hand, and the present one take turns, and gate their ratio",
        group="latency",
    )
    baseline_engine: Path | None = _option(
        None,
        path,
        "PLAN",
        "judge against this engine (default: the one of the baseline, if the cache has it)",
        group="latency",
    )
    confirm: str = _option(
        "on",
        choice("on", "off"),
        "on|off",
        "measure what is red or inconclusive once more, in a fresh process",
        group="latency",
    )
