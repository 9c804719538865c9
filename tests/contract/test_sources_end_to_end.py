"""A network builder and a plan through the lab, on the doubles: what is built, run and compared is simulated."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hand_network import TOML, case_of, checked, lab_of

from pytest_trt.errors import AccuracyFailure, InputsError, UnsafeModelError, UnsupportedError, UsageError


@pytest.mark.usefixtures("backend")
def test_a_network_builder_is_built_and_compared_with_its_reference(folder: Path, cuda):
    comparison, record = checked(folder)

    assert comparison.ok
    assert record.accuracy["points"]["opt"]["reference"] == "net.py:reference of the model's folder"
    assert record.precision["recipe"] == {"recipe": "not applied: there is no ONNX graph"}
    assert not cuda.live


@pytest.mark.usefixtures("backend")
def test_flags_choose_the_types_of_a_network_where_they_can(trt, folder: Path):
    with lab_of(folder, precision=("fp16",)) as lab:
        stored, _ = lab.engine(case_of(lab))

    weak = hasattr(trt.BuilderFlag, "FP16")
    assert (stored.facts["typing"], "FP16" in stored.facts["flags"]) == ("weak" if weak else "strong", weak)


@pytest.mark.usefixtures("backend")
def test_a_wrong_network_is_seen(folder: Path):
    (folder / "trt.toml").write_text(TOML.replace("net.py:reference", "net.py:wrong"))

    with pytest.raises(AccuracyFailure):
        checked(folder)


@pytest.mark.usefixtures("backend")
def test_without_a_reference_there_is_nothing_to_compare_with(folder: Path):
    (folder / "trt.toml").write_text(TOML.replace("reference =", "# reference ="))

    with pytest.raises(InputsError, match="nothing to compare with"):
        checked(folder)


def test_other_backends_say_that_they_cannot(folder: Path):
    with lab_of(folder, backend=("onnxruntime-cpu",)) as lab, pytest.raises(UnsupportedError, match="no ONNX graph"):
        lab.engine(case_of(lab))


def plan_of(folder: Path) -> str:
    """Build the network's plan, keep only that, and return its digest."""
    with lab_of(folder) as lab:
        plan = lab.engine(case_of(lab))[0].plan
    (folder / "net.plan").write_bytes(plan)
    text = '[model]\nname = "hand"\nplan = "net.plan"\nreference = "net.py:reference"\n'
    (folder / "trt.toml").write_text(text)
    return hashlib.sha256(plan).hexdigest()


@pytest.mark.usefixtures("backend")
def test_a_trusted_plan_runs_in_its_own_profile(trt, folder: Path, cuda):
    digest = plan_of(folder)
    builds = len(trt._log)

    comparison, record = checked(folder, trust=digest[:16])
    assert comparison.ok
    assert record.accuracy["points"]["max"]["shapes"] == {"x": [8, 4]}
    assert record.engine["prebuilt"] == "net.plan"
    assert len(trt._log) == builds
    assert not cuda.live


@pytest.mark.usefixtures("backend")
def test_a_plan_that_nobody_trusts_is_not_loaded(trt, folder: Path, monkeypatch):
    digest = plan_of(folder)
    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", lambda *_: pytest.fail("it was loaded"))

    with pytest.raises(UnsafeModelError, match=digest):
        checked(folder)
    with pytest.raises(UnsafeModelError, match="not the plan that is trusted"):
        checked(folder, trust="0" * 16)


@pytest.mark.usefixtures("backend")
def test_a_narrower_profile_runs_under_the_plan_s(folder: Path):
    digest = plan_of(folder)
    with (folder / "trt.toml").open("a") as file:
        file.write("[profiles.small]\nx = { min = [1, 4], opt = [1, 4], max = [3, 4] }\n")

    comparison, record = checked(folder, trust=digest)
    assert comparison.ok
    assert {tuple(p["shapes"]["x"]) for p in record.accuracy["points"].values()} == {(1, 4), (3, 4)}


@pytest.mark.usefixtures("backend")
def test_an_option_that_cannot_change_a_plan_is_an_error(folder: Path):
    digest = plan_of(folder)

    with pytest.raises(UsageError, match="opt_level cannot change a plan"):
        checked(folder, trust=digest, opt_level=1)


@pytest.mark.usefixtures("backend")
def test_a_plan_from_the_command_line_takes_the_place_of_building(trt, folder: Path):
    toml = (folder / "trt.toml").read_text()
    digest = plan_of(folder)
    (folder / "trt.toml").write_text(toml)
    builds = len(trt._log)

    comparison, record = checked(folder, engine=Path("net.plan"), trust=digest)
    assert comparison.ok
    assert record.engine["sha256"] == digest
    assert len(trt._log) == builds
    with lab_of(folder, engine=Path("net.plan"), trust=digest) as lab:
        line = lab.reproduce(case_of(lab))
    assert line.endswith(f"--backend=tensorrt --engine=net.plan --trust={digest} --census=off")
    with lab_of(folder, engine=Path("net.plan"), trust=digest) as lab:
        case = case_of(lab)
        np.testing.assert_array_equal(lab.engine(case)[1].run({"x": np.full((1, 4), -1, np.float32)})["y"], 0)


@pytest.mark.usefixtures("backend")
def test_a_graph_variant_of_what_has_no_graph_is_skipped(folder: Path):
    with pytest.raises(UnsupportedError, match="no ONNX graph that --trt-graph=ort-basic could change"):
        checked(folder, graph=("ort-basic",))
    digest = plan_of(folder)
    with pytest.raises(UnsupportedError, match="hand runs a finished plan, which --trt-graph=ort-basic cannot change"):
        checked(folder, graph=("ort-basic",), trust=digest)
