"""Waivers: regressions that somebody has agreed to, until a date. ``baselines/waivers.toml``::

[[waiver]]
case = "resnet50-int8-*-tensorrt"   # a case's id, or a pattern
owner = "jane"
reason = "waits for the new plugin"
expires = 2027-01-31                # the last day on which it holds
gates = ["latency"]                 # of latency, accuracy, engine; latency where nothing is said
at_most = "10%"                     # latency: still red above this slowdown
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pytest_trt.errors import BaselineError, nearest
from pytest_trt.option_values import ratio

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FILE_NAME", "GATES", "Waiver", "covering", "read_waivers", "waivers_of"]

FILE_NAME = "waivers.toml"
GATES = ("latency", "accuracy", "engine")
_TEXTS = ("case", "owner", "reason")
_KEYS = (*_TEXTS, "expires", "gates", "at_most")


@dataclass(frozen=True)
class Waiver:
    """One waiver. ``at_most`` is a share, None for any slowdown. It never covers outputs that are not close to the
    reference."""

    case: str
    owner: str
    reason: str
    expires: date
    gates: tuple[str, ...] = ("latency",)
    at_most: float | None = None

    def expired(self, today: date | None = None) -> bool:
        """Whether its last day has passed; days are those of UTC, as everybody's CI has the same."""
        return (today or datetime.now(timezone.utc).date()) > self.expires

    def to_json(self) -> dict[str, Any]:
        limit = {} if self.at_most is None else {"at_most": self.at_most}
        found = {"case": self.case, "owner": self.owner, "reason": self.reason, "expires": self.expires.isoformat()}
        return {**found, "gates": list(self.gates), **limit, **({"expired": True} if self.expired() else {})}


def waivers_of(waivers: Sequence[Waiver], case_id: str) -> tuple[Waiver, ...]:
    """The waivers of a case: of those that cover a gate, the one that holds longest."""
    found = [waiver for waiver in waivers if waiver.case == case_id or _matches(case_id, waiver.case)]
    return tuple(dict.fromkeys(waiver for gate in GATES if (waiver := covering(found, gate))))


def covering(waivers: Sequence[Waiver], gate: str) -> Waiver | None:
    """Of *waivers* that cover *gate*, the one that holds longest; it may have expired."""
    return max((w for w in waivers if gate in w.gates), key=lambda waiver: waiver.expires, default=None)


def _matches(case_id: str, pattern: str) -> bool:
    # Ids hold brackets, which a pattern would read as a set of characters.
    return fnmatchcase(case_id, pattern.replace("[", "[[]"))


def read_waivers(root: Path) -> tuple[Waiver, ...]:
    """The waivers of the baselines below *root*. Raises BaselineError that names file, waiver and key."""
    file = root / FILE_NAME
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BaselineError(f"{file}: cannot be read: {error}") from error
    rows = table.pop("waiver", [])
    if table or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BaselineError(f"{file}: holds something else than waivers", hint="each one is a table [[waiver]]")
    return tuple(_waiver(f"{file}: waiver {number}", row) for number, row in enumerate(rows, 1))


def _waiver(where: str, row: Mapping[str, Any]) -> Waiver:
    for name in row:
        if name not in _KEYS:
            raise BaselineError(f"{where}: unknown key {name!r}", hint=nearest(name, _KEYS))
    for name in (*_TEXTS, "expires"):
        if name not in row:
            raise BaselineError(f"{where}: {name} is missing", hint="a waiver has case, owner, reason and expires")
    texts = {name: _text(where, name, row[name]) for name in _TEXTS}
    expires, gates = row["expires"], row.get("gates", ["latency"])
    if not isinstance(expires, date) or isinstance(expires, datetime):
        raise BaselineError(f"{where}: expires must be a date", hint="write it without quotes: 2027-01-31")
    if not isinstance(gates, list) or not gates:
        raise BaselineError(f"{where}: gates must be a list", hint=f"of {', '.join(GATES)}")
    for gate in gates:
        if gate not in GATES:
            raise BaselineError(f"{where}: there is no gate {gate!r}", hint=nearest(str(gate), GATES))
    return Waiver(**texts, expires=expires, gates=tuple(gates), at_most=_limit(where, row))


def _text(where: str, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BaselineError(f"{where}: {name} must be a text, and not empty")
    return value


def _limit(where: str, row: Mapping[str, Any]) -> float | None:
    if "at_most" not in row:
        return None
    try:
        return ratio(str(row["at_most"]))
    except ValueError as error:
        raise BaselineError(f"{where}: at_most must be a share: {error}", hint='"10%" or 0.1') from error
