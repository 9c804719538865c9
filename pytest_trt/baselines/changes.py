"""What acceptance changes, in lines that a reviewer reads: old → new with intervals. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_trt.baselines.drift import accuracy_drift
from pytest_trt.baselines.entries import anchor_of, median_ms

__all__ = ["brief", "change_lines"]

_Z = 1.96


def change_lines(
    case_id: str, old: Mapping[str, Any] | None, new: Mapping[str, Any], differences: Sequence[str] = ()
) -> list[str]:
    """``id: 1.25 ms ±0.8% → 2 ms ±0.5%, +60.0% (95 % interval +57.0% to +63.0%)``, and below it what else a reviewer
    should know: the environment's *differences*, accuracy that got worse, means of metrics, an anchor that stays where
    it is."""
    lines = [f"{case_id}: {brief(old)} → {brief(new)}{_ratio(old, new)}"]
    lines += [f"  environment {line}" for line in differences]
    lines += [f"  accuracy {line}" for line in (accuracy_drift(old["accuracy"], new["accuracy"]) if old else ())]
    lines += _metric_lines((old or {}).get("metrics") or {}, new.get("metrics") or {})
    anchor = anchor_of(new)
    if anchor is not new:
        lines.append(
            f"  the anchor stays: {brief(anchor)}, recorded {anchor['recorded']}{_ratio(anchor, new)};"
            " it is still gated, --trt-update-baselines=anchor moves it"
        )
    if new.get("unsteady"):
        lines.append(f"  written all the same: {new['unsteady']}")
    return lines


def _metric_lines(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in sorted({*old, *new}):
        before, after = (f"{side[name]['mean']:.4g}" if name in side else "none" for side in (old, new))
        if before != after:
            lines.append(f"  metric {name} {before} → {after}")
    return lines


def brief(recording: Mapping[str, Any] | None) -> str:
    """A recording's median with the 95 % interval that its own samples show: ``1.25 ms ±0.8%``."""
    if recording is None:
        return "none"
    median = median_ms(recording)
    if median is None:
        return "no latency"
    error = recording["latency"].get("median_se")
    return f"{median:.4g} ms" + (f" ±{_Z * error * 100:.2g}%" if error else "")


def _ratio(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    before, after = (old or {}).get("latency"), new.get("latency")
    if not before or not after:
        return ""
    if before["clock"] != after["clock"]:
        return f" (not comparable: the {before['clock']} clock, then {after['clock']})"
    from pytest_trt.latency.gate import decide
    from pytest_trt.latency.modes import prior_of
    from pytest_trt.latency.stats import Summary
    from pytest_trt.latency.verdict import change_of

    # The interval does not depend on the threshold.
    verdict = decide(
        Summary.from_json(before),
        Summary.from_json(after),
        threshold=0.05,
        clock=prior_of(after["clock"]),
        rebuilt=(old or {}).get("plan") != new.get("plan"),
        repeats="loads",
    )
    ratio, low, high = (change_of(value) for value in (verdict.ratio, verdict.low, verdict.high))
    return f", {ratio} (95 % interval {low} to {high})"
