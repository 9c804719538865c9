"""Inputs, outputs and profiles as TensorRT has them: of a loaded engine, and of a network that a function filled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pytest_trt.backends import BuildRequest
from pytest_trt.backends.tensorrt.dtypes import tensorrt_dtype
from pytest_trt.backends.tensorrt.loading import deserialize
from pytest_trt.errors import BuildError, UnsupportedError
from pytest_trt.spec.default_profile import DEFAULT_PROFILE
from pytest_trt.spec.interface import Interface
from pytest_trt.spec.model import Model, TensorSpec
from pytest_trt.spec.precision import get_precision
from pytest_trt.spec.shapes import Profile, ShapeRange

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions, Plan

__all__ = ["check_network", "plan_interface", "read_interface"]


def plan_interface(trt: Any, engine: Any) -> Interface:
    """The inputs, outputs and profiles of *engine*. Open dimensions have no name: a plan does not keep them.

    The first profile is called ``default``, the others ``default1``, ``default2``, … Raises UnsupportedError for an
    input whose values decide shapes, and RunError for types that cannot be fed.
    """
    specs: dict[bool, list[TensorSpec]] = {True: [], False: []}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        if is_input and engine.get_tensor_location(name) == trt.TensorLocation.HOST:
            raise UnsupportedError(
                f"input {name!r} of the plan decides shapes by its values; a profile says shapes, not values"
            )
        specs[is_input].append(_spec(name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name)))
    inputs = tuple(specs[True])
    profiles = (_profile(engine, inputs, index) for index in range(engine.num_optimization_profiles))
    return Interface(inputs, tuple(specs[False]), tuple(profiles))


def read_interface(trt: Any, plan: Plan, options: BuildOptions) -> Interface:
    """Load *plan* for ``plan_interface``, and free it again. Of *options* those count that a plan needs while it is
    loaded. Raises RunError where it cannot be loaded."""
    nothing = Model.from_interface(Interface(()), "plan", identity="not read yet")
    request = BuildRequest(nothing, get_precision("fp32"), Profile(DEFAULT_PROFILE, {}), options)
    runtimes, engine = deserialize(trt, plan, request)
    try:
        return plan_interface(trt, engine)
    finally:
        # The engine needs its runtime to the end.
        del engine
        del runtimes


def check_network(network: Any, model: Model) -> None:
    """Hold a *network* that *model*'s own function filled against the inputs and outputs that the model declares.

    Raises BuildError that names the first difference.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    wrong = Interface.of(model).mismatch(Interface(_specs(model, inputs), _specs(model, outputs)))
    if wrong:
        raise BuildError(
            f"the network of model {model.name!r} is not what [interface] declares: {wrong}",
            hint="name tensors with tensor.name = …, and mark outputs with network.mark_output(tensor)",
        )


def _specs(model: Model, tensors: Iterable[Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for tensor in tensors:
        try:
            shape = tuple(tensor.shape)
        except ValueError as error:  # a shape of negative rank: TensorRT could not infer it
            raise BuildError(
                f"the network of model {model.name!r}: tensor {tensor.name!r} has no shape",
                hint="one of the layers before it was refused; add_… returned None, or its inputs do not fit",
            ) from error
        specs.append(_spec(str(tensor.name), tensor.dtype, shape))
    return tuple(specs)


def _spec(name: str, dtype: Any, shape: Iterable[int]) -> TensorSpec:
    # A model writes NumPy's float8_e4m3fn as ONNX does.
    kind = tensorrt_dtype(dtype.name, name).name.replace("8_e", "8e")
    return TensorSpec(name, kind, tuple(int(size) if size >= 0 else None for size in shape))


def _profile(engine: Any, inputs: tuple[TensorSpec, ...], index: int) -> Profile:
    ranges = {}
    for spec in inputs:
        fixed = tuple(size for size in spec.shape if isinstance(size, int))
        if len(fixed) == len(spec.shape):
            ranges[spec.name] = ShapeRange.fixed(fixed)
        else:
            points = engine.get_tensor_profile_shape(spec.name, index)
            ranges[spec.name] = ShapeRange(*(tuple(int(size) for size in point) for point in points))
    return Profile(f"{DEFAULT_PROFILE}{index or ''}", ranges)
