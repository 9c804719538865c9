"""Entries whose case is gone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pytest_trt.spec.case import Case
from pytest_trt.spec.precision import PRECISIONS

__all__ = ["orphaned_cases"]


def orphaned_cases(names: Iterable[str], cases: Sequence[Case]) -> list[Case]:
    """The cases that the entries *names* were recorded for and that are none of *cases*, which are all that one model
    has in this run.

    Precisions, tactics, graphs and build options come and go with the command line. So an entry is judged only beside
    a case that shares all of these with it: it is an orphan when the model no longer has its profile.
    """
    ids = {case.id for case in cases}
    found: dict[str, Case] = {}
    for name in set(names) - ids:
        for case in cases:
            profile = _profile(name, case)
            if profile:
                found[name] = replace(case, profile=profile)
    return [found[name] for name in sorted(found)]


def _profile(name: str, case: Case) -> str:
    """The profile in the id *name*, if all else in it is *case*'s; else nothing."""
    bare = replace(case, profile="")
    at = len(bare.id) - len(bare.variant_id) + len(case.precision) + 1
    begin, end = bare.id[:at], bare.id[at:]
    longer = [begin[: -len(case.precision) - 1] + p + "-" for p in PRECISIONS if p.startswith(f"{case.precision}-")]
    if not (name.startswith(begin) and name.endswith(end)) or name.startswith(tuple(longer)):
        return ""
    profile = name[len(begin) : len(name) - len(end)]
    return "" if set(profile) & set("[]") else profile  # brackets hold another axis
