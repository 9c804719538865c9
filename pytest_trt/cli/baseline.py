"""``pytest-trt baseline``: the stored baselines, and what accepts others."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_trt.cli.exits import MISMATCH, NOTHING, PASS
from pytest_trt.cli.messages import own_flags
from pytest_trt.errors import UsageError

if TYPE_CHECKING:
    from pytest_trt.lab import Lab

__all__ = ["HELP", "add_arguments", "run"]

HELP = "list baselines, accept those of a report, or move anchors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is not an option of the settings."""
    parser.add_argument("action", choices=("ls", "accept", "anchor"))
    parser.add_argument(
        "report_file",
        nargs="?",
        type=Path,
        metavar="REPORT",
        help="for accept: a report.json; for anchor: anchor its values, without it the recent ones",
    )


def run(lab: Lab, given: argparse.Namespace) -> int:
    """Do the action and print what changed; 1 where a value was refused, 4 where there is nothing to list."""
    from pytest_trt.baselines.changes import brief

    if given.action == "ls":
        files = lab.baselines.files()
        if not files:
            print(f"pytest-trt: there are no baselines below {lab.baselines.root}", file=sys.stderr)
        for file in files:
            content = lab.baselines.load(file)
            print(f"{file}: {content['environment']['device']}, {content['environment']['backend']}")
            for name, entry in content["cases"].items():
                median = (entry.get("latency") or {}).get("median_ms")
                shown = f"{median:.4g} ms" if median else "-"
                print(f"  {name}  {shown}  recorded {entry['recorded']}: {entry['reason']}")
                if anchor := entry.get("anchor"):
                    print(f"    anchor {brief(anchor)}, recorded {anchor['recorded']}: {anchor['reason']}")
        for waiver in lab.baselines.waivers:
            until = f"{'EXPIRED on' if waiver.expired() else 'until'} {waiver.expires}"
            print(f"waiver {waiver.case}  {until}  {waiver.owner}: {waiver.reason}")
        return PASS if files else NOTHING
    if given.action == "anchor" and given.report_file is None:
        reason = (lab.settings.reason or "").strip()
        if not reason:
            raise UsageError("moving anchors needs a reason", hint='add --trt-reason="release 2.1"')
        moved = lab.baselines.move_anchors(reason=reason)
        print("\n".join(moved) if moved else "baselines: every anchor is the recent one")
        return PASS
    if given.report_file is None:
        raise UsageError("baseline accept needs a report", hint="pytest … --trt-report=report.json writes one")
    mode = "anchor" if given.action == "anchor" else lab.settings.update_baselines or "new"
    if not (lab.settings.reason or "").strip():
        raise UsageError(f"accepting a report ({mode}) needs a reason", hint='add --trt-reason="why it is right"')
    from pytest_trt.baselines.update import accept
    from pytest_trt.report.export import read_report

    done = accept(lab.baselines, read_report(given.report_file), mode, lab.settings.reason)
    print(own_flags("\n".join(done.lines)))
    return MISMATCH if done.refused else PASS
