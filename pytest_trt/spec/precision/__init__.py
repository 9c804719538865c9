"""Precisions and the recipes that make them.

A precision is a *typed model*: a recipe turns an fp32 ONNX into one whose tensors carry the wanted
types (casts, or Q/DQ pairs). Every backend gets that typed model, so the error of the conversion can be
told from the error of the engine. Where a TensorRT still has weak typing, the builder flags that belong
to the precision are set as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from pytest_trt.errors import PrecisionError, UsageError, nearest

if TYPE_CHECKING:
    import onnx

__all__ = [
    "CALIBRATIONS",
    "PRECISIONS",
    "Precision",
    "Ranges",
    "Recipe",
    "RecipeResult",
    "apply_recipe",
    "get_precision",
]

# tensor name -> (low, high) of its real values
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Precision:
    """What the user asks for, by name.

    ``flags_on`` and ``flags_off`` are TensorRT ``BuilderFlag`` names, applied where the version has
    them; ``requires_types`` are ``DataType`` names that the engine cannot do without and that no flag names.
    ``calibrated`` says that the recipe needs ranges from real samples, found by ``calibration`` unless the manifest
    says otherwise. ``calibrator`` is the algorithm by which TensorRT itself finds them while building (implicit
    quantization, weak typing, TensorRT 10 and older).
    """

    name: str
    recipe: str  # "module:class" below this package
    flags_on: tuple[str, ...] = ()
    flags_off: tuple[str, ...] = ()
    calibrated: bool = False
    options: tuple[str, ...] = ()  # what [precision.NAME] of a manifest may say
    summary: str = ""
    requires_types: tuple[str, ...] = ()
    calibration: str = "entropy"  # of CALIBRATIONS
    calibrator: str | None = None  # "entropy", "entropy2", "minmax", "legacy"

    def make_recipe(self, **options: Any) -> Recipe:
        """Return the recipe, constructed with *options* (``exclude_nodes`` and the like)."""
        module, _, attribute = self.recipe.partition(":")
        recipe: Recipe = getattr(import_module(f"{__name__}.{module}"), attribute)(**options)
        return recipe


@dataclass(frozen=True)
class RecipeResult:
    """A typed model and what was done to make it. ``notes`` is JSON-able and goes into the record."""

    proto: onnx.ModelProto
    modified: bool
    notes: dict[str, Any] = field(default_factory=dict)


class Recipe(Protocol):
    """A pass from one ONNX model to a typed one. The input model is never changed."""

    name: str

    def requires(self, proto: onnx.ModelProto) -> None:
        """Raise PrecisionError when this recipe cannot start from *proto*."""
        ...

    def call(self, proto: onnx.ModelProto, ranges: Ranges | None) -> RecipeResult:
        """Return the typed model. *ranges* is given when the precision is calibrated."""
        ...

    def ensures(self, before: onnx.ModelProto, result: RecipeResult) -> None:
        """Raise PrecisionError when *result* is not what this recipe promises."""
        ...


CALIBRATIONS = ("entropy", "minmax", "percentile")

_CAST_OPTIONS = ("exclude_nodes", "exclude_ops")


def _implicit(algorithm: str, how: str) -> Precision:
    return Precision(
        f"int8-{algorithm}",
        "implicit:ImplicitInt8Recipe",
        flags_on=("INT8", "FP16"),
        flags_off=("TF32",),
        options=("samples",),
        summary=f"float32 model that TensorRT itself calibrates, {how} (8.6 to 10); int8 where that is faster",
        calibrator=algorithm,
    )


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", "casts:Fp32Recipe", flags_off=("TF32",), summary="IEEE float32, TF32 off"),
        Precision(
            "tf32", "casts:Tf32Recipe", flags_on=("TF32",), summary="float32 with TF32 products (TensorRT's default)"
        ),
        Precision(
            "fp16",
            "casts:Fp16Recipe",
            flags_on=("FP16",),
            flags_off=("TF32",),
            options=_CAST_OPTIONS,
            summary="float16 where its range allows",
        ),
        Precision(
            "bf16",
            "casts:Bf16Recipe",
            flags_on=("BF16",),
            flags_off=("TF32",),
            options=_CAST_OPTIONS,
            summary="bfloat16",
        ),
        Precision(
            "int8",
            "quantize:Int8Recipe",
            flags_on=("INT8", "FP16"),
            flags_off=("TF32",),
            calibrated=True,
            options=(*_CAST_OPTIONS, "calibration", "percentile", "samples", "ranges"),
            summary="int8 Q/DQ, symmetric, weights per channel; the rest float32, on a weakly typed TensorRT float16",
        ),
        Precision(
            "fp8",
            "quantize:Fp8Recipe",
            flags_on=("FP8", "FP16"),
            flags_off=("TF32",),
            calibrated=True,
            options=(*_CAST_OPTIONS, "samples", "ranges"),
            summary="fp8 (e4m3) Q/DQ, one scale per tensor; the rest float32, on a weakly typed TensorRT float16",
            calibration="minmax",  # e4m3 has exponents of its own: clipping outliers buys no resolution
        ),
        # No flag: BuilderFlag.INT4 is for plugins, and the types of the weights are the model's.
        Precision(
            "int4",
            "int4:Int4Recipe",
            flags_off=("TF32",),
            options=(*_CAST_OPTIONS, "block_size"),
            summary="weights of MatMul and Gemm in int4 blocks, dequantized to float32; activations float32",
            requires_types=("INT4",),
        ),
        _implicit("entropy", "by entropy, its first algorithm"),
        _implicit("entropy2", "by entropy"),
        _implicit("minmax", "by the largest magnitude"),
        _implicit("legacy", "by a quantile of 0.9999"),
    )
}


def get_precision(name: str) -> Precision:
    """Return a precision by name. Raises UsageError with the nearest known name."""
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}", hint=nearest(name, PRECISIONS))
    return PRECISIONS[name]


def apply_recipe(recipe: Recipe, proto: onnx.ModelProto, ranges: Ranges | None = None) -> RecipeResult:
    """Run requires → call → ensures. Raises PrecisionError, which names the recipe."""
    try:
        recipe.requires(proto)
        result = recipe.call(proto, ranges)
        recipe.ensures(proto, result)
    except PrecisionError as error:
        raise PrecisionError(f"recipe {recipe.name}: {error.message}", hint=error.hint) from error
    return result
