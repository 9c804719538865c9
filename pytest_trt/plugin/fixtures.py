"""Fixtures, one line each on the Lab, and the parametrization that spans the matrix over them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_trt.errors import TrtError
from pytest_trt.plugin.marks import MarkOptions, threshold_of
from pytest_trt.plugin.options import get_lab, get_settings
from pytest_trt.plugin.parts import Part, add_record, as_text, judge_states, run_part

if TYPE_CHECKING:
    from pytest_trt.accuracy.comparison import Comparison
    from pytest_trt.backends import Session
    from pytest_trt.lab import Lab
    from pytest_trt.latency.gate import Verdict
    from pytest_trt.search import Worst
    from pytest_trt.spec.case import Case
    from pytest_trt.spec.inputs import Sample


_PACKAGE = Path(__file__).parents[1]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trt_case" not in metafunc.fixturenames:
        return
    cases: list[Any]
    try:
        mark = MarkOptions.from_node(metafunc.definition)
        lab = get_lab(metafunc.config)
        manifest = lab.add(_find(mark.model, metafunc.definition.path.parent, metafunc.config.rootpath))
        cases = list(lab.cases(manifest, mark.axes))
        ids = [case.variant_id for case in cases]
    except TrtError as error:
        # One failed test with the message; a collection error would stop the whole session.
        cases, ids = [error], ["broken"]
    metafunc.parametrize("trt_case", cases, ids=ids, indirect=True)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, object, None]:
    """What a test of the user's own calls can raise a TrtError, as ``trt_engine.run`` does. The test's line and the
    message say it all: frames of this package and a library's own error are left out, unless ``--full-trace``. A skip
    stands where the test does, not in this package."""
    excinfo = call.excinfo
    if excinfo is not None and isinstance(excinfo.value, TrtError) and not item.config.getoption("fulltrace"):
        call.excinfo = pytest.ExceptionInfo.from_exception(_without_ours(excinfo.value))
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's Result, untyped through the hook
    if report.skipped and isinstance(report.longrepr, tuple) and _is_ours(report.longrepr[0]):
        report.longrepr = (str(item.path), (item.location[1] or 0) + 1, report.longrepr[2])


def _is_ours(path: str) -> bool:
    return Path(path).is_relative_to(_PACKAGE)


def _without_ours(error: TrtError) -> TrtError:
    frames, entry = [], error.__traceback__
    while entry is not None:
        frames.append(entry)
        entry = entry.tb_next
    theirs = [frame for frame in frames if not _is_ours(frame.tb_frame.f_code.co_filename)]
    kept = None
    for frame in reversed(theirs or frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    error.__cause__, error.__suppress_context__ = None, True
    return error.with_traceback(kept)


def _find(model: str, folder: Path, root: Path) -> Path:
    """*model* from the root directory or beside the test file: the first one that is a model, else that exists."""
    places = [root / model, folder / model]
    models = [p for p in places if p.is_file() or any((p / name).is_file() for name in ("trt.toml", "model.onnx"))]
    return next(iter([*models, *(p for p in places if p.exists()), *places]))


@pytest.fixture(scope="session")
def trt_lab(pytestconfig: pytest.Config) -> Lab:
    """The session's Lab: ``engine``, ``check``, ``measure`` and all they are made of."""
    return get_lab(pytestconfig)


@pytest.fixture
def trt_case(request: pytest.FixtureRequest) -> Case:
    """The case that this run of the test is about (model, precision, profile, tactics, backend)."""
    if isinstance(request.param, TrtError):
        pytest.fail(str(request.param), pytrace=False)
    case: Case = request.param
    return case


@pytest.fixture
def trt_engine(request: pytest.FixtureRequest, trt_lab: Lab, trt_case: Case) -> Session:
    """The case's engine, built or taken from the cache, and loaded: ``trt_engine.run({"x": array})``.

    It is the Lab's to close. A case that its backend cannot run skips the test with the reason.
    """
    return as_text(request.node, lambda: trt_lab.engine(trt_case)[1])


@pytest.fixture
def trt_inputs(request: pytest.FixtureRequest, trt_lab: Lab, trt_case: Case) -> list[Sample]:
    """The input samples at the profile's opt shapes; ``sample.feeds`` maps input names to arrays."""
    limit = trt_lab.settings.samples
    return as_text(request.node, lambda: trt_lab.samples(trt_case, trt_lab.profile(trt_case).at("opt"), limit)[0])


@pytest.fixture
def trt_reference(request: pytest.FixtureRequest, trt_lab: Lab, trt_case: Case) -> list[dict[str, Any]]:
    """The expected outputs of ``trt_inputs``, one mapping of output names to arrays per sample."""
    limit = trt_lab.settings.samples
    return as_text(request.node, lambda: trt_lab.expected(trt_case, trt_lab.profile(trt_case).at("opt"), limit)[1])


@pytest.fixture
def trt_check(request: pytest.FixtureRequest, trt_lab: Lab, trt_case: Case) -> Callable[..., Comparison]:
    """Call it to compare every output with the reference at every corner of the profile.

    Keywords (``rtol``, ``atol``, ``cosine``, …) override the marker's. Fails the test where they are not close.
    """
    mark = MarkOptions.from_node(request.node)

    def check(**tolerance: Any) -> Comparison:
        __tracebackhide__ = True
        record = trt_lab.record(trt_case)
        add_record(request.node, record)
        origin = f"trt_check() in {request.node.nodeid}" if tolerance else mark.origin
        comparison = run_part(
            request.node,
            record,
            Part.ACCURACY,
            lambda: trt_lab.check(trt_case, record, {**mark.tolerance, **tolerance}, origin),
            lambda: trt_lab.build_log(trt_case),
        )
        settings = get_settings(request.config)
        if settings.latency == "off" or "trt_latency" not in request.fixturenames:  # nothing else of the test asks
            judge_states(record, Part.ACCURACY, inconclusive=settings.inconclusive, baseline=settings.baseline)
        return comparison

    return check


@pytest.fixture
def trt_search(request: pytest.FixtureRequest, trt_lab: Lab, trt_case: Case) -> Callable[..., Worst]:
    """Call it to search the profile for the worst input: ``trt_search(examples=200, special_values=True)``.

    The smallest input that fails is saved beside the model, unless ``save=False``, and fails the test. Other keywords
    (``rtol``, ``atol``, ``cosine``, …) override the marker's tolerances.
    """
    mark = MarkOptions.from_node(request.node)

    def search(
        *, examples: int | None = None, special_values: bool | str = False, save: bool = True, **tolerance: Any
    ) -> Worst:
        __tracebackhide__ = True
        record = trt_lab.record(trt_case)
        add_record(request.node, record)
        origin = f"trt_search() in {request.node.nodeid}" if tolerance else mark.origin
        limits = {**mark.tolerance, **tolerance}
        asked: dict[str, Any] = {"examples": examples, "special_values": special_values, "save": save}
        return run_part(
            request.node,
            record,
            Part.SEARCH,
            lambda: trt_lab.search(trt_case, record, limits, origin, **asked),
            lambda: trt_lab.build_log(trt_case),
        )

    return search


@pytest.fixture
def trt_latency(request: pytest.FixtureRequest, trt_lab: Lab, trt_case: Case) -> Callable[..., Verdict | None]:
    """Call it to measure the engine, record the samples with pytest-benchmark, and gate them.

    ``threshold=0.03``, or ``"3%"``, overrides the marker's. Returns the verdict, None where no baseline is stored or
    where ``--trt-latency=off``. Fails the test on a regression.
    """
    mark = MarkOptions.from_node(request.node)

    def latency(threshold: float | str | None = None) -> Verdict | None:
        __tracebackhide__ = True
        from pytest_trt.plugin.benchmark import feed

        given = as_text(request.node, lambda: threshold_of(f"trt_latency() in {request.node.nodeid}", threshold))
        if get_settings(request.config).latency == "off":
            return None
        record = trt_lab.record(trt_case)
        add_record(request.node, record)
        limit = mark.threshold if given is None else given
        settings = get_settings(request.config)
        try:
            verdict = run_part(
                request.node,
                record,
                Part.LATENCY,
                lambda: trt_lab.measure(trt_case, record, limit),
                lambda: trt_lab.build_log(trt_case),
            )
            judge_states(record, Part.LATENCY, inconclusive=settings.inconclusive, baseline=settings.baseline)
            return verdict
        finally:
            feed(request.node, record)

    return latency
