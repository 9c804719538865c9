"""Points of a profile, the search for the worst input, and what becomes of what it finds: as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from project import MANIFEST, write_model

from pytest_trt.accuracy.tolerance import Tolerance
from pytest_trt.backends.fake import FakeSession
from pytest_trt.backends.onnxruntime import GraphRunner
from pytest_trt.errors import RunError, UsageError
from pytest_trt.search import RUNS_PER_EXAMPLE, search_worst
from pytest_trt.spec.model import Model
from pytest_trt.spec.shapes import Profile

Run = Callable[..., pytest.RunResult]
Feeds = Mapping[str, np.ndarray]
RANGED = MANIFEST.replace("[profiles.b1]", "[inputs.range]\nx = [-500, 500]\n[profiles.b1]").replace(
    '[inputs]\nfile = "inputs.npz"', ""
)


def record(project: Path, case: str = "tiny-fp32-b8-fake") -> dict[str, Any]:
    """One case's record of the last run with ``--trt-report=report.json``."""
    return next(r for r in json.loads((project / "report.json").read_text())["records"] if r["id"] == case)


def plant(monkeypatch: pytest.MonkeyPatch, fault: Callable[[Feeds], bool], *, refuses: bool = False) -> None:
    """Let the fake engine be wrong, or refuse to run, where *fault* says so."""
    sound = FakeSession.run

    def run(self: FakeSession, feeds: Feeds) -> dict[str, np.ndarray]:
        if fault(feeds) and refuses:
            raise RunError("the engine does not like this shape")
        return {name: array + 9 if fault(feeds) else array for name, array in sound(self, feeds).items()}

    monkeypatch.setattr(FakeSession, "run", run)


def odd_and_large(feeds: Feeds) -> bool:
    """True for batches that are odd and at least 5, and only with values above 100."""
    rows = feeds["x"].shape[0]
    return rows % 2 == 1 and rows >= 5 and bool(np.nanmax(np.abs(feeds["x"])) > 100)


# Points.


@pytest.mark.parametrize(
    ("shapes", "names"),
    [
        ("opt", ["opt"]),
        ("corners", ["opt", "min", "max"]),
        ("all", ["opt", "min", "max", "N=2", "N=15", "N=5", "N=13"]),
        ("3", ["opt", "min", "max", "random-1", "random-2", "random-3"]),
    ],
)
def test_the_points_that_are_asked_for_are_judged(run: Run, project: Path, shapes: str, names: list[str]) -> None:
    result = run("models", f"--trt-shapes={shapes}", "--trt-report=report.json", "-k", "accuracy and b8")

    result.assert_outcomes(passed=1, deselected=4)
    points = record(project)["accuracy"]["points"]
    assert list(points) == names
    assert all(point["ok"] and point["samples"] >= 1 for point in points.values())
    assert all(point["samples"] == 1 for name, point in points.items() if name not in ("opt", "min", "max"))


@pytest.mark.parametrize("shapes", ["al", "0", "-1", "1.5", ""])
def test_other_points_are_refused(run: Run, shapes: str) -> None:
    result = run("models", f"--trt-shapes={shapes}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--trt-shapes: cannot use*one of opt, corners, all, or a number*"])


def test_a_point_that_fails_is_named_with_its_shape(run: Run, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    plant(monkeypatch, lambda feeds: feeds["x"].shape[0] == 13)

    run("models", "-k", "accuracy and b8").assert_outcomes(passed=1, deselected=4)
    result = run("models", "--trt-shapes=all", "-k", "accuracy and b8", "--trt-report=report.json")

    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(["not close at N=13 (x 13x4)", "reproduce *--shapes=all*"])
    assert [n for n, p in record(project)["accuracy"]["points"].items() if not p["ok"]] == ["N=13"]


@pytest.mark.parametrize("backend", ["fake", "onnxruntime-cpu"])
def test_a_corner_that_the_model_itself_refuses_is_named_with_its_shape(run: Run, project: Path, backend: str) -> None:
    path = project / "models" / "tiny" / "model.onnx"
    proto = onnx.load(path)
    proto.graph.node[-1].output[0] = "z"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([8, 3]), "eight"))
    proto.graph.node.append(helper.make_node("Reshape", ["z", "eight"], ["y"], "fixed"))
    onnx.save(proto, path)

    result = run("models", "-k", "accuracy and b8", backend=backend)

    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        [
            f"*tiny[[]fp32, b8, {backend}[]] at min (x 1x4): onnxruntime failed while running the reference: *",
            "*hint: the model itself does not run there, no engine of it: mend the profile, or the model",
        ]
    )


def test_a_shape_within_the_profile_that_is_refused_fails_with_its_name(
    run: Run, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    plant(monkeypatch, lambda feeds: feeds["x"].shape[0] in (2, 15), refuses=True)

    result = run("models", "--trt-shapes=all", "-k", "accuracy and b8", "--trt-report=report.json")

    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(
        [
            "*the engine refuses 2 shapes within its profile: N=2 (x 2x4): the engine does not like this shape",
            "refused      N=2 (x 2x4)*",
            "refused      N=15 (x 15x4)*",
        ]
    )
    points = record(project)["accuracy"]["points"]
    assert points["N=2"]["refused"] == "the engine does not like this shape"
    assert points["max"]["ok"]
    assert record(project)["outcomes"] == {"accuracy": "failed"}


def test_an_engine_that_does_not_run_at_opt_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    plant(monkeypatch, lambda feeds: True, refuses=True)

    run("models", "-k", "accuracy and b8", "--trt-report=report.json").assert_outcomes(failed=1, deselected=4)

    assert record(project)["outcomes"] == {"accuracy": "error"}


def test_a_point_at_which_the_model_itself_does_not_run_is_not_judged(
    run: Run, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    sound = GraphRunner.run

    def reference(self: GraphRunner, feeds: Feeds) -> dict[str, np.ndarray]:
        if feeds["x"].shape[0] == 13:
            raise RunError("no such reshape")
        return sound(self, feeds)

    monkeypatch.setattr(GraphRunner, "run", reference)
    result = run("models", "--trt-shapes=all", "-k", "accuracy and b8", "--trt-report=report.json")

    result.assert_outcomes(passed=1, deselected=4)
    result.stdout.fnmatch_lines(["*tiny-fp32-b8-fake: not judged: N=13 (x 13x4): no such reshape*"])
    assert "N=13" not in record(project)["accuracy"]["points"]


def test_samples_that_do_not_fit_a_point_are_repeated_or_cut(run: Run, project: Path) -> None:
    fixed = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    np.savez(project / "models" / "tiny" / "inputs.npz", x=fixed[:, None, :].repeat(8, axis=1))  # 8 samples of 8x4
    (project / "models" / "tiny" / "trt.toml").write_text(
        MANIFEST.replace("min = [1, 4]", "min = [8, 4]").replace("b1]\nx = [1, 4]", "b1]\nx = [8, 4]")
    )

    at_opt = run("models", "--trt-shapes=opt", "-k", "accuracy and b8")
    beyond = run("models", "--trt-shapes=all", "-k", "accuracy and b8", "--trt-report=report.json")

    at_opt.assert_outcomes(passed=1, deselected=4)
    beyond.assert_outcomes(passed=1, deselected=4)
    assert record(project)["accuracy"]["points"]["max"]["shapes"] == {"x": [16, 4]}


def test_more_points_are_no_drift_against_a_baseline(run: Run, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    plant(monkeypatch, lambda feeds: feeds["x"].shape[0] == 13)
    loose = "--trt-tolerance=rtol=1,atol=99,cosine=off,snr_db=off"
    run("models", loose, "--trt-update-baselines=new").assert_outcomes(passed=5)

    result = run("models", loose, "--trt-shapes=all", "-k", "accuracy", "--trt-report=report.json")

    result.assert_outcomes(passed=2, deselected=3)
    assert record(project)["baseline"]["state"] == "current"


# The search.


def test_a_planted_fault_is_found_shrunk_saved_and_judged_from_then_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    write_model(project / "models" / "tiny", RANGED)
    sound = FakeSession.run
    plant(monkeypatch, odd_and_large)
    run("models", "-k", "accuracy").assert_outcomes(passed=2, deselected=3)

    found = run("models", "--trt-search=100", "-k", "search and b8", "--trt-report=report.json")

    found.assert_outcomes(failed=1, deselected=6)
    found.stdout.fnmatch_lines(
        [
            '*output "y" is not close to the reference*',
            "smallest input that fails:",
            "  'x' 5x4 float32: all 101.0",
            "saved        models/tiny/regressions/fp32-b8-fake-*.npz: judged with every run from now on",
            "*tiny-fp32-b8-fake: search: an input fails after * runs, saved as models/tiny/regressions/*",
        ]
    )
    search = record(project)["search"]
    assert (search["shapes"], search["repeats"], search["examples"]) == ({"x": [5, 4]}, True, 100)
    assert search["runs"] <= RUNS_PER_EXAMPLE * 100 + 1
    (file,) = (project / "models" / "tiny" / "regressions").iterdir()

    later = run("models", "-k", "accuracy", "--trt-report=report.json")

    later.assert_outcomes(passed=1, failed=1, deselected=3)  # b1 does not allow the shape
    later.stdout.fnmatch_lines(
        [f"not close at regression {file.stem} (x 5x4)", f"*b1-fake: not judged: {file.stem}: 'x' 5x4 is not within*"]
    )
    assert record(project)["accuracy"]["points"][f"regression {file.stem}"]["ok"] is False
    assert record(project)["accuracy"]["outputs"]["y"]["ok"], "the figures stay those of the corners"

    monkeypatch.setattr(FakeSession, "run", sound)  # the engine is repaired
    run("models", "-k", "accuracy").assert_outcomes(passed=2, deselected=3)


def test_a_sound_engine_tells_how_near_it_came(run: Run, project: Path) -> None:
    result = run("models", "--trt-search=20", "-k", "search", "--trt-report=report.json")

    result.assert_outcomes(passed=2, deselected=5)
    result.stdout.fnmatch_lines(["*b8-fake: search: 20 inputs, the worst one uses *% of the tolerance*"])
    assert record(project)["search"]["ok"]
    assert not (project / "models" / "tiny" / "regressions").exists()


def test_the_fixture_searches_and_need_not_save(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    write_model(project / "models" / "tiny", RANGED)
    plant(monkeypatch, odd_and_large)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.trt("models/tiny", profiles=["b8"])
        def test_worst(trt_search):
            trt_search(examples=60, save=False)

        @pytest.mark.trt("models/tiny", profiles=["b8"])
        def test_saved(trt_search):
            trt_search(examples=60, rtol=1e-2, atol=0.5)

        @pytest.mark.trt("models/tiny", profiles=["b8"])
        def test_loose(trt_search):
            worst = trt_search(examples=60, rtol=1, atol=99, cosine="off", snr_db="off")
            assert worst.ok and 0.05 < worst.error < 1 and worst.runs == 60
        """
    )

    module = "test_the_fixture_searches_and_need_not_save.py"
    result = run(module, "-k", "not saved")

    result.assert_outcomes(passed=1, failed=1, deselected=1)
    result.stdout.fnmatch_lines(["*'x' 5x4 float32: all 101.0", "*not saved    save=False: *"])
    out = result.stdout.str()
    assert "saved        " not in out
    assert "reproduce    " not in out  # no command would run this input
    assert not (project / "models" / "tiny" / "regressions").exists()

    # What is saved is compared again, within what the test allowed.
    saved = run(module, "-k", "saved")
    saved.assert_outcomes(failed=1, deselected=2)
    saved.stdout.fnmatch_lines(["*saved        *", "*reproduce *--tolerance=rtol=0.01,atol=0.5*"])


def test_a_regression_that_overflows_is_right_where_the_reference_does(run: Run, project: Path) -> None:
    folder = project / "models" / "tiny" / "regressions"
    folder.mkdir()
    np.savez(folder / "overflow.npz", x=np.array([[np.inf, 1, 2, 3], [3e38, 3e38, -3e38, 0]], np.float32))

    result = run("models", "-k", "accuracy and b8", "--trt-report=report.json", backend="onnxruntime-cpu")

    result.assert_outcomes(passed=1, deselected=4)
    assert record(project, "tiny-fp32-b8-onnxruntime-cpu")["accuracy"]["points"]["regression overflow"]["ok"]


def test_a_regression_of_another_model_is_an_error(run: Run, project: Path) -> None:
    folder = project / "models" / "tiny" / "regressions"
    folder.mkdir()
    np.savez(folder / "old.npz", image=np.zeros((1, 4), np.float32))

    result = run("models", "-k", "accuracy and b8")

    result.assert_outcomes(failed=1, deselected=4)
    result.stdout.fnmatch_lines(["regression old.npz: *", "*hint: *remove *old.npz*"])


# search_worst, for two functions.


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model.load(write_model(tmp_path / "tiny") / "model.onnx")


PROFILE = Profile.parse("p", "x=1x4:8x4:64x4")


def engine(model: Model, fault: Callable[[Feeds], float]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """An engine whose outputs are off by *fault*, and its reference."""
    reference = GraphRunner(model).run
    return lambda feeds: {name: array + np.float32(fault(feeds)) for name, array in reference(feeds).items()}, reference


@pytest.mark.parametrize("seed", range(3))
def test_every_seed_ends_with_the_smallest_input(model: Model, seed: int) -> None:
    run, reference = engine(model, lambda feeds: 9.0 * odd_and_large(feeds))

    worst = search_worst(run, reference, model, PROFILE, ranges={"x": (-500, 500)}, seed=seed)

    assert not worst.ok
    assert worst.repeats
    assert worst.error > 1
    assert worst.feeds["x"].shape == (5, 4)
    assert set(np.unique(np.abs(worst.feeds["x"])).tolist()) <= {0.0, 101.0}


def test_the_search_climbs(model: Model) -> None:
    """The error peaks at 47 rows with a greatest value of 0.317. Drawing alone ends at 0.2 to 0.6."""

    def fault(feeds: Feeds) -> float:
        return 0.8 / (1 + abs(feeds["x"].shape[0] - 47) / 4 + abs(float(feeds["x"].max()) - 0.317) / 0.04)

    run, reference = engine(model, fault)

    found = [
        search_worst(
            run, reference, model, PROFILE, tolerance=Tolerance(0, 1), ranges={"x": (0, 1)}, examples=300, seed=seed
        )
        for seed in range(5)
    ]

    assert all(worst.ok and worst.runs <= 300 for worst in found)
    # Two searches, not all: what Hypothesis draws depends on the modules that are loaded, and a climb can get stuck.
    assert sorted(worst.error for worst in found)[-2] > 0.7


def test_the_same_seed_searches_the_same_way(model: Model) -> None:
    seen: list[list[bytes]] = [[], []]
    for inputs in seen:
        run, reference = engine(model, lambda feeds, inputs=inputs: inputs.append(feeds["x"].tobytes()) or 0.0)
        search_worst(run, reference, model, PROFILE, examples=30, seed=5)

    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 5


def test_an_engine_that_does_not_run_is_found_and_its_inputs_shrunk(model: Model) -> None:
    reference = GraphRunner(model).run

    def run(feeds: Feeds) -> Any:
        if feeds["x"].shape[0] > 20:
            raise RunError("too many rows")
        return reference(feeds)

    worst = search_worst(run, reference, model, PROFILE)

    assert (worst.ok, worst.reason, worst.comparison) == (False, "too many rows", None)
    assert worst.feeds["x"].shape == (21, 4)
    assert not worst.feeds["x"].any()
    assert worst.to_json()["error"] == "inf"


def test_an_engine_that_does_not_repeat_itself_is_said(model: Model) -> None:
    calls = iter([0.0] * 10 + [9.0] + [0.0] * 10_000)
    run, reference = engine(model, lambda feeds: next(calls))

    worst = search_worst(run, reference, model, PROFILE)

    assert not worst.ok
    assert not worst.repeats


def test_the_runs_are_bounded(model: Model) -> None:
    """Shrinking to a sum just above 7.3 would take longer."""
    most, runs = RUNS_PER_EXAMPLE * 2 + 1, []
    for seed in range(20):
        calls: list[int] = []
        run, reference = engine(model, lambda feeds, calls=calls: calls.append(1) or 9.0 * bool(feeds["x"].sum() > 7.3))
        worst = search_worst(run, reference, model, PROFILE, ranges={"x": (-500, 500)}, examples=2, seed=seed)
        assert len(calls) == worst.runs <= most
        assert worst.ok or float(worst.feeds["x"].sum()) > 7.3
        runs.append(worst.runs)

    assert max(runs) == most


def test_inputs_on_which_the_reference_does_not_run_are_left_out(model: Model) -> None:
    def reference(feeds: Feeds) -> Any:
        raise RunError("never")

    with pytest.raises(UsageError, match="did not run on a single input"):
        search_worst(lambda feeds: {}, reference, model, PROFILE, examples=5)


def test_an_engine_may_not_change_the_inputs_that_are_kept(model: Model) -> None:
    reference = GraphRunner(model).run

    def run(feeds: dict[str, np.ndarray]) -> Any:
        outputs = {name: array + 9 for name, array in reference(feeds).items()}
        feeds["x"][...] = 77
        return outputs

    assert not search_worst(run, reference, model, PROFILE, examples=5).feeds["x"].any()
