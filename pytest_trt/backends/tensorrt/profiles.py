"""Optimization profiles: the shape ranges that an engine is built for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.errors import ProfileError, UnsupportedError
from pytest_trt.spec.shapes import format_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_trt.spec.shapes import Profile

__all__ = ["add_profiles"]


def add_profiles(builder: Any, network: Any, config: Any, wanted: Sequence[Profile]) -> list[Any]:
    """Give *config* the shape ranges of the inputs that have any, one optimization profile for each of *wanted*, in
    their order. A network of fixed shapes needs none.

    Returns what was added. Raises ProfileError, or UnsupportedError for inputs whose values decide shapes.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise UnsupportedError(
                f"input {tensor.name!r} decides shapes by its values; a profile says shapes, not values to build for"
            )
    dynamic = [tensor for tensor in inputs if any(size < 0 for size in tensor.shape)]
    return [_add(builder, config, dynamic, profile) for profile in wanted] if dynamic else []


def _add(builder: Any, config: Any, tensors: list[Any], wanted: Profile) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in tensors:
        if tensor.name not in wanted.ranges:
            raise ProfileError(f"profile {wanted.name!r} has no shapes for input {tensor.name!r}")
        shapes = wanted.ranges[tensor.name]
        try:
            profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
        except (RuntimeError, ValueError) as error:
            asked = ", ".join(format_shape(shape) for shape in (shapes.min, shapes.opt, shapes.max))
            raise ProfileError(
                f"profile {wanted.name!r}: TensorRT refuses {asked} for input {tensor.name!r}: {error}",
                hint=f"the network declares it as {tuple(tensor.shape)}",
            ) from error
    if not profile or config.add_optimization_profile(profile) < 0:
        raise ProfileError(f"TensorRT refuses profile {wanted.name!r}: {wanted.describe()}")
    return profile
