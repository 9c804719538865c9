"""Collecting models: ``trt.toml`` wherever pytest walks, ``.onnx`` files that were named.

A model file gives one ``model`` item (it loads, its profiles and inputs fit) and, per case, the items
``accuracy[…]`` and ``latency[…]``, and ``streams[…]``, ``builds[…]`` and ``search[…]`` where they are asked for. A
broken model is one failed ``model`` item; its cases are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.errors import (
    BaselineFailure,
    Failure,
    InputsError,
    ManifestError,
    ModelError,
    ProfileError,
    TrtError,
    UnsupportedError,
)
from pytest_trt.plugin.options import get_lab, get_settings, made_lab
from pytest_trt.plugin.parts import Part, add_record, judge_states, run_part

if TYPE_CHECKING:
    from pytest_trt.record import Record
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.manifest import Manifest

__all__ = ["CaseItem", "ModelFile", "ModelItem"]

_LEFT_OUT = pytest.StashKey[list[Path]]()
# What the model item is for: where it fails, the cases have nothing of their own to say.
_OF_THE_MODEL = (ModelError, ManifestError, ProfileError, InputsError)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ModelFile | None:
    if file_path.suffix in (".toml", ".onnx") and _is_bundle(file_path.parent):
        # Evidence of a failure fails by design: it is run where somebody names it.
        places = [file_path, *([file_path.parent] if file_path.name == "trt.toml" else [])]
        if not any(parent.session.isinitpath(place) for place in places):
            return None
    if file_path.name == "trt.toml":
        return ModelFile.from_parent(parent, path=file_path)
    if file_path.suffix != ".onnx":
        return None
    # A pattern matches what a trt.toml beside it brings in already; a file that was named is asked for by itself.
    named = parent.session.isinitpath(file_path)
    if named or (_matched(file_path, parent.config) and not _has_manifest(file_path, parent.config)):
        return ModelFile.from_parent(parent, path=file_path)
    if not _has_manifest(file_path, parent.config):
        parent.config.stash.setdefault(_LEFT_OUT, []).append(file_path)
    return None


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    wanted = get_settings(config).variant
    variants = {item.manifest.variant for item in items if isinstance(item, ModelItem) and item.manifest is not None}
    if wanted and variants and wanted not in variants:
        return [f"trt: --trt-variant: no collected model has a variant {wanted!r}"]
    left_out = config.stash.get(_LEFT_OUT, [])
    # Elsewhere an .onnx file may lie about for other reasons; a run that found nothing at all was meant for it.
    if items or not left_out:
        return []
    return [
        f"trt: {len(left_out)} .onnx not collected, {left_out[0].name} the first: name the file, put a trt.toml "
        "beside it, or set the ini option trt_models"
    ]


def _is_bundle(folder: Path) -> bool:
    return (folder / "case.json").is_file() and (folder / "reproduce.py").is_file()


def _has_manifest(path: Path, config: pytest.Config) -> bool:
    try:
        return _manifest_of(path, config) is not None
    except ManifestError:
        return True  # it is collected too, and says what is wrong with it


def _manifest_of(path: Path, config: pytest.Config) -> Path | None:
    """The ``trt.toml`` beside the model at *path*, where one is there and means it. Raises ManifestError."""
    if not path.with_name("trt.toml").is_file():
        return None  # so far nothing was imported
    from pytest_trt.lab.catalog import manifest_of

    return manifest_of(path, get_settings(config).variant)


def _matched(path: Path, config: pytest.Config) -> bool:
    patterns = config.getini("trt_models")
    return path.is_relative_to(config.rootpath) and any(
        fnmatch(path.relative_to(config.rootpath).as_posix(), p) for p in patterns
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    lab = made_lab(item.config)
    if lab is not None and getattr(item, "execution_count", 1) > 1:  # pytest-rerunfailures'
        lab.unbuildable.clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(get_settings(config).profile or ())
    ours = [item for item in items if isinstance(item, CaseItem)]
    files = {item.parent for item in items if isinstance(item, ModelItem) and item.error is None}
    missing = wanted - {item.case.profile for item in ours}
    others = [item for item in items if not isinstance(item, TextItem)]
    if wanted and files and missing and not any(item.get_closest_marker("trt") for item in others):
        raise pytest.UsageError(f"--trt-profile: no collected model has a profile {', '.join(sorted(missing))}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell the Lab how many latency verdicts this run will give, those of other workers included."""
    measured = sum(
        item.part is Part.LATENCY if isinstance(item, CaseItem) else "trt_latency" in getattr(item, "fixturenames", ())
        for item in session.items
    )
    if measured:
        from pytest_trt.latency.multiplicity import comparisons_of

        confirmed = get_settings(session.config).confirm == "on"
        get_lab(session.config).comparisons = comparisons_of(measured, confirmed=confirmed)


class ModelFile(pytest.File):
    """A ``trt.toml`` or an ``.onnx`` file. Its items carry the marker ``trt``, so that ``-m`` chooses them too."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_marker("trt")

    def collect(self) -> Iterator[pytest.Item]:
        lab, settings = get_lab(self.config), get_settings(self.config)
        try:
            manifest = lab.add(self.path)
            cases = lab.cases(manifest)
        except TrtError as error:
            yield ModelItem.from_parent(self, name="model", manifest=None, error=error)
            return
        yield ModelItem.from_parent(self, name="model", manifest=manifest, error=None)
        for case in cases:
            yield CaseItem.from_parent(self, name=f"accuracy[{case.variant_id}]", case=case, part=Part.ACCURACY)
            for part, asked in (
                (Part.LATENCY, settings.latency == "on"),
                (Part.STREAMS, settings.streams > 1),
                (Part.BUILDS, settings.builds > 1),
                (Part.SEARCH, settings.search > 0),
            ):
                if asked:
                    yield CaseItem.from_parent(self, name=f"{part.value}[{case.variant_id}]", case=case, part=part)


class TextItem(pytest.Item):
    """An item whose expected failures print as text, not as a traceback of ours."""

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, (TrtError, Failure)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        # Line 0 and not None: where a skip mark was added to the item, pytest wants a line to name.
        return self.path, 0, f"{self.path.parent.name}: {self.name}"


class ModelItem(TextItem):
    """Does the model load, do its profiles fit, can its inputs be read? Which of its baselines have no case?"""

    def __init__(self, *, manifest: Manifest | None, error: TrtError | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.error = error

    def runtest(self) -> None:
        try:
            self._look()
        except UnsupportedError as error:
            reason = error.message
        else:
            return
        pytest.skip(reason)  # outside of the except clause, so that no chain of tracebacks is kept

    def _look(self) -> None:
        if self.error is not None:
            raise self.error
        lab = get_lab(self.config)
        if self.manifest is not None:
            cases = lab.cases(self.manifest)
            for case in cases:
                lab.inputs(case, lab.profile(case).at("opt")).samples(lab.profile(case).at("opt"), limit=1)
            self._judge_orphans(cases)

    def _judge_orphans(self, cases: list[Case]) -> None:
        from pytest_trt.baselines.state import complaint
        from pytest_trt.lab.baseline_gate import orphans

        said = None
        for record in orphans(get_lab(self.config), cases):
            add_record(self, record)
            found = complaint(record.baseline, strict=get_settings(self.config).baseline == "strict")
            if found:
                record.outcomes["baseline"], record.messages["baseline"] = "failed", found[0]
                said = said or (f"{record.case}: {found[0]}", found[1])
        if said:
            raise BaselineFailure(*said)


class CaseItem(TextItem):
    """One part of one case."""

    def __init__(self, *, case: Case, part: Part, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        self.part = part

    def runtest(self) -> None:
        lab, settings = get_lab(self.config), get_settings(self.config)
        self._skip_where_the_model_failed()
        record = lab.record(self.case)
        add_record(self, record)
        acts: dict[Part, Callable[[Case, Record], object]] = {
            Part.ACCURACY: lab.check,
            Part.STREAMS: lab.run_streams,
            Part.BUILDS: lab.draw,
            Part.SEARCH: lab.search,
        }
        if self.part in acts:
            self._run(record, lambda: acts[self.part](self.case, record))
            if self.part is Part.ACCURACY and settings.latency == "off":  # no other item of the case asks
                judge_states(record, self.part, inconclusive=settings.inconclusive, baseline=settings.baseline)
            return
        from pytest_trt.plugin.benchmark import feed

        try:
            self._run(record, lambda: lab.measure(self.case, record))
            judge_states(record, self.part, inconclusive=settings.inconclusive, baseline=settings.baseline)
        finally:
            feed(self, record)

    def _run(self, record: Record, act: Callable[[], object]) -> None:
        lab = get_lab(self.config)
        run_part(self, record, self.part, act, lambda: lab.build_log(self.case))

    def _skip_where_the_model_failed(self) -> None:
        lab = get_lab(self.config)
        try:
            lab.samples(self.case, lab.profile(self.case).at("opt"), 1)
        except _OF_THE_MODEL as error:
            if any(isinstance(item, ModelItem) and item.parent is self.parent for item in self.session.items):
                pytest.skip(f"the model cannot be used, see {self.parent.nodeid if self.parent else ''}::model")
            if isinstance(error, UnsupportedError):
                pytest.skip(error.message)
            raise error
