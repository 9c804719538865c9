"""A plan from elsewhere: nothing of it is used before its digest was named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.artifacts.models import obtain_model
from pytest_trt.artifacts.prebuilt import read_plan
from pytest_trt.errors import ManifestError, ModelError, UnsafeModelError, UsageError
from pytest_trt.spec.interface import Interface
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.model import TensorSpec
from pytest_trt.spec.shapes import Profile

PLAN = b"a plan"
DIGEST = hashlib.sha256(PLAN).hexdigest()
INTERFACE = '[interface.inputs]\nx = ["N", 4]\n[interface.outputs]\ny = ["N", 3]\n'


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "net.plan"
    path.write_bytes(PLAN)
    return path


def load(folder: Path, toml: str) -> Manifest:
    (folder / "trt.toml").write_text(toml)
    return Manifest.load(folder / "trt.toml")


@pytest.mark.parametrize(
    "trust",
    [DIGEST, DIGEST[:16], DIGEST.upper()[:20], f"sha256:{DIGEST}", f" {DIGEST}\n", f"{'0' * 16}, {DIGEST[:16]}"],
)
def test_a_trusted_plan_is_read(plan: Path, trust: str):
    stored = read_plan(plan, trust)

    assert (stored.plan, stored.digest, stored.fresh) == (PLAN, DIGEST, False)
    assert stored.facts == {"prebuilt": "net.plan", "sha256": DIGEST, "plan_bytes": 6}


def test_a_plan_that_nobody_trusts_says_its_digest_and_how(plan: Path):
    with pytest.raises(UnsafeModelError, match=f"nobody vouched for this one; its SHA-256 is {DIGEST}") as caught:
        read_plan(plan, None)
    assert f"--trt-trust={DIGEST[:16]}, or " in str(caught.value)


@pytest.mark.parametrize("trust", ["0" * 64, "0" * 16, DIGEST[:-1] + ("0" if DIGEST[-1] != "0" else "1")])
def test_another_plan_than_the_trusted_one_is_refused(plan: Path, trust: str):
    with pytest.raises(UnsafeModelError, match="not the plan that is trusted"):
        read_plan(plan, trust)


@pytest.mark.parametrize("trust", ["", f"{DIGEST},", DIGEST[:15], "yes", "g" * 16, DIGEST + "0", "sha1:" + DIGEST])
def test_a_trust_that_is_no_digest(plan: Path, trust: str):
    with pytest.raises(UsageError, match="is no SHA-256"):
        read_plan(plan, trust)


def test_a_plan_that_is_not_there(tmp_path: Path):
    with pytest.raises(ModelError, match=r"net\.plan: the plan cannot be read: No such file"):
        read_plan(tmp_path / "net.plan", DIGEST)
    (tmp_path / "net.plan").write_bytes(b"")
    with pytest.raises(ModelError, match="is empty"):
        read_plan(tmp_path / "net.plan", None)


def test_a_manifest_can_be_a_plan_alone_or_beside_a_model(plan: Path):
    alone = load(plan.parent, f'[model]\nplan = "net.plan"\ntrust = "{DIGEST}"\n')
    beside = load(plan.parent, '[model]\nplan = "net.plan"\npath = "net.onnx"\n')

    assert (alone.plan, alone.path, alone.trust) == (plan, None, DIGEST)
    assert (beside.plan, beside.path) == (plan, plan.parent / "net.onnx")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('[model]\nplan = "../net.plan"\n', "leaves the model's folder"),
        (f'[model]\ntrust = "{DIGEST}"\n', "there is no model.plan"),
        ('[model]\nplan = "net.plan"\n[build]\nopt_level = 3\n', "build.opt_level cannot change model.plan"),
        ('[model]\nsource = "a.py:b"\nexporter = "script"\n', "model.exporter = 'script' is unknown"),
        ('[model]\nfiles = ["../weights.pt"]\n', "leaves the model's folder"),
    ],
)
def test_a_manifest_that_cannot_be(tmp_path: Path, toml: str, message: str):
    with pytest.raises(ManifestError, match=message):
        load(tmp_path, toml)


def test_what_a_plan_needs_while_it_is_loaded_may_be_said(plan: Path):
    manifest = load(plan.parent, '[model]\nplan = "net.plan"\n[build]\nlean_runtime = "lib.so"\n')

    assert manifest.build.lean_runtime == plan.parent / "lib.so"


def test_the_model_of_a_plan_is_what_the_manifest_declares(plan: Path):
    model = obtain_model(load(plan.parent, '[model]\nplan = "net.plan"\n' + INTERFACE), MemoryStore())

    assert (model.has_graph, model.network, model.identity) == (False, None, DIGEST)
    assert model.inputs == (TensorSpec("x", "float32", ("N", 4)),)
    with pytest.raises(ModelError, match="is a finished plan: it has no ONNX graph"):
        model.serialized()
    before = model.fingerprint
    plan.write_bytes(b"another")
    again = obtain_model(load(plan.parent, '[model]\nplan = "net.plan"\n' + INTERFACE), MemoryStore())
    assert again.fingerprint != before


def test_without_a_declared_interface_only_the_plan_knows(plan: Path):
    manifest = load(plan.parent, '[model]\nplan = "net.plan"\n')
    with pytest.raises(ModelError, match=r"only TensorRT can read .* net\.plan\n.*--trt-backend=tensorrt"):
        obtain_model(manifest, MemoryStore())

    x = TensorSpec("x", "float32", (None, 4))
    seen = Interface((x,), (x,), (Profile.parse("default", "x=1x4:2x4:8x4"),))
    model = obtain_model(manifest, MemoryStore(), inspect=lambda: seen)
    assert (model.inputs, model.outputs, model.profiles) == (seen.inputs, seen.outputs, seen.profiles)


def test_a_plan_is_held_against_the_declared_interface(plan: Path):
    manifest = load(plan.parent, '[model]\nplan = "net.plan"\n' + INTERFACE)
    seen = Interface((TensorSpec("x", "float32", (None, 5)),), (TensorSpec("y", "float32", (None, 3)),))

    with pytest.raises(ModelError, match=r"not what \[interface\] declares: input 'x' is \?x5, declared Nx4"):
        obtain_model(manifest, MemoryStore(), inspect=lambda: seen)
