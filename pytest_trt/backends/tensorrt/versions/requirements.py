"""Which build option needs which TensorRT: one row for each value that not every version can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions

__all__ = ["REQUIREMENTS", "Requirement", "unmet"]


@dataclass(frozen=True)
class Requirement:
    """Values of a build option that not every version can do.

    ``values`` that need it (empty: any that is given), the ``member`` of the bindings that shows whether it is
    there, the releases that have it, and what to do without.
    """

    option: str
    values: tuple[str | bool, ...]
    member: str  # "Class.member"
    releases: str
    instead: str


REQUIREMENTS = (
    Requirement(
        "typing",
        ("strong",),
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "10.0 and later",
        "leave it out: this version takes the types from the model's Q/DQ and from a precision's builder flags",
    ),
    Requirement(
        "typing",
        ("weak",),
        "BuilderFlag.FP16",
        "8.6 to 10",
        "leave it out: the recipe of a precision types the model, and the engine follows the model",
    ),
    Requirement(
        "tiling",
        ("fast", "moderate", "full"),
        "IBuilderConfig.tiling_optimization_level",
        "10.8 and later",
        "leave it out; --trt-opt-level=5 lets any version search longer",
    ),
    Requirement(
        "max_tactics",
        (),
        "IBuilderConfig.max_num_tactics",
        "10.4 and later",
        "leave it out; a lower --trt-opt-level shortens the search in any version",
    ),
    Requirement(
        "refit",
        ("identical",),
        "BuilderFlag.REFIT_IDENTICAL",
        "10.0 and later",
        "--trt-refit=on works in any version, for weights of any values",
    ),
    Requirement(
        "refit",
        ("individual",),
        "BuilderFlag.REFIT_INDIVIDUAL",
        "10.3 and later",
        "--trt-refit=on makes all weights refittable in any version",
    ),
    Requirement(
        "strip_plan",
        (True,),
        "BuilderFlag.STRIP_PLAN",
        "10.0 and later",
        "leave it out: before that a plan always carries its weights",
    ),
    Requirement(
        "weight_streaming",
        (True,),
        "BuilderFlag.WEIGHT_STREAMING",
        "10.0 and later",
        "leave it out: before that all weights lie on the device",
    ),
    Requirement(
        "hardware_compatibility",
        ("same-capability",),
        "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        "10.9 and later",
        "--trt-hardware-compatibility=ampere-plus works in any version, on Ampere and newer GPUs",
    ),
    Requirement(
        "timing_cache_miss",
        ("error",),
        "BuilderFlag.ERROR_ON_TIMING_CACHE_MISS",
        "10.0 and later",
        "leave it out; --trt-lock=fail compares the tactics of an engine with those of the baseline in any version",
    ),
    Requirement(
        "editable_timing_cache",
        (True,),
        "BuilderFlag.EDITABLE_TIMING_CACHE",
        "10.8 and later",
        "leave it out: the timing cache that is reused between builds pins tactics, too",
    ),
)


def unmet(trt: Any, options: BuildOptions) -> Requirement | None:
    """The first thing that *options* need and this version lacks."""
    for requirement in REQUIREMENTS:
        value = options.given().get(requirement.option)
        needed = value in requirement.values if requirement.values else value is not None
        owner, _, name = requirement.member.partition(".")
        if needed and not hasattr(getattr(trt, owner, None), name):
            return requirement
    return None
