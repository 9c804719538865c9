"""The simulated backend: exact outputs, invented times, and each fault that it can be told to have."""

from __future__ import annotations

import numpy as np
import pytest
from networks import conv_net, run, weights

from pytest_trt.backends import BuildOptions, BuildRequest, get_backend
from pytest_trt.backends.fake import FakeBackend, FakeSession
from pytest_trt.errors import BuildError, InputsError, RunError, TrtError, UnsupportedError, UsageError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import PRECISIONS, Precision, apply_recipe, get_precision
from pytest_trt.spec.precision.ranges import calibration_tensors
from pytest_trt.spec.shapes import Profile

FEEDS = {"x": weights(9, 2, 3, 8, 8)}
PROFILE = Profile.fixed("p", {"x": (2, 3, 8, 8)})


def request_of(name: str = "fp32") -> BuildRequest:
    precision = get_precision(name)
    proto = conv_net()
    ranges = dict.fromkeys(calibration_tensors(proto, {}), (-4.0, 4.0)) if precision.calibrated else None
    typed = apply_recipe(precision.make_recipe(), proto, ranges)
    return BuildRequest(Model.from_proto(typed.proto, "net"), precision, PROFILE)


def session_of(faults: str | None = None, precision: str = "fp32") -> FakeSession:
    backend, request = FakeBackend(faults), request_of(precision)
    return backend.load(backend.build(request).plan, request)


def medians(faults: str | None = None, precision: str = "fp32") -> float:
    session = session_of(faults, precision)
    return float(np.median(session.clock().time(session.launch, 500)))


def test_an_operator_that_is_not_onnx_s_own_is_a_skip():
    proto = conv_net()
    proto.graph.node[0].domain = "com.example"
    proto.opset_import.add(domain="com.example", version=1)
    backend, request = FakeBackend(), BuildRequest(Model.from_proto(proto, "net"), get_precision("fp32"), PROFILE)

    with pytest.raises(UnsupportedError, match=r"evaluator, which refuses: .*com\.example"):
        backend.load(backend.build(request).plan, request)


def test_it_is_always_there_and_says_that_it_is_simulated():
    backend = get_backend("fake")

    assert backend.probe().ok
    assert backend.identity() == {"fake": "1"}
    assert backend.support(PRECISIONS["fp32"]).kind == "native"
    for name in ("tf32", "fp16", "bf16", "int8"):
        support = backend.support(PRECISIONS[name])
        assert (support.kind, support.reason) == ("simulated", f"the fake backend computes {name} in float32")
    backend.check(BuildOptions(1, 5, ("+A",)))


@pytest.mark.parametrize(
    ("feeds", "error", "said"),
    [
        ({}, InputsError, "no array for input 'x'"),
        ({"x_": FEEDS["x"]}, InputsError, r"no input 'x_'\n  hint: did you mean 'x'"),
        ({"x": FEEDS["x"][:1]}, RunError, "1x3x8x8 is outside profile 'p', which allows 2x3x8x8\n"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_it_refuses_what_tensorrt_refuses(feeds: dict[str, np.ndarray], error: type[TrtError], said: str):
    session = session_of()

    for act in (session.run, session.stage):
        with pytest.raises(error, match=said):
            act(feeds)


def test_outputs_are_those_of_onnx_runtime():
    (expected,) = run(conv_net(), FEEDS)
    found = session_of().run(FEEDS)

    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("precision", "low", "high"), [("fp16", 1e-6, 1e-2), ("bf16", 1e-4, 1e-1), ("int8", 1e-4, 0.5)]
)
def test_low_precisions_have_errors_of_their_size(precision: str, low: float, high: float):
    exact = session_of().run(FEEDS)["y"]
    found = session_of(precision=precision).run(FEEDS)["y"]

    error = np.abs(found - exact).max() / np.abs(exact).max()
    assert found.dtype == np.float32
    assert low < error < high


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_runs_and_builds_repeat_bit_for_bit(precision: str):
    one, other = session_of("error=0.1", precision), session_of("error=0.1", precision)

    assert np.array_equal(one.run(FEEDS)["y"], one.run(FEEDS)["y"])
    assert np.array_equal(one.run(FEEDS)["y"], other.run(FEEDS)["y"])
    backend = FakeBackend()
    assert backend.build(request_of(precision)) == backend.build(request_of(precision))


def test_an_injected_error_has_its_size():
    exact, wrong = session_of().run(FEEDS)["y"], session_of("error=0.1").run(FEEDS)["y"]

    share = wrong / exact - 1
    assert 0.02 < share.std() < 0.3
    assert np.array_equal(session_of("error=0").run(FEEDS)["y"], exact)


def test_times_are_invented_and_repeat():
    session = session_of()
    clock = session.clock()

    assert clock.name == "simulated"
    assert clock.conditions() == {"simulated": True}
    times = clock.time(session.launch, 500)
    assert times.shape == (500,)
    assert times.dtype == np.float64
    assert 0.4 < np.median(times) < 2.1
    assert np.array_equal(times, session_of().clock().time(session.launch, 500))
    assert session.transfers_ms(FEEDS) == {}


def test_an_injected_slowdown_is_the_factor():
    assert medians("latency=1.5") == pytest.approx(1.5 * medians(), rel=1e-9)


def test_a_slowdown_is_the_engine_s_and_stays_in_its_plan():
    slowed, usual = FakeBackend("latency=1.5"), FakeBackend()
    plans = [backend.build(request_of()).plan for backend in (usual, slowed)]

    assert slowed.identity() != usual.identity()
    for backend in (usual, slowed):
        before, after = (backend.load(plan, request_of()) for plan in plans)
        times = [float(np.median(one.clock().time(one.launch, 500))) for one in (before, after)]
        assert times[1] == pytest.approx(1.5 * times[0], rel=1e-3)


def test_each_load_has_noise_of_its_own():
    backend = FakeBackend()
    plan = backend.build(request_of()).plan
    one, other = (backend.load(plan, request_of()) for _ in range(2))

    assert not np.array_equal(one.clock().time(one.launch, 50), other.clock().time(other.launch, 50))


def test_injected_noise_is_the_spread():
    session = session_of("noise=0.1")
    times = session.clock().time(session.launch, 2000)

    assert 0.09 < np.log(times).std() < 0.11
    quiet = session_of("noise=0")
    assert np.ptp(quiet.clock().time(quiet.launch, 10)) == 0


def test_precisions_take_their_own_times():
    assert medians(precision="fp16") != medians()


def test_a_launch_is_launched():
    calls: list[int] = []
    session_of().clock().time(lambda: calls.append(1), 3)

    assert calls


def test_a_precision_that_is_ignored_is_in_the_facts():
    told = FakeBackend("fp32=1").build(request_of("fp16")).facts["not_honoured"]

    assert told == "fp16 was asked, every layer runs in float32 (injected)"
    assert "not_honoured" not in FakeBackend("fp32=1").build(request_of("fp32")).facts
    assert "not_honoured" not in FakeBackend().build(request_of("fp16")).facts


def test_the_facts_of_a_build():
    said: list[str] = []
    built = FakeBackend().build(request_of("fp16"), said.append)

    assert said == ["fake: building net"]
    assert built.suffix == ".fake"
    assert built.facts["plan_bytes"] == len(built.plan)
    assert built.facts["layers"] == len(request_of("fp16").model.proto.graph.node)
    assert built.facts["simulated"] == "the fake backend computes fp16 in float32"
    assert "simulated" not in FakeBackend().build(request_of()).facts


def test_a_build_can_fail():
    with pytest.raises(BuildError, match="told to fail") as caught:
        FakeBackend("build=1").build(request_of())
    assert caught.value.hint == "leave build=1 out of --trt-fake"


def test_a_build_can_log():
    logged = "fake: 7 nodes\nfake: what follows is as injected"

    assert FakeBackend("log=1").build(request_of()).log == logged
    assert FakeBackend().build(request_of()).log == ""
    with pytest.raises(BuildError) as caught:
        FakeBackend("log=1,build=1").build(request_of())
    assert caught.value.log == logged


def test_a_build_can_take_longer(monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)

    FakeBackend("hang=2.5").build(request_of())
    FakeBackend().build(request_of())

    assert slept == [2.5]


def test_a_crash_never_takes_the_session_along():
    with pytest.raises(BuildError, match="would take the whole session along") as caught:
        FakeBackend("crash=1,log=1").build(request_of())
    assert caught.value.hint == "add --trt-isolate=on, or leave crash=1 out of --trt-fake"
    assert caught.value.log


def test_what_it_was_made_with_makes_another_like_it():
    backend = FakeBackend("latency=2,error=0.1")

    assert FakeBackend(*backend.arguments).faults == backend.faults
    assert FakeBackend().arguments == FakeBackend("").arguments == ()


def test_faults_can_be_combined():
    assert FakeBackend(" latency=1.5, error=0.1 ,").faults == {**FakeBackend().faults, "latency": 1.5, "error": 0.1}
    assert FakeBackend(None).faults == FakeBackend("").faults == FakeBackend().faults


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("latncy=2", "--trt-fake: unknown fault 'latncy'", "did you mean 'latency'?"),
        ("error=much", "--trt-fake: error='much' is not a number", None),
        ("error", "--trt-fake: error='' is not a number", None),
        ("=1", "--trt-fake: unknown fault ''", "known: " + ", ".join(sorted(FakeBackend().faults))),
        ("hang=-1", "--trt-fake: hang=-1 is not within 0 and 86400 s", None),
        ("hang=inf", "--trt-fake: hang=inf is not within 0 and 86400 s", None),
        ("hang=nan", "--trt-fake: hang=nan is not within 0 and 86400 s", None),
    ],
)
def test_a_fault_that_nobody_knows(text: str, message: str, hint: str | None):
    with pytest.raises(UsageError) as caught:
        FakeBackend(text)

    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("plan", [b"", b"\x00\x01", b"3", b"[]", b"{}"])
def test_what_is_no_plan_is_not_loaded(plan: bytes):
    with pytest.raises(RunError, match="this is no plan of the fake backend"):
        FakeBackend().load(plan, request_of())


def test_a_plan_may_be_mapped_into_memory():
    backend, request = FakeBackend(), request_of()
    assert backend.load(memoryview(backend.build(request).plan), request).run(FEEDS)


def test_a_closed_session_neither_runs_nor_launches():
    session = session_of()
    session.close()
    session.close()

    with pytest.raises(RunError, match="closed"):
        session.run(FEEDS)
    with pytest.raises(RunError, match="closed"):
        session.launch()


def test_every_precision_has_a_simulation():
    for name, precision in PRECISIONS.items():
        assert isinstance(precision, Precision)
        if name == "int4":
            continue  # this network has no weight that is large enough; test_precision_int4 has one
        assert session_of(precision=name).run(FEEDS)["y"].shape == (2, 5)
