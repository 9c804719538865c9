"""The folder of baselines: what is stored for a case, and how it is replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_trt.baselines.changes import brief, change_lines
from pytest_trt.baselines.entries import anchored, environment_of, fingerprint_of, make_entry, renamed
from pytest_trt.baselines.files import SCHEMA_VERSION, exclusive, file_name, read, write
from pytest_trt.baselines.match import Level, compatibility
from pytest_trt.baselines.orphans import orphaned_cases
from pytest_trt.baselines.state import Match
from pytest_trt.baselines.waivers import Waiver, read_waivers, waivers_of
from pytest_trt.environment import Environment
from pytest_trt.errors import BaselineError
from pytest_trt.record import Record
from pytest_trt.spec.case import Case

__all__ = ["SCHEMA_VERSION", "BaselineStore", "Match", "environment_of"]


class BaselineStore:
    """Reads and writes one folder of baseline files. A missing folder is an empty one.

    Whatever writes does so inside ``exclusive()``, in which the files are read anew: two processes that accept at once
    do not lose each other's entries.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: dict[Path, dict[str, Any]] = {}
        self._held = False

    @cached_property
    def waivers(self) -> tuple[Waiver, ...]:
        """What ``waivers.toml`` says. Raises BaselineError."""
        return read_waivers(self.root)

    def match(
        self, case: Case, environment: Environment, *, fingerprint: str = "", known: Collection[str] = ()
    ) -> Match:
        """Find the best stored entry for *case*. With the *fingerprint* of its model an entry of another name is found
        as well, unless it is of one of the *known* models, which exist beside it. Raises BaselineError for a file that
        cannot be read."""
        found = self._stored(case, environment)
        if found.entry is None and fingerprint:
            found = self._renamed(case, environment, fingerprint[:16], known) or found
        return replace(found, waivers=waivers_of(self.waivers, case.id))

    def _stored(self, case: Case, environment: Environment) -> Match:
        stale: Match | None = None
        elsewhere = []
        for file in self.files(case.model):
            content = self.load(file)
            entry = content["cases"].get(case.id)
            if entry is None:
                continue
            alike = compatibility(content["environment"], environment)
            if alike.level is Level.EXACT:
                return Match("current", entry, file)
            if alike.level is Level.OTHER:
                elsewhere.append(str(content["environment"].get("device")))
            elif stale is None or entry["recorded"] > (stale.entry or {})["recorded"]:
                stale = Match("stale", entry, file, alike.differences)
        return stale or Match("missing", elsewhere=tuple(dict.fromkeys(elsewhere)))

    def _renamed(self, case: Case, environment: Environment, fingerprint: str, known: Collection[str]) -> Match | None:
        """The entry of the same model and axes under another id: of the present environment before one that is like
        it, then the latest."""
        present = {replace(case, model=name).id for name in known}
        found = []
        for file in self.files():
            try:
                content = self.load(file)
            except BaselineError:
                continue  # another model's file, which is said where that model is tested
            alike = compatibility(content["environment"], environment)
            for name, entry in content["cases"].items():
                same = name.endswith(f"-{case.variant_id}") and entry.get("model_fingerprint") == fingerprint
                if same and name not in present and alike.level is not Level.OTHER:
                    rank = (alike.level is Level.EXACT, entry["recorded"], name)
                    found.append((rank, Match("renamed", entry, file, alike.differences, name)))
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def orphans(self, cases: Sequence[Case], environment: Environment) -> list[tuple[Case, dict[str, Any]]]:
        """The entries of this environment whose case is gone, given all *cases* that a run has of their model."""
        found = []
        for file in {file: None for case in cases for file in self.files(case.model)}:
            content = self.load(file)
            if compatibility(content["environment"], environment).level is Level.EXACT:
                stored = content["cases"]
                found += [(case, stored[case.id]) for case in orphaned_cases(stored, cases)]
        return found

    def files(self, model: str | None = None) -> list[Path]:
        """The baseline files, of one *model* or of all."""
        return sorted(self.root.glob(f"*/{file_name(model) if model else '*.json'}"))

    def load(self, file: Path) -> dict[str, Any]:
        """The content of *file*, read once. Raises BaselineError."""
        if file not in self._files:
            self._files[file] = read(file)
        return self._files[file]

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Write alone, on what is in the files now. May be entered again by whoever holds it."""
        if self._held:
            yield
            return
        with exclusive(self.root):
            self._files.clear()
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def accept(
        self,
        records: Iterable[Record],
        *,
        reason: str,
        anchor: bool = False,
        known: Collection[str] = (),
        unsteady: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Write *records* as recent recordings, with *anchor* as anchors too; return lines ``id: old → new``.

        *unsteady* says of case ids why they are written although they do not repeat. A renamed case (see ``match``)
        takes its old entry's anchor along. Files appear atomically.
        """
        lines = []
        with self.exclusive():
            for record in records:
                environment, name = environment_of(record), record.case.id
                past = self.match(record.case, environment, fingerprint=fingerprint_of(record), known=known)
                # Found when its turn comes: a record before may have taken the name.
                file = self._file(environment, record.case.model)
                content = self._content(file, environment.to_json())
                old = past.entry if past.found in ("current", "renamed") else None
                why = (unsteady or {}).get(name, "")
                content["cases"][name] = new = make_entry(record, reason, old, anchor=anchor, unsteady=why)
                lines += change_lines(name, past.entry, new, past.differences)
                write(file, content)
        return lines

    def rename(self, records: Iterable[Record], *, reason: str, known: Collection[str] = ()) -> list[str]:
        """Give each of *records* the entry that its case has under another id, values untouched; return lines. The
        entry keeps the *reason* beside that of its values."""
        lines = []
        with self.exclusive():
            for record in records:
                case, environment = record.case, environment_of(record)
                past = self.match(case, environment, fingerprint=fingerprint_of(record), known=known)
                if past.found != "renamed" or past.file is None or past.entry is None:
                    continue
                stored = self.load(past.file)["environment"]
                file = self._free(past.file.parent, case.model, stored.__eq__)
                content = self._content(file, stored)
                # First the new place: an interruption leaves two entries, not none.
                content["cases"][case.id] = renamed(past.entry, reason)
                write(file, content)
                self._delete(past.file, past.renamed_from)
                lines.append(f"{past.renamed_from} → {case.id}: {brief(past.entry)}")
        return lines

    def remove(self, records: Iterable[Record]) -> list[str]:
        """Delete the entries of *records*' cases in their environments; return lines ``id: old → none``."""
        lines = []
        with self.exclusive():
            for record in records:
                past = self.match(record.case, environment_of(record))
                if past.found == "current" and past.file is not None:
                    self._delete(past.file, record.case.id)
                    lines.append(f"{record.case.id}: {brief(past.entry)} → none")
        return lines

    def move_anchors(self, *, reason: str) -> list[str]:
        """Make every recent recording its own anchor, as a release does; return lines ``id: old → new``."""
        lines = []
        with self.exclusive():
            for file in self.files():
                content = self.load(file)
                moved = {name: entry for name, entry in content["cases"].items() if "anchor" in entry}
                for name, entry in moved.items():
                    lines.append(f"{name}: {brief(entry['anchor'])} → {brief(entry)}")
                    content["cases"][name] = anchored(entry, reason)
                if moved:
                    write(file, content)
        return lines

    def _file(self, environment: Environment, model: str) -> Path:
        """The file of *environment*: another one of the same name (a driver's branch, say) keeps its own, so that the
        cases which did not run since stay visible as stale."""
        folder = self.root / environment.slug
        return self._free(folder, model, lambda stored: compatibility(stored, environment).level is Level.EXACT)

    def _free(self, folder: Path, model: str, fits: Callable[[Mapping[str, Any]], bool]) -> Path:
        """*model*'s file in *folder*, or in the first of its namesakes ``-2``, ``-3`` … where it is free or fits."""
        number = 1
        while True:
            file = (folder if number == 1 else folder.with_name(f"{folder.name}-{number}")) / file_name(model)
            if not file.exists() or fits(self.load(file)["environment"]):
                return file
            number += 1

    def _content(self, file: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
        new = {"schema": SCHEMA_VERSION, "environment": dict(environment), "cases": {}}
        return self.load(file) if file.exists() else new

    def _delete(self, file: Path, name: str) -> None:
        content = self.load(file)
        del content["cases"][name]
        write(file, content)
        del self._files[file]  # the last case took the file with it
