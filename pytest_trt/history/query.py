"""Which rows: filters, the order of commits, and the two sides of a comparison. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from pytest_trt.counted import counted
from pytest_trt.errors import UsageError, nearest
from pytest_trt.history.moments import moment_of
from pytest_trt.history.rows import Row, Series

__all__ = ["along", "in_order", "pick", "select", "series"]


def select(
    rows: Iterable[Row],
    *,
    case: str | None = None,
    environment: str | None = None,
    branch: str | None = None,
    commits: Collection[str] | None = None,
) -> list[Row]:
    """The rows whose id matches the glob *case*, whose environment's slug matches the glob *environment*, and which
    were measured on *branch*, at one of *commits*. What is None filters nothing."""
    return [
        row
        for row in rows
        # An id may hold brackets, which a glob reads as a set: the id itself always matches.
        if (case is None or row.id == case or fnmatchcase(row.id, case))
        and (environment is None or fnmatchcase(row.slug, environment))
        and (branch is None or (row.git is not None and row.git.branch == branch))
        and (commits is None or row.commit in commits)
    ]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By the date of the commit, so that an old commit that is measured today stands where it belongs; then by time."""
    return sorted(rows, key=lambda row: (_committed(row), row.time, row.run))


def _committed(row: Row) -> datetime:
    # git writes each date in its committer's time zone: as texts they have no order.
    return moment_of(row.git and row.git.committed) or moment_of(row.time) or datetime.min.replace(tzinfo=timezone.utc)


def along(rows: Sequence[Row], line: Mapping[str, int]) -> tuple[list[Row], int]:
    """The rows whose commits lie on *line* (commit -> place), in its order, and how many others were left out.

    Where *line* knows none of them (no repository, a shallow clone), all rows in the order of their dates.
    """
    on_line = [row for row in rows if row.commit in line]
    if not on_line:
        return in_order(rows), 0
    # Changed files belong to no commit: their rows would put the change at the wrong one.
    clean = [row for row in on_line if row.git and not row.git.dirty] or on_line
    return sorted(clean, key=lambda row: (line[row.commit], row.time, row.run)), len(rows) - len(clean)


def series(rows: Iterable[Row]) -> dict[Series, list[Row]]:
    """Rows that were measured alike, in the order in which they come. A driver's or a library's version may change
    within a series: that is a reason for a change, not another question."""
    found: dict[Series, list[Row]] = {}
    for row in rows:
        found.setdefault(row.series, []).append(row)
    return found


def pick(rows: Sequence[Row], selector: str, resolve: Callable[[str], str | None]) -> list[Row]:
    """The rows of one side: ``latest`` or ``latest~N`` (the Nth run before it), a run by how its name begins, a branch
    (its latest commit), or a commit (any revision that *resolve* knows, or how the hash begins).

    All runs of a commit belong to its side. Raises UsageError when nothing matches, or more than one commit.
    """
    runs = list(dict.fromkeys(row.run for row in sorted(rows, key=lambda row: (row.time, row.run), reverse=True)))
    word, tilde, back = selector.partition("~")
    if word == "latest" and (not tilde or back.isdigit()):
        place = int(back or 0)
        if place >= len(runs):
            raise UsageError(f"{selector!r}: the history holds {counted(len(runs), 'run')} of these cases")
        return [row for row in rows if row.run == runs[place]]
    if found := [row for row in rows if row.run == selector]:
        return found
    commit = _commit(rows, selector, resolve)
    if found := [row for row in rows if commit and row.commit == commit]:
        # Clean runs say what the commit does; changed files are only better than nothing.
        return [row for row in found if row.git and not row.git.dirty] or found
    if len(matching := [run for run in runs if run.startswith(selector)]) == 1:
        return [row for row in rows if row.run == matching[0]]
    known = [*{row.revision for row in rows}, *{row.git.branch for row in rows if row.git and row.git.branch}]
    reason = "its commit was not measured" if commit else "no run, commit or branch of the history is called so"
    raise UsageError(f"{selector!r}: {reason}; {nearest(selector, known)}", hint="pytest-trt history list shows them")


def _commit(rows: Sequence[Row], selector: str, resolve: Callable[[str], str | None]) -> str | None:
    if on_branch := [row for row in in_order(rows) if row.git and row.git.branch == selector]:
        return on_branch[-1].commit
    measured = {row.commit for row in rows if row.commit}
    begun = {commit for commit in measured if len(selector) >= 4 and commit.startswith(selector.lower())}
    if len(begun) > 1:
        raise UsageError(f"{selector!r} begins {len(begun)} commits of the history", hint="give more of the hash")
    return next(iter(begun), None) or resolve(selector)
