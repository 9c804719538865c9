"""The marker and the fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]

SUITE = """
import numpy as np
import pytest

@pytest.mark.trt("models/tiny", profiles=["b8"])
def test_engine(trt_case, trt_engine, trt_inputs, trt_reference):
    assert trt_case.profile == "b8"
    outputs = trt_engine.run(trt_inputs[0].feeds)
    np.testing.assert_allclose(outputs["y"], trt_reference[0]["y"], rtol=1e-2, atol=1e-2)

@pytest.mark.trt("models/tiny")
def test_gates(trt_check, trt_latency):
    assert trt_check().ok
    trt_latency(threshold=0.03)
"""


def test_the_axes_span_over_fixtures(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)

    result = run("--trt-precision=fp32,fp16", "test_the_axes_span_over_fixtures.py", "-v")

    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*test_engine[[]fp16-b8-fake] PASSED*", "*test_gates[[]fp32-b1-fake] PASSED*"])
    result.stdout.fnmatch_lines([" tiny-fp16-b8 [*] *"])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('"models/tinny"', "*there is no such model*"),
        ("", "*takes one model*"),
        ('"models/tiny", precisions="fp32"', "*precisions must be a list of names*"),
        ('"models/tiny", precisions=["fp61"]', "*unknown precision 'fp61'*"),
        ('"models/tiny", profiles=["b9"]', "*no profile 'b9'*"),
        ('"models/tiny", threshold=-1', "*cannot use threshold=-1: a share such as 5% or 0.05 is wanted*"),
        ('"models/tiny", threshold=5', "*cannot use threshold=5: that is 500 %; 5% or 0.05 is wanted*"),
        ('"models/tiny", threshold=True', "*cannot use threshold=True: a share*"),
        ('"models/tiny", cosin=0.9', "*has no argument 'cosin'*"),
        ('"models/tiny", precision=["fp16"]', "  hint: did you mean 'precisions'?"),
        ('"models/tiny", opt_levle=3', "  hint: did you mean 'opt_level'?"),
        ('"models/tiny", rtol=0.1', "*rtol*"),
    ],
)
def test_a_wrong_marker_fails_its_test_with_one_message(
    run: Run, pytester: pytest.Pytester, marker: str, message: str
) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.trt({marker})\ndef test_x(trt_check):\n    trt_check()\n")

    result = run("--trt-profile=b1", "test_a_wrong_marker_fails_its_test_with_one_message.py")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([message])
    assert "Traceback" not in result.stdout.str()


def test_a_fixture_without_the_marker_says_what_to_add(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(trt_engine):\n    pass\n")

    result = run("test_a_fixture_without_the_marker_says_what_to_add.py")

    result.assert_outcomes(failed=0, errors=1)
    result.stdout.fnmatch_lines(["*add @pytest.mark.trt*"])


def test_the_marker_wins_over_the_command_line_and_is_named_as_the_origin(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.trt("models/tiny", profiles=["b1"], rtol=1e-9, atol=0)
        def test_tight(trt_check):
            trt_check()
        """
    )

    result = run("--trt-tolerance=rtol=1,atol=1", "--trt-fake=error=0.01", "-k", "tight")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*tolerance *rtol, atol* from @pytest.mark.trt of *test_tight*"])


def test_a_failure_of_trt_check_shows_no_frames_of_the_plugin(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)

    result = run("--trt-fake=error=0.5", "-k", "test_gates and b1")

    result.assert_outcomes(failed=1, deselected=7)
    assert "pytest_trt/lab.py" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*trt_check()*", "*is not close to the reference*"])


@pytest.mark.parametrize(("given", "failed"), [("0.5", 0), ('"50%"', 0), ('"1%"', 1), ("5", 1)])
def test_a_threshold_in_a_test_is_read_as_on_the_command_line(
    run: Run, pytester: pytest.Pytester, given: str, failed: int
) -> None:
    pytester.makepyfile(
        f"import pytest\n@pytest.mark.trt('models/tiny')\ndef test_x(trt_latency):\n    trt_latency({given})\n"
    )
    file = "test_a_threshold_in_a_test_is_read_as_on_the_command_line.py"
    run("--trt-profile=b1", "--trt-update-baselines=new", file)

    result = run("--trt-profile=b1", "--trt-fake=latency=1.2", file)

    result.assert_outcomes(failed=failed, passed=1 - failed)
    if given == "5":
        result.stdout.fnmatch_lines(["trt_latency() in *: cannot use threshold=5: that is 500 %; 5% or 0.05 is wanted"])


def test_the_line_that_reproduces_has_the_tolerances_of_the_test(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.trt("models/tiny", profiles=["b8"], cosine=0.5)
        def test_x(trt_check):
            trt_check(rtol=1e-9, atol=0, outputs={"y": {"snr_db": 3}})
    """)

    result = run(
        "--trt-tolerance=atol_scale=1,rtol=1,max_mismatched=0.01,y:snr_db=9",
        "--trt-fake=error=0.01",
        "--trt-baselines=kept",
    )

    lines = [line.removeprefix("E").strip() for line in result.outlines]
    (again,) = [line for line in lines if line.startswith("reproduce ")]
    assert again.endswith(
        "--fake=error=0.01 --tolerance=max_mismatched=0.01,cosine=0.5,rtol=1e-09,atol=0,y:snr_db=3 --baselines=kept"
    )


@pytest.mark.parametrize("option", [(), ("--full-trace",)])
def test_an_engine_that_is_called_wrongly_shows_the_line_of_the_test(
    run: Run, pytester: pytest.Pytester, option: tuple[str, ...]
) -> None:
    pytester.makepyfile("""
        import numpy as np
        import pytest

        @pytest.mark.trt("models/tiny", profiles=["b8"])
        def test_x(trt_engine):
            trt_engine.run({"x": np.zeros((8, 4))})
    """)

    result = run("-k", "test_x", *option, backend="onnxruntime-cpu")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*trt_engine.run({*", "E *RunError: *Unexpected input data type*"])
    assert ("direct cause" in result.stdout.str(), "cpu.py:" in result.stdout.str()) == (bool(option), bool(option))


def test_a_skip_stands_where_the_test_does(run: Run, pytester: pytest.Pytester) -> None:
    file = pytester.makepyfile("""
        import pytest

        @pytest.mark.trt("models/tiny", profiles=["b8"], precisions=["tf32"])
        def test_x(trt_check):
            trt_check()
    """)

    result = run("models", file.name, "-rs", "--trt-precision=tf32", backend="onnxruntime-cpu")

    result.assert_outcomes(passed=1, skipped=5)
    result.stdout.fnmatch_lines_random(
        ["SKIPPED [[]4[]] models/tiny/trt.toml:1: ONNX Runtime's*", f"SKIPPED [[]1[]] {file.name}:5: ONNX Runtime's*"]
    )


@pytest.mark.parametrize("model", ["model.onnx", "trt.toml", ".", "models/tiny/model.onnx"])
def test_a_model_beside_the_test_is_tested_as_its_manifest_says(
    run: Run, pytester: pytest.Pytester, model: str
) -> None:
    file = pytester.path / "models" / "tiny" / "test_beside.py"
    file.write_text(f"import pytest\n@pytest.mark.trt({model!r})\ndef test_x(trt_check):\n    trt_check()\n")

    result = run("models", "--trt-latency=off", "-v")

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*test_x[[]fp32-b8-fake] PASSED*"])
