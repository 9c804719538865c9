"""What ``reproduce.py`` finds wrong is what the package finds wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pytest_trt.accuracy import Comparison, Tolerance, compare
from pytest_trt.accuracy.tolerance import ToleranceSet
from pytest_trt.diagnosis.bundle.toml import checks_of
from pytest_trt.diagnosis.bundle.verdict import problems_of

LIMITS = [
    Tolerance(rtol=1e-2, atol=1e-3),
    Tolerance(rtol=0.0, atol=0.0, atol_scale=3e-2),
    Tolerance(rtol=1e-2, atol=1e-3, max_mismatched=0.3),
    Tolerance(cosine=0.9995),
    Tolerance(snr_db=30.0),
    Tolerance(top1=0.9),
    Tolerance(topk=0.95, k=2),
    Tolerance(rtol=1e-2, atol=1e-2, cosine=0.999, snr_db=25.0, top1=0.8),
]
STEP = np.float32(2.0)


def both(actual: Any, expected: Any, limit: Tolerance, allow: bool) -> tuple[bool, list[str]]:
    """Whether the package says close, and what the script says."""
    merged = Comparison.merge(
        [compare(a, e, tolerance=limit, allow_nonfinite=allow) for a, e in zip(actual, expected, strict=True)]
    )
    return merged.ok, problems_of(actual, expected, {"": checks_of(limit)}, allow)


def special(kind: str, rng: np.random.Generator, a: Any, e: Any) -> None:
    where = rng.integers(0, a.size, 3)
    if kind == "nan on one side":
        a.flat[where] = np.nan
    elif kind == "nan on both":
        a.flat[where] = e.flat[where] = np.nan
    elif kind == "infinity":
        a.flat[where] = np.inf
        e.flat[where[:2]] = [np.inf, -np.inf]
    elif kind == "zeros":
        a[:] = e[:] = 0
    elif kind == "zero reference":
        e[:] = 0


@pytest.mark.parametrize("limit", LIMITS, ids=str)
@pytest.mark.parametrize(
    "kind", ["plain", "nan on one side", "nan on both", "infinity", "zeros", "zero reference", "ties"]
)
def test_floats_are_judged_alike(kind: str, limit: Tolerance) -> None:
    seen = set()
    for seed in range(24):
        rng = np.random.default_rng(seed)
        size = 10.0 ** rng.uniform(-4, 0)
        expected = [{"y": rng.standard_normal((12, 5)).astype(np.float32)} for _ in range(2)]
        actual = [{"y": (e["y"] * (1 + size * rng.standard_normal((12, 5)))).astype(np.float32)} for e in expected]
        for a, e in zip(actual, expected, strict=True):
            special(kind, rng, a["y"], e["y"])
            if kind == "ties":
                a["y"], e["y"] = (np.round(x * STEP) / STEP for x in (a["y"], e["y"]))
        for allow in (False, True):
            ok, problems = both(actual, expected, limit, allow)
            assert ok == (not problems), (seed, allow, problems)
            seen.add(ok)
    assert kind != "plain" or seen == {True, False}


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_integers_are_exact(dtype: Any) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        e = rng.integers(0, 2, (6, 4)).astype(dtype)
        a = e.copy()
        if seed % 2:
            a.flat[: seed * 2] = ~e.flat[: seed * 2] if dtype == np.bool_ else e.flat[: seed * 2] + 1
        for limit in (Tolerance(rtol=1.0, atol=9.0), Tolerance(cosine=0.1, max_mismatched=0.3)):
            ok, problems = both([{"y": a}], [{"y": e}], limit, False)
            assert ok == (not problems)


@pytest.mark.parametrize(
    "actual",
    [
        {"z": np.zeros((2, 3), np.float32)},
        {"y": np.zeros((2, 4), np.float32)},
        {"y": np.zeros((2, 3), np.int32)},
    ],
    ids=["name", "shape", "dtype"],
)
def test_what_cannot_be_compared_is_a_problem(actual: dict[str, Any]) -> None:
    ok, problems = both([actual], [{"y": np.zeros((2, 3), np.float32)}], LIMITS[0], False)
    assert not ok
    assert len(problems) == 1


def test_each_output_has_its_own_limit() -> None:
    limits = ToleranceSet(LIMITS[0], {"loose": Tolerance(rtol=1.0, atol=9.0)})
    table = {n: checks_of(limit) for n, limit in {"": limits.default, **limits.outputs}.items()}
    a, e = ({name: np.full(3, value) for name in ("y", "loose")} for value in (1.5, 1.0))

    assert [line.partition(":")[0] for line in problems_of([a], [e], table, False)] == ["y"]
