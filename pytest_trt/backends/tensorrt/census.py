"""What an engine really is: the types its layers run in, how they were fused, and with which tactics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.inspector import Layer, read_layers
from pytest_trt.backends.tensorrt.versions import TYPE_FLAGS, device_memory_bytes
from pytest_trt.backends.tensorrt.versions.runtime import engine_inspector
from pytest_trt.backends.tensorrt.weight_sizes import BYTES, WeightSizes, judge_size, size_text, weight_sizes

if TYPE_CHECKING:
    from pytest_trt.backends import BuildRequest
    from pytest_trt.spec.precision import Precision

__all__ = ["Census", "take_census"]

_NOT_VISIBLE = "not visible"

# Share of the model's weights from which on the layers that hold them decide, whatever else is hidden.
_MOST = 0.9

# Types that an engine in fp32 must not multiply in.
_LOW = set(TYPE_FLAGS.values())


@dataclass(frozen=True)
class Census:
    """What is visible of an engine. The layers that only move data count in ``layer_count`` and ``reformats`` alone.

    ``layers`` counts by DataType the layers that compute, ``multiplying`` those of them whose work is products of
    matrices, ``generated`` the graph compiler's kernels. ``hidden`` layers compute too, in types that are not shown.
    ``weight_bytes`` adds up the weights that are shown, by DataType. ``myelin`` counts the regions that the graph
    compiler took over. ``tactics`` maps layer to kernel. ``weights`` are those of the typed model.
    """

    layers: Mapping[str, int] = field(default_factory=dict)
    multiplying: Mapping[str, int] = field(default_factory=dict)
    generated: Mapping[str, int] = field(default_factory=dict)
    hidden: int = 0
    weight_bytes: Mapping[str, int] = field(default_factory=dict)
    layer_count: int = 0
    fused: int = 0
    reformats: int = 0
    myelin: int = 0
    tactics: Mapping[str, str] = field(default_factory=dict)
    plan_bytes: int = 0
    device_memory_bytes: int = 0
    weights: WeightSizes = field(default=WeightSizes(0, 0))
    evidence: str = _NOT_VISIBLE

    def describe(self) -> dict[str, Any] | str:
        """JSON for the facts: ``{"HALF": 52, "FLOAT": 1, "hidden": 2}``, or ``"not visible"``."""
        if not self.layers:
            return _NOT_VISIBLE
        return {**self.layers, **({"hidden": self.hidden} if self.hidden else {})}

    def facts(self) -> dict[str, Any]:
        """JSON for the facts of a build: ``precisions``, ``census``, ``structure`` and ``tactics``."""
        shape = {"fused": self.fused, "reformats": self.reformats, "myelin": self.myelin}
        return {
            "precisions": self.describe(),
            "census": {
                "layers": dict(self.layers),
                "weights_bytes": dict(self.weight_bytes),
                "hidden": self.hidden,
                **shape,
                "evidence": self.evidence,
            },
            "structure": {
                "layers": self.layer_count,
                **shape,
                "plan_bytes": self.plan_bytes,
                "device_memory_bytes": self.device_memory_bytes,
            },
            "tactics": dict(self.tactics),
        }

    def not_honoured(self, request: BuildRequest) -> str | None:
        """Say that the engine does not run in the precision that was asked; None when it does, or may."""
        asked = f"{request.precision.name} was asked, but"
        if request.precision.calibrator is not None:
            passed_over = self._passed_over(request)
            return f"{asked} {passed_over}" if passed_over else None
        heavy = self.multiplying or self.layers
        wanted = _wanted(request.precision)
        if wanted is None:
            low = {name: count for name, count in heavy.items() if name in _LOW}
            return f"{asked} layers of the engine run lower: {_listed(low)}" if low else None
        if self.hidden or _is_weight_only(request.precision):
            too_large = judge_size(self.plan_bytes, *self.weights, wanted) if _holds_weights_once(request) else None
            if too_large or _is_weight_only(request.precision) or not self._shows_the_weights():
                return f"{asked} {too_large}" if too_large else None
        if not heavy or wanted in heavy or wanted in self.generated:
            return None
        which = "layer of the engine" if wanted not in self.layers else "layer of the engine that multiplies"
        return f"{asked} no {which} runs in {wanted}: {_listed(heavy)}"

    def _passed_over(self, request: BuildRequest) -> str | None:
        """Say that nothing of the engine shows int8 after TensorRT's own calibration, which takes int8 only where
        TensorRT measures it faster. One layer of it is enough."""
        if "INT8" in self.layers or not (self.layers or self.hidden):
            return None
        if not self.hidden:
            return f"no layer of the engine runs in INT8: {_listed(self.layers)}"
        # Where types are hidden, a plan that takes what all weights take in fp16 has few of them in int8.
        half = WeightSizes(self.weights.typed, self.weights.fp32 // 2)
        return judge_size(self.plan_bytes, *half, "int8", "fp16") if _holds_weights_once(request) else None

    def _shows_the_weights(self) -> bool:
        """Whether the layers that show their types have the model's weights, so that the hidden ones do not matter."""
        elements = sum(size / BYTES[name] for name, size in self.weight_bytes.items())
        return 0 < _MOST * self.weights.fp32 <= elements * BYTES["FLOAT"]


def take_census(trt: Any, engine: Any, request: BuildRequest, plan_bytes: int) -> Census:
    """Read the layers of *engine*, which was just loaded from a plan of *plan_bytes*."""
    wanted = _wanted(request.precision)
    weights = weight_sizes(request.model.proto, wanted if request.calibration is not None else None)
    layers = read_layers(_inspector_text(trt, engine, request))
    computing = [layer for layer in layers if not layer.moves]
    shown = [layer for layer in computing if not layer.whole_region and layer.dtype is not None]
    regions = {layer.region for layer in computing if layer.region is not None}
    types = _types(shown)
    return Census(
        layers=types,
        multiplying=_types(layer for layer in shown if layer.multiplies),
        generated=_types(layer for layer in shown if layer.generated),
        hidden=len(computing) - len(shown),
        weight_bytes=_weight_bytes(shown),
        layer_count=int(engine.num_layers),
        fused=sum(layer.parts > 1 and not layer.whole_region for layer in computing),
        reformats=sum(layer.reformats for layer in layers),
        myelin=len(regions),
        tactics=_tactics(computing),
        plan_bytes=plan_bytes,
        device_memory_bytes=device_memory_bytes(engine),
        weights=weights,
        evidence=_evidence(request, types, len(computing), len(regions), plan_bytes, weights),
    )


def _inspector_text(trt: Any, engine: Any, request: BuildRequest) -> str:
    """What the inspector writes; empty where there is none, as in the lean runtime."""
    inspector = engine_inspector(engine)
    if inspector is None:
        return ""
    context = None
    inputs = _dynamic_inputs(engine)
    if inputs:
        # With dynamic shapes the types are only shown for given shapes: the opt ones. An engine of several profiles
        # is read in its first one, which a new context has: another would take a stream to switch to.
        context = engine.create_execution_context()
        if context is not None:  # without memory for one the types stay hidden, which is then what is said
            shapes = request.held_profiles[0].at("opt")
            for name in inputs:
                if name in shapes:
                    context.set_input_shape(name, shapes[name])
            inspector.execution_context = context
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _dynamic_inputs(engine: Any) -> list[str]:
    names = [str(engine.get_tensor_name(index)) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name).name == "INPUT"]
    return inputs if any(size < 0 for name in inputs for size in engine.get_tensor_shape(name)) else []


def _wanted(precision: Precision) -> str | None:
    """The DataType that a precision is about; None for float32, with or without TF32."""
    types = [TYPE_FLAGS[name] for name in precision.flags_on if name in TYPE_FLAGS]
    return next(iter((*types, *precision.requires_types)), None)


def _is_weight_only(precision: Precision) -> bool:
    """Whether only weights are stored in the wanted type and products are made in another, as in int4: then no layer
    need show it, and the size of the plan is the evidence."""
    return bool(precision.requires_types) and not any(name in TYPE_FLAGS for name in precision.flags_on)


def _types(layers: Iterable[Layer]) -> dict[str, int]:
    return dict(Counter(layer.dtype for layer in layers if layer.dtype is not None).most_common())


def _weight_bytes(layers: Iterable[Layer]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for layer in layers:
        if layer.weights and layer.dtype is not None:
            total[layer.dtype] += round(layer.weights * BYTES[layer.dtype])
    return dict(total.most_common())


def _tactics(layers: Iterable[Layer]) -> dict[str, str]:
    """Layer to tactic, in the engine's order; a name that comes again gets a number."""
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for layer in layers:
        if layer.tactic is not None:
            seen[layer.name] += 1
            number = seen[layer.name]
            found[layer.name if number == 1 else f"{layer.name} #{number}"] = layer.tactic
    return found


def _holds_weights_once(request: BuildRequest) -> bool:
    """Whether the plan's size says something about its weights: each profile may keep its own copy of them, a
    version-compatible plan holds a runtime, and a refittable one may keep them as they were given."""
    options = request.options
    return (
        len(request.held_profiles) == 1
        and options.version_compatibility in (None, "off", "exclude-lean")
        and options.refit in (None, "off")
        and not any(flag in ("+VERSION_COMPATIBLE", "+REFIT", "+REFIT_INDIVIDUAL") for flag in options.builder_flags)
    )


def _evidence(
    request: BuildRequest, types: Mapping[str, int], computing: int, regions: int, plan_bytes: int, weights: WeightSizes
) -> str:
    """What was visible, and what was not."""
    wanted = _wanted(request.precision) or "FLOAT"
    hidden = computing - sum(types.values())
    if not computing:
        said = "the engine inspector shows no layer that computes"
    elif not types:
        said = "types not visible"
    else:
        said = f"{types.get(wanted, 0)} of {computing} computing layers in {wanted}"
        others = {name: count for name, count in types.items() if name != wanted}
        said += f", {_listed(others)}" if others else ""
        said += f", {hidden} not visible" if hidden else ""
    if hidden and regions:
        said += f" ({regions} Myelin region{'s' if regions > 1 else ''})"
    if hidden or not computing or _is_weight_only(request.precision):
        said += f"; plan {size_text(plan_bytes)} for {size_text(weights.typed)} of weights as typed"
        said += f", {size_text(weights.fp32)} in fp32" if weights.fp32 != weights.typed else ""
    if "TF32" in request.precision.flags_on:
        said += "; the inspector does not show whether FLOAT products are TF32"
    return said


def _listed(types: Mapping[str, int]) -> str:
    return ", ".join(f"{count} in {name}" for name, count in types.items())
