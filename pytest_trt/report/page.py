"""Records -> the Markdown page of a run, in a file or in the job summary of GitHub Actions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_trt.errors import UsageError
from pytest_trt.record import Record
from pytest_trt.report.markdown import render

__all__ = ["SUMMARY", "page_target", "write_page"]

SUMMARY = "GITHUB_STEP_SUMMARY"
# GitHub refuses the summary of a step above 1 MiB.
_SUMMARY_BYTES = 1_000_000


def page_target(path: Path, environ: Mapping[str, str]) -> Path:
    """Where the page goes: *path*, or the job summary for ``-``. Raises UsageError where there is none."""
    if not _is_summary(path):
        return path
    if not environ.get(SUMMARY):
        raise UsageError(
            f"--trt-markdown=- appends to the job summary of GitHub Actions, but {SUMMARY} is not set",
            hint="name a file",
        )
    return Path(environ[SUMMARY])


def write_page(path: Path, records: Sequence[Record], environ: Mapping[str, str]) -> Path:
    """Write the page to *path*, or append it to the job summary, cut to what GitHub takes; return where it is.

    Raises UsageError when that fails.
    """
    target = page_target(path, environ)
    counts = Counter(record.outcome for record in records)
    page = render(records, "Engines: " + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    try:
        if _is_summary(path):
            with target.open("ab") as stream:
                stream.write(_cut(page, _SUMMARY_BYTES - stream.tell()).encode())
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--trt-markdown: {target} cannot be written: {error.strerror or error}",
            hint="name a file that you may write",
        ) from error
    return target


def _is_summary(path: Path) -> bool:
    # One from the ini file stands behind the root directory.
    return path.name == "-"


def _cut(page: str, limit: int) -> str:
    if len(page.encode()) <= limit:
        return page
    note = "\n\nThe page is longer than a job summary may be; `--trt-report` has all records.\n"
    kept = page.encode()[: max(0, limit - len(note.encode()))].decode(errors="ignore")
    return kept.rpartition("\n")[0] + note
