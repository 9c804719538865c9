"""Running one part of a case inside a test: outcomes go into the record, failures print as text."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import pytest

from pytest_trt.errors import BaselineFailure, Failure, LatencyFailure, TrtError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.record import Record

__all__ = ["RECORDS", "Part", "add_record", "as_text", "judge_states", "run_part"]

RECORDS = pytest.StashKey["list[Record]"]()
_T = TypeVar("_T")
# The end of a log says what went wrong; the cache keeps all of it.
_LOG_LINES = 60


class Part(str, Enum):
    """What an item of a case does."""

    ACCURACY = "accuracy"
    LATENCY = "latency"
    STREAMS = "streams"
    BUILDS = "builds"
    SEARCH = "search"


def add_record(item: pytest.Item, record: Record) -> None:
    """Attach *record* to *item*; the reporting module sends it on with the item's report."""
    item.stash.setdefault(RECORDS, []).append(record)


def as_text(item: pytest.Item, act: Callable[[], _T]) -> _T:
    """Run *act* for *item*; what the user can act on fails the test as text, what cannot run here skips it."""
    __tracebackhide__ = True
    try:
        return act()
    except TrtError as error:
        broken = error
    # Outside of the except clause, so that the cause is not printed as a chain of tracebacks.
    if isinstance(broken, UnsupportedError):
        pytest.skip(broken.message)
    _attach(item, getattr(broken, "log", ""))
    pytest.fail(str(broken), pytrace=False)


def run_part(item: pytest.Item, record: Record, part: Part, act: Callable[[], _T], log: Callable[[], str]) -> _T:
    """Run *act* for *item* and note its outcome; where it fails, what the builder said is attached: the error's own
    log, or what *log* returns for an engine that was built.

    | act                    | outcome  | test    |
    |------------------------|----------|---------|
    | returns                | passed, inconclusive | passes |
    | raises UnsupportedError| skipped  | skipped |
    | raises Failure         | failed   | fails   |
    | raises anything else   | error    | fails   |
    """
    __tracebackhide__ = True
    name = part.value
    broken: TrtError
    try:
        result = act()
    except Failure as failure:
        record.outcomes[name], record.messages[name] = "failed", failure.summary
        _attach(item, log())
        # Where in this package a verdict was found says nothing; the test's own line does.
        raise failure.with_traceback(None) from None
    except TrtError as error:
        broken = error
    except Exception as error:  # a library's or ours: pytest shows it, and the record must not say skipped
        record.outcomes[name], record.messages[name] = "error", f"{type(error).__name__}: {error}"
        raise
    else:
        undecided = ""
        if part is Part.LATENCY and (record.verdict or {}).get("outcome") == "inconclusive":
            undecided = (record.verdict or {})["sentence"]
        elif part is Part.ACCURACY:
            from pytest_trt.record import undecided_metric

            undecided = undecided_metric(record)
        record.outcomes[name] = "inconclusive" if undecided else "passed"
        if undecided:
            record.messages[name] = undecided
        return result
    record.messages[name] = broken.message  # outside of the except clause: see as_text
    if isinstance(broken, UnsupportedError):
        record.outcomes[name] = "skipped"
        pytest.skip(broken.message)
    record.outcomes[name] = "error"
    _attach(item, getattr(broken, "log", "") or log())
    pytest.fail(str(broken), pytrace=False)


def _attach(item: pytest.Item, log: str) -> None:
    lines = log.splitlines()
    if len(lines) > _LOG_LINES:
        lines = [f"… {len(lines) - _LOG_LINES} lines before", *lines[-_LOG_LINES:]]
    if lines:
        item.add_report_section("call", "build log", "\n".join(lines))


def judge_states(record: Record, part: Part, *, inconclusive: str, baseline: str) -> None:
    """Turn the states that must not pass, and those that the user declared fatal, into a failure. Raises
    BaselineFailure and LatencyFailure."""
    from pytest_trt.baselines.state import complaint

    said, gates = complaint(record.baseline, strict=baseline == "strict"), (record.verdict or {}).get("gates")
    if said:
        record.outcomes[part.value], record.messages[part.value] = "failed", said[0]
        raise BaselineFailure(f"{record.case}: {said[0]}", said[1])
    if inconclusive == "fail" and gates and record.outcomes.get("latency") == "inconclusive":
        record.outcomes["latency"] = "failed"
        raise LatencyFailure(
            f"{record.case}: {record.messages['latency']}",
            "measure longer with --trt-duration, or on a quieter machine",
        )
