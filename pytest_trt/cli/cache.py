"""``pytest-trt cache``: what is kept, and whether it is sound."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytest_trt.cli.exits import MISMATCH, PASS
from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "add_arguments", "run"]

HELP = "look into the artifact cache, or tidy it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    parser.add_argument("action", choices=("ls", "explain", "verify", "gc"))
    parser.add_argument("digest", nargs="?", help="for explain: the entry's digest, or how it begins")
    parser.add_argument(
        "--older-than", type=float, metavar="DAYS", help="for gc: also evict what was not used for so long"
    )


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Do the action and print what it found; 1 where an entry is not as recorded."""
    from pytest_trt.artifacts import maintenance

    if given.action == "ls":
        lines = maintenance.listing(lab.store)
    elif given.action == "verify":
        lines = maintenance.problems(lab.store)
        if lines:
            print("\n".join(lines))
            return MISMATCH
        lines = [f"{sum(1 for _ in lab.store.entries())} entries, each matches its recorded digest"]
    elif given.action == "gc":
        lines = maintenance.collect_garbage(lab.store, lab.settings.cache_size, given.older_than)
    else:
        if not given.digest:
            raise UsageError("cache explain needs the digest of an entry", hint="pytest-trt cache ls shows them")
        lines = maintenance.explanation(lab.store, given.digest)
    print("\n".join(lines))
    return PASS
