"""Which stored environment may judge which run: one table of rules, field by field. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pytest_trt.environment import Environment

__all__ = ["ACTIONS", "NEVER", "RULES", "Compatibility", "Level", "Rule", "compatibility"]


class Level(str, Enum):
    """How alike two environments are."""

    EXACT = "exact"
    SAME_MODEL = "same model"
    OTHER = "other"


# What a stored baseline may do to a run of an environment that is alike so far.
ACTIONS = {Level.EXACT: "gates", Level.SAME_MODEL: "is compared and shown", Level.OTHER: "is not looked at"}


@dataclass(frozen=True)
class Rule:
    """One part of an environment: what of it is compared, how alike two are that differ in it, and why.

    ``read`` takes a stored ``environment`` object and returns what is compared.
    """

    part: str
    compared: str
    differing: Level
    why: str
    read: Callable[[Mapping[str, Any]], object]


_GPU = re.compile(r"(?P<model>.+) (?P<memory>\d+) MB (?P<capability>sm_\d+)")


def _device(stored: Mapping[str, Any]) -> object:
    gpu = _GPU.fullmatch(str(stored.get("device")))
    return (gpu["model"], gpu["capability"]) if gpu else stored.get("device")


def _memory(stored: Mapping[str, Any]) -> object:
    gpu = _GPU.fullmatch(str(stored.get("device")))
    return gpu["memory"] if gpu else None


def _branch(stored: Mapping[str, Any]) -> object:
    driver = stored.get("driver")
    return driver.partition(".")[0] if isinstance(driver, str) else driver


RULES = (
    Rule("backend", "whole", Level.OTHER, "another runtime, other kernels, another clock", lambda e: e.get("backend")),
    Rule(
        "device",
        "a GPU's model (with its MIG slice) and compute capability; a CPU's model and number of cores",
        Level.OTHER,
        "another processor: neither faster nor slower says anything about the code",
        _device,
    ),
    Rule(
        "GPU memory",
        "in MB",
        Level.SAME_MODEL,
        "one model is sold in several sizes, ECC takes a part, and tactics are chosen by what fits",
        _memory,
    ),
    Rule(
        "driver",
        "the branch: 580 of 580.95.05",
        Level.SAME_MODEL,
        "a branch brings another compiler and scheduler; patches within it are fixes that hosts install unasked",
        _branch,
    ),
    Rule(
        "libraries",
        "TensorRT, CUDA, ONNX Runtime: whole versions",
        Level.SAME_MODEL,
        "kernels and heuristics change with patch releases too",
        lambda e: e.get("libraries"),
    ),
    Rule("system", "whole", Level.SAME_MODEL, "launches cost another time elsewhere", lambda e: e.get("system")),
)

# Readings -> why they are no part of the key. A file that holds one all the same is not judged by it.
NEVER = {
    "clocks": "they move within a run; a record holds them",
    "temperature": "it depends on what ran before",
    "power": "as clocks",
    "throttle_reasons": "they belong to the moment of a measurement",
    "load_average": "other processes come and go",
    "cpu_frequency": "as clocks",
    "host": "runners of one pool are interchangeable; what makes them differ is in the other fields",
    "gpu_uuid": "two GPUs of one model are one environment; how far they differ is noise between processes",
}


@dataclass(frozen=True)
class Compatibility:
    """How alike two environments are, and what differs in the key: ``driver: 570.86.15 → 580.95.05``."""

    level: Level
    differences: tuple[str, ...] = ()


def compatibility(stored: Mapping[str, Any], environment: Environment) -> Compatibility:
    """Compare a *stored* ``environment`` object with the present one. A field that only one of them has, also one that
    no rule knows, differs: half a description must not gate."""
    mine = environment.to_json()
    differing = [rule for rule in RULES if rule.read(stored) != rule.read(mine)]
    unknown = [name for name in stored if name not in mine and name not in NEVER]
    if not differing and not unknown:
        return Compatibility(Level.EXACT)
    other = any(rule.differing is Level.OTHER for rule in differing)
    parts = {"device" if rule.part == "GPU memory" else rule.part for rule in differing}
    lines = [line for name in mine if name in parts for line in _lines(name, stored.get(name), mine[name])]
    return Compatibility(
        Level.OTHER if other else Level.SAME_MODEL, (*lines, *(f"{name}: {stored[name]} → None" for name in unknown))
    )


def _lines(name: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                yield f"{key}: {old.get(key, '-')} → {new.get(key, '-')}"
    else:
        yield f"{name}: {old} → {new}"
