"""The state of a case's baseline: what was found, what it may do, what a strict run makes of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_trt.baselines.entries import anchor_of, median_ms
from pytest_trt.baselines.waivers import Waiver, covering
from pytest_trt.record import Record

__all__ = ["Match", "baseline_notes", "complaint"]

# State -> what accepts it. A strict run fails on each of these.
_REMEDIES = {
    "missing": "pytest … --trt-update-baselines=new",
    "stale": '--trt-update-baselines=failed --trt-reason="…"',
    "renamed": '--trt-update-baselines=renamed --trt-reason="…"',
    "orphaned": '--trt-update-baselines=orphaned --trt-reason="…"',
}


@dataclass(frozen=True)
class Match:
    """What is stored for a case in an environment.

    ``found``: ``current`` (the environment is the same: it gates), ``stale`` (the same device model, but
    ``differences`` in drivers or libraries: compared, not gated), ``renamed`` (nothing is stored under this id, but
    under ``renamed_from`` for the same model and axes: compared, not gated), ``missing`` (nothing to compare with;
    ``elsewhere`` names other devices that have it). ``entry`` is the recent recording, see ``entries``. ``waivers`` are
    those of the case, at most one for each gate.
    """

    found: str
    entry: dict[str, Any] | None = None
    file: Path | None = None
    differences: tuple[str, ...] = ()
    renamed_from: str = ""
    elsewhere: tuple[str, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    @property
    def state(self) -> str:
        """``found``, unless a waiver has more to say: ``waived`` in place of ``current``, ``expired`` of any."""
        if any(waiver.expired() for waiver in self.waivers):
            return "expired"
        return "waived" if self.waivers and self.gates else self.found

    @property
    def gates(self) -> bool:
        """Whether the stored environment is the present one. A waiver is asked for by ``gates_on``."""
        return self.found == "current"

    def gates_on(self, gate: str) -> bool:
        """Whether a regression turns *gate* (``latency accuracy engine``) red."""
        waiver = self._in_force(gate)
        return self.gates and (waiver is None or (gate == "latency" and waiver.at_most is not None))

    def threshold(self, asked: float) -> float:
        """The slowdown that is a regression: what was *asked*, or what a waiver allows."""
        waiver = self._in_force("latency")
        return max(asked, waiver.at_most or 0.0) if waiver else asked

    @property
    def anchor(self) -> Mapping[str, Any] | None:
        """The anchored recording where it is another one than the recent one."""
        return anchor_of(self.entry) if self.entry and anchor_of(self.entry) is not self.entry else None

    def _in_force(self, gate: str) -> Waiver | None:
        waiver = covering(self.waivers, gate)
        return None if waiver is None or waiver.expired() else waiver

    def to_json(self) -> dict[str, Any]:
        anchor = self.anchor
        said = {
            "differences": list(self.differences),
            "from": self.renamed_from,
            "elsewhere": list(self.elsewhere),
            "anchor": {"median_ms": median_ms(anchor), "recorded": anchor["recorded"]} if anchor else None,
            "waivers": [waiver.to_json() for waiver in self.waivers],
        }
        found = {"median_ms": median_ms(self.entry)} if self.entry else {}
        return {"state": self.state, **found, **{name: value for name, value in said.items() if value}}


def complaint(baseline: Mapping[str, Any] | None, *, strict: bool) -> tuple[str, str] | None:
    """Why a record's ``baseline`` section fails its case, and what to do; None where it does not. A waiver that has
    expired always does, the other states, a waiver that holds among them, in a *strict* run."""
    found = baseline or {}
    state = found.get("state", "")
    if state == "expired":
        return f"the waiver expired on {_who(found, expired=True)}", "renew      or delete it in waivers.toml"
    if strict and state == "waived":
        remedy = "end it in waivers.toml, or run with --trt-baseline=report, where it holds"
        return f"the baseline is waived until {_who(found)}", f"waiver       {remedy}"
    if not strict or state not in _REMEDIES:
        return None
    said = "; ".join(found.get("differences", ()))
    said = f"{found['from']} is the same model and case" if state == "renamed" else said
    return f"the baseline is {state}{f' ({said})' if said else ''}", f"accept       {_REMEDIES[state]}"


def _who(found: Mapping[str, Any], *, expired: bool = False) -> str:
    """The dates of a ``baseline`` section's waivers, of those that have *expired* alone, and whose they are."""
    rows = [row for row in found.get("waivers", ()) if bool(row.get("expired")) is expired]
    return "; ".join(f"{row['expires']} ({row['owner']}: {row['reason']})" for row in rows)


def baseline_notes(records: Sequence[Record]) -> list[str]:
    """What a reader must know about the baselines of a run, a line per state."""
    states: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
    for record in records:
        found = record.baseline or {}
        states.setdefault(found.get("state", ""), []).append((record, found))
    lines = []
    if missing := states.get("missing"):
        lines.append(
            f"baselines: {len(missing)} missing for this environment, so nothing was gated there;"
            " record them with --trt-update-baselines=new"
        )
        if elsewhere := sorted({device for _, found in missing for device in found.get("elsewhere", ())}):
            lines.append(f"baselines: other devices have them, which says nothing here: {', '.join(elsewhere)}")
    if alone := [found for _, found in states.get("stale", ()) if found.get("part") == "latency"]:
        changed = "; ".join(dict.fromkeys(line for found in alone for line in found["differences"]))
        lines.append(f"baselines: {len(alone)} stale in their latency, which nothing gated ({changed})")
    if stale := [(record, found) for record, found in states.get("stale", ()) if "part" not in found]:
        changed = "; ".join(dict.fromkeys(line for _, found in stale for line in found.get("differences", ())))
        lines.append(f"baselines: {len(stale)} stale, compared but not gated ({changed})")
        slower = [record for record, _ in stale if (record.verdict or {}).get("outcome") == "fail"]
        lines += [
            f"baselines: {r.case.id} is slower than its stale one: {(r.verdict or {})['ratio']:.3g}x" for r in slower
        ]
    for record, found in states.get("renamed", ()):
        lines.append(
            f"baselines: {record.case.id} seems to be {found.get('from')} renamed, compared but not gated;"
            f" accept with {_REMEDIES['renamed']}"
        )
    for state in ("waived", "expired"):
        for record, found in states.get(state, ()):
            for waiver in found.get("waivers", ()):
                until = f"{'EXPIRED on' if waiver.get('expired') else 'until'} {waiver['expires']}"
                lines.append(f"baselines: {record.case.id} waived {until} by {waiver['owner']}: {waiver['reason']}")
    if orphaned := states.get("orphaned"):
        names = ", ".join(record.case.id for record, _ in orphaned)
        lines.append(
            f"baselines: {len(orphaned)} orphaned, their cases are gone: {names}; remove with {_REMEDIES['orphaned']}"
        )
    if "new" in states:
        lines.append(f"baselines: {len(states['new'])} new")
    return lines
