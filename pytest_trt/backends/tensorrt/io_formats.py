"""What the inputs and outputs of an engine look like in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.versions import members, typing
from pytest_trt.errors import BuildError, UsageError, nearest
from pytest_trt.spec.build_options import IoFormat

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions

__all__ = ["apply_io_formats", "check_io_formats"]

_OPTION = "--trt-io-formats"


def check_io_formats(trt: Any, options: BuildOptions) -> None:
    """Raise UsageError for a layout or type that does not exist, and for a type that the model decides.

    Whether the tensors exist is only known once the network is there.
    """
    layouts = {name for name in members(trt.TensorFormat) if not name.startswith("DLA_")}
    dtypes = members(trt.DataType)
    weak = typing(trt, options.typing) == "weak"
    seen: set[str] = set()
    for text in options.io_formats:
        wanted = IoFormat.parse(text)
        said = f"{_OPTION}: {text!r}"
        if not wanted.tensor or not wanted.layout:
            raise UsageError(f"{said} cannot be read", hint="write TENSOR=LAYOUT or TENSOR=DTYPE:LAYOUT")
        if wanted.tensor in seen:
            raise UsageError(f"{said}: a tensor has one format, and {wanted.tensor!r} is given twice")
        seen.add(wanted.tensor)
        if wanted.layout.startswith("DLA_"):
            raise UsageError(f"{said}: {wanted.layout} is a layout of DLA, for which nothing is built here")
        if wanted.layout not in layouts:
            raise UsageError(
                f"{said}: TensorRT {trt.__version__} has no layout {wanted.layout!r}",
                hint=nearest(wanted.layout, layouts),
            )
        if wanted.dtype is not None and wanted.dtype not in dtypes:
            raise UsageError(
                f"{said}: TensorRT {trt.__version__} has no data type {wanted.dtype!r}",
                hint=nearest(wanted.dtype, dtypes),
            )
        if wanted.dtype is not None and not weak:
            raise UsageError(
                f"{said}: TensorRT {trt.__version__} builds strongly typed here, where a tensor's type is the model's",
                hint=f"give the layout alone, {wanted.tensor}={wanted.layout}, and cast inside the model",
            )


def apply_io_formats(trt: Any, network: Any, options: BuildOptions) -> None:
    """Restrict the tensors of *network* to the wanted formats.

    Raises UsageError for a tensor that is neither its input nor its output, BuildError when TensorRT refuses.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    tensors = {tensor.name: tensor for tensor in (*inputs, *outputs)}
    for text in options.io_formats:
        wanted = IoFormat.parse(text)
        if wanted.tensor not in tensors:
            raise UsageError(
                f"{_OPTION}: the network has no input or output {wanted.tensor!r}", hint=nearest(wanted.tensor, tensors)
            )
        tensor = tensors[wanted.tensor]
        try:
            tensor.allowed_formats = 1 << int(getattr(trt.TensorFormat, wanted.layout))
            if wanted.dtype is not None:
                tensor.dtype = getattr(trt.DataType, wanted.dtype)
        except (RuntimeError, ValueError) as error:
            raise BuildError(f"{_OPTION}: TensorRT {trt.__version__} refuses {text!r}: {error}") from error
