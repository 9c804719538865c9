"""Which environments are alike: each field of the key on its own."""

from __future__ import annotations

from typing import Any

import pytest
from records import CPU, ENVIRONMENT

from pytest_trt.baselines.match import NEVER, RULES, Level, compatibility
from pytest_trt.environment import Environment


def now(**changes: Any) -> Environment:
    data = {**ENVIRONMENT, **changes}
    return Environment(**{**data, "libraries": tuple(data["libraries"].items())})


@pytest.mark.parametrize(
    ("changes", "level", "lines"),
    [
        ({}, Level.EXACT, ()),
        ({"driver": "570.124.06"}, Level.EXACT, ()),  # a patch of the same branch
        ({"driver": "580.95.05"}, Level.SAME_MODEL, ("driver: 570.86.15 → 580.95.05",)),
        ({"driver": ""}, Level.SAME_MODEL, ("driver: 570.86.15 → ",)),
        ({"libraries": {"cuda": "12.8", "tensorrt": "10.16.2"}}, Level.SAME_MODEL, ("tensorrt: 10.16.1 → 10.16.2",)),
        ({"libraries": {"tensorrt": "10.16.1"}}, Level.SAME_MODEL, ("cuda: 12.8 → -",)),
        (
            {"libraries": {"tensorrt": "11", "onnx": "1", "cuda": "13", "a": "2"}},
            Level.SAME_MODEL,
            ("a: - → 2", "cuda: 12.8 → 13", "onnx: - → 1", "tensorrt: 10.16.1 → 11"),
        ),
        (
            {"device": "NVIDIA H200 143000 MB sm_90"},
            Level.SAME_MODEL,
            ("device: NVIDIA H200 143771 MB sm_90 → NVIDIA H200 143000 MB sm_90",),
        ),
        ({"system": "Windows-AMD64"}, Level.SAME_MODEL, ("system: Linux-x86_64 → Windows-AMD64",)),
    ],
)
def test_what_a_difference_does(changes: dict[str, Any], level: Level, lines: tuple[str, ...]):
    found = compatibility(ENVIRONMENT, now(**changes))

    assert (found.level, found.differences) == (level, lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "NVIDIA T4 15360 MB sm_75"},
        {"device": "NVIDIA H200 143771 MB sm_91"},
        {"device": "NVIDIA H200 MIG 1g.18gb 143771 MB sm_90"},
        {"backend": "onnxruntime-cuda"},
        CPU,
    ],
)
def test_another_processor_or_backend_is_another_world(changes: dict[str, Any]):
    assert compatibility(ENVIRONMENT, now(**changes)).level is Level.OTHER


def test_another_number_of_cores_is_another_cpu():
    assert compatibility(CPU, now(**{**CPU, "device": "AMD EPYC x4"})).level is Level.OTHER


@pytest.mark.parametrize("name", sorted(NEVER))
def test_a_volatile_reading_is_never_compared(name: str):
    assert compatibility({**ENVIRONMENT, name: "1980 MHz"}, now()).level is Level.EXACT


def test_a_field_that_no_rule_knows_does_not_gate():
    found = compatibility({**ENVIRONMENT, "power_limit_w": 700}, now())

    assert (found.level, found.differences) == (Level.SAME_MODEL, ("power_limit_w: 700 → None",))


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
def test_half_a_description_does_not_gate(name: str):
    half = {k: v for k, v in ENVIRONMENT.items() if k != name}

    assert compatibility(half, now()).level is not Level.EXACT


def test_every_field_of_the_environment_has_its_rule():
    assert set(ENVIRONMENT) <= {rule.part for rule in RULES}
    assert all(rule.why for rule in RULES)
