"""Record: one JSON row per case. Everything that the reports, baselines and history say comes from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trt.spec.case import Case

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.latency.stats import Summary
    from pytest_trt.latency.timer import Samples

__all__ = [
    "SCHEMA_VERSION",
    "Outcome",
    "Record",
    "accuracy_section",
    "latency_section",
    "merge_records",
    "undecided_metric",
]

SCHEMA_VERSION = 1

# Worst first: the case's outcome is the worst of its parts.
Outcome = str
_ORDER = ("error", "failed", "inconclusive", "passed", "skipped")


@dataclass
class Record:
    """What happened to one case.

    ``outcomes`` maps a part (``accuracy``, ``latency``) to ``passed failed inconclusive skipped error``;
    ``messages`` maps a part to its one-line reason. The other fields are JSON-able sections, None where that
    part did not run: ``environment``, ``engine`` (key, cached or built, seconds, bytes, what really happened),
    ``precision`` (native or simulated, the recipe's notes), ``inputs`` (origin, synthetic), ``accuracy``,
    ``latency``, ``verdict``, ``baseline`` (its state), ``streams`` (several contexts at once), ``builds`` (the spread
    between builds), ``search`` (the worst input that was found), ``explanation`` (where the error enters).
    """

    case: Case
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] | None = None
    engine: dict[str, Any] | None = None
    precision: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = None
    accuracy: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    baseline: dict[str, Any] | None = None
    streams: dict[str, Any] | None = None
    builds: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    explanation: dict[str, Any] | None = None

    @property
    def outcome(self) -> Outcome:
        """The worst of the parts' outcomes; ``skipped`` when none ran."""
        return min(self.outcomes.values(), key=_ORDER.index, default="skipped")

    @property
    def simulated(self) -> str | None:
        """Why this case's numbers are simulated, or None."""
        return (self.precision or {}).get("simulated")

    def to_json(self) -> dict[str, Any]:
        sections = {name: getattr(self, name) for name in _SECTIONS}
        return {
            "id": self.case.id,
            "case": self.case.to_json(),
            "outcome": self.outcome,
            "outcomes": self.outcomes,
            "messages": self.messages,
            **sections,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        case = Case.from_json(data["case"])
        # Reports of before a section existed do not have it.
        return cls(case, data["outcomes"], data["messages"], **{name: data.get(name) for name in _SECTIONS})

    def merge(self, other: Record) -> None:
        """Take in another part of the same case. A section that both have is *other*'s; of the engine both know
        something."""
        self.outcomes.update(other.outcomes)
        for part in other.outcomes:
            self.messages.pop(part, None)  # an earlier attempt's
        self.messages.update(other.messages)
        for name in _SECTIONS:
            theirs, mine = getattr(other, name), getattr(self, name)
            if theirs is not None:
                setattr(self, name, _merged_engines(mine, theirs) if name == "engine" and mine else theirs)


def _merged_engines(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """What two parts of a case know of its engine: only one of them compares it with the baseline."""
    # A freshly built engine stays visible: the second part always finds it cached.
    merged = {**theirs, **mine} if mine.get("fresh") else {**mine, **theirs}
    if remarks := dict.fromkeys([*mine.get("remarks", ()), *theirs.get("remarks", ())]):
        merged["remarks"] = list(remarks)
    if "lock" in merged:  # it was made of these
        merged.pop("tactics", None)
        merged.pop("timing", None)
    return merged


_SECTIONS = (
    "environment",
    "engine",
    "precision",
    "inputs",
    "accuracy",
    "latency",
    "verdict",
    "baseline",
    "streams",
    "builds",
    "search",
    "explanation",
)


def merge_records(records: Iterable[Record]) -> list[Record]:
    """Merge the parts of each case, keeping the order in which cases first appear."""
    merged: dict[Case, Record] = {}
    for record in records:
        if record.case in merged:
            merged[record.case].merge(record)
        else:
            merged[record.case] = record
    return list(merged.values())


def accuracy_section(comparison: Comparison) -> dict[str, Any]:
    """The ``accuracy`` section of a record: per output the figures that reports and baselines use."""
    outputs = {}
    for output in comparison.outputs:
        row: dict[str, Any] = {
            "ok": output.ok,
            "problems": [p.text for p in output.problems],
            "tolerance": output.tolerance.to_json(),
        }
        if output.metrics is not None:
            metrics = output.metrics.to_json()
            row |= {
                k: metrics[k] for k in ("count", "mismatched", "mean_abs", "rmse", "expected_rms", "cosine", "snr_db")
            }
            row |= {k: (metrics.get(k) or {}).get("value") for k in ("max_abs", "max_rel")}
        if output.ranking is not None:
            row |= output.ranking.to_json()
        outputs[output.name] = row
    return {"ok": comparison.ok, "samples": comparison.samples, "summary": comparison.summary, "outputs": outputs}


def undecided_metric(record: Record) -> str:
    """What is said of the first metric that has too few samples for a verdict that gates; else nothing."""
    for name, row in ((record.accuracy or {}).get("metrics") or {}).items():
        verdict = row.get("verdict") or {}
        if verdict.get("gates") and verdict["outcome"] == "inconclusive":
            return f'metric "{name}": {verdict["sentence"]}'
    return ""


def latency_section(
    loads: Sequence[Samples], summary: Summary, transfers_ms: dict[str, float], note: str
) -> dict[str, Any]:
    """The ``latency`` section of a record, from the samples of each load. *note* says why a clock is not the best
    one; samples keep 5 digits, in the order in which they were taken. ``course`` says per load how sampling went,
    ``disturbed`` what speaks against the samples; ``parts_ms`` are medians of what the clock tells apart."""
    from statistics import median

    from pytest_trt.latency.disturbances import disturbances

    conditions = [samples.conditions for samples in loads]
    parts = {name: [value for samples in loads for value in samples.parts_ms[name]] for name in loads[0].parts_ms}
    disturbed = disturbances(conditions, parts)
    return {
        "clock": loads[0].clock,
        "summary": summary.to_json(),
        "loads_ms": [float(f"{median(samples.values_ms):.5g}") for samples in loads],
        "transfers_ms": {name: float(f"{value:.4g}") for name, value in transfers_ms.items()},
        **({"parts_ms": {name: float(f"{median(part):.5g}") for name, part in parts.items()}} if parts else {}),
        "conditions": conditions,
        "course": [samples.course() for samples in loads],
        **({"disturbed": disturbed} if disturbed else {}),
        "warmup_count": sum(samples.warmup_count for samples in loads),
        **({"note": note} if note else {}),
        "samples_ms": [float(f"{value:.5g}") for samples in loads for value in samples.values_ms],
    }
