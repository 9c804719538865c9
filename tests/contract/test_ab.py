"""Old and new engine through the lab on the doubles of TensorRT: what is loaded for whom. Times there mean nothing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
from hand_network import NET, TOML, write_hand

from pytest_trt.cli import main
from pytest_trt.errors import ProfileError, UnsafeModelError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings


class ClockCuda(fake_cuda.FakeCuda):
    """With what the conditions of a measurement are read from."""

    cudaDeviceScheduleMask, cudaDeviceScheduleSpin, cudaDeviceScheduleYield, cudaDeviceScheduleBlockingSync = 7, 1, 2, 4

    def cudaGetDeviceFlags(self):
        return self._answer("cudaGetDeviceFlags", 0)


@pytest.fixture
def cuda(monkeypatch):
    fake = ClockCuda()
    for name, module in fake_cuda.modules(fake).items():
        monkeypatch.setitem(sys.modules, name, module)
    yield fake
    assert not fake.live


@pytest.fixture(autouse=True)
def folder(trt, cuda, tmp_path: Path) -> Path:
    return write_hand(tmp_path)


def measured(folder: Path, *, accept: bool = False, **settings: Any) -> Any:
    given = {"backend": ("tensorrt",), "census": "off", "duration": 0.001, "warmup": 0.0, "confirm": "off", "loads": 2}
    with Lab(Settings(**{**given, "cache_dir": folder / "cache", "threshold": 90.0, **settings}), folder) as lab:
        (case,) = lab.cases(lab.add("."))
        record = lab.record(case)
        lab.measure(case, record)
        if accept:
            lab.baselines.accept([record], reason="first recording")
        return record


def plan_of(folder: Path) -> Path:
    (plan,) = folder.glob("cache/**/engine.plan")
    return plan


def test_the_old_engine_is_found_in_the_cache(folder: Path) -> None:
    first = measured(folder, accept=True)
    same = measured(folder)
    (folder / "net.py").write_text(NET.replace("RELU", "TANH"))
    other = measured(folder)

    assert first.verdict is None
    assert (same.verdict["method"], same.verdict["same_plan"]) == ("interleaved", True)
    assert same.verdict["rounds"] == 3 * 2  # loads of a plan differ on a GPU
    assert (other.verdict["method"], other.verdict["origin"]) == ("interleaved", "from the cache")
    assert other.verdict["baseline_plan"] == first.engine["plan"] != other.engine["plan"]


def test_an_old_plan_is_loaded_under_its_own_profiles(folder: Path) -> None:
    """One that holds none for the case's shapes cannot take turns: an error where it was asked for, else the number."""
    measured(folder, accept=True)
    plan = plan_of(folder).rename(folder / "old.plan")
    (folder / "trt.toml").write_text(TOML.replace("[8, 4]", "[9, 4]"))

    stored = measured(folder, cache_dir=folder / "other")
    assert (stored.verdict["method"], stored.verdict["not_interleaved"]) == (
        "stored",
        "the baseline's engine is not in the cache",
    )
    with pytest.raises(ProfileError, match="lies in none of the plan's"):
        measured(folder, cache_dir=folder / "other", baseline_engine=plan)


def test_an_old_plan_that_nobody_vouches_for_is_not_read_by_tensorrt(trt, folder: Path, monkeypatch) -> None:
    measured(folder)
    digest = hashlib.sha256(plan_of(folder).read_bytes()).hexdigest()

    other = plan_of(folder).rename(folder / "old.plan")
    (folder / "net.py").write_text(NET.replace("RELU", "TANH"))
    read: list[bytes] = []
    right = trt.Runtime.deserialize_cuda_engine
    monkeypatch.setattr(
        trt.Runtime, "deserialize_cuda_engine", lambda self, plan: read.append(plan) or right(self, plan)
    )

    with pytest.raises(UnsafeModelError, match=f"its SHA-256 is {digest}"):
        measured(folder, baseline_engine=other)
    assert read
    assert other.read_bytes() not in read
    trusted = measured(folder, baseline_engine=other, trust=digest)
    assert trusted.verdict["gates"]


def test_two_plans_from_the_shell(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(folder / "cache"))
    measured(folder)
    plan = plan_of(folder)
    digest = hashlib.sha256(plan.read_bytes()).hexdigest()
    arguments = ["gate", "--ab", str(plan), str(plan), "--threshold=9000%", "--duration=0.001", "--warmup=0"]

    refused, judged = main(arguments), main([*arguments, f"--trust={digest}"])

    assert (refused, judged) == (2, 0)
    assert "pass         engine-fp32-" in capsys.readouterr().out
