"""Debug tensors: inner tensors that an engine shows a listener while it runs. TensorRT has them from 10 on.

They are no outputs: the interface of the engine stays what it is. Its kernels need not, since what can be looked at
cannot be fused away; TensorRT 10.12's other kind, for what was not fused anyway, tells names that no ONNX graph has.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends.buffers import PinnedBuffer
from pytest_trt.backends.tensorrt.dtypes import tensorrt_dtype
from pytest_trt.errors import RunError, UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_trt.backends.cuda import Stream

    Array = NDArray[Any]

__all__ = ["DebugTensors", "can_debug", "mark_debug_tensors"]


def can_debug(trt: Any) -> bool:
    """Whether this version has debug tensors; the lean runtime can show them, and marks none."""
    return hasattr(trt, "IDebugListener") and hasattr(getattr(trt, "INetworkDefinition", None), "mark_debug")


def mark_debug_tensors(trt: Any, network: Any, names: Collection[str]) -> list[str]:
    """Mark the tensors *names* of *network*; return those that it has. Raises UnsupportedError, and RunError for a
    tensor that is refused."""
    if not can_debug(trt):
        raise UnsupportedError(
            f"TensorRT {trt.__version__} has no debug tensors", hint="--taps=outputs works with every version"
        )
    marked = []
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        for tensor in (layer.get_output(index) for index in range(layer.num_outputs)):
            if tensor.name in names:
                if not network.mark_debug(tensor):
                    raise RunError(f"TensorRT {trt.__version__} does not mark {tensor.name!r} as a debug tensor")
                marked.append(str(tensor.name))
    return marked


class DebugTensors:
    """Takes what a context shows of the tensors *names*, those of them that *engine* has. Keep it as long as the
    context. Raises RunError where the context refuses."""

    def __init__(self, trt: Any, engine: Any, context: Any, names: Collection[str], stream: Stream) -> None:
        self._stream, self._buffer = stream, PinnedBuffer()
        self._taken: dict[str, Array] = {}
        self._error: RunError | None = None
        self._listener = _listener(trt, self)
        if not context.set_debug_listener(self._listener):
            raise RunError(f"TensorRT {trt.__version__} takes no debug listener")
        for name in names:
            if engine.is_debug_tensor(name):
                context.set_tensor_debug_state(name, True)

    def take(self) -> dict[str, Array]:
        """The tensors of the last run, by name. Raises RunError for one that could not be read."""
        taken, error = self._taken, self._error
        self._taken, self._error = {}, None
        if error is not None:
            raise error
        return taken

    def keep(self, name: str, address: int, on_host: bool, kind: str, shape: tuple[int, ...]) -> None:
        """Copy what lies at *address* for as long as the listener is asked. What is wrong is raised by ``take``."""
        try:
            dtype = tensorrt_dtype(kind, name)
            nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            if on_host:
                raw = ctypes.string_at(address, nbytes)
                self._taken[name] = np.frombuffer(raw, dtype).reshape(shape)
                return
            self._buffer.reserve(nbytes)
            self._stream.fetch(self._buffer, address, nbytes)
            self._stream.synchronize()
            self._taken[name] = self._buffer.view(dtype, shape).copy()
        except RunError as error:
            self._error = error

    def close(self) -> None:
        self._buffer.close()


def _listener(trt: Any, keeper: DebugTensors) -> Any:
    class Listener(trt.IDebugListener):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            trt.IDebugListener.__init__(self)

        def process_debug_tensor(
            self, addr: Any, location: Any, type: Any, shape: Any, name: str, _stream: int
        ) -> bool:
            sizes = tuple(int(size) for size in shape)
            keeper.keep(str(name), _address(addr), location == trt.TensorLocation.HOST, type.name, sizes)
            return True

    return Listener()


def _address(capsule: Any) -> int:
    """What a capsule without a name points to."""
    if hasattr(capsule, "__index__"):
        return int(capsule)
    unpack = ctypes.pythonapi.PyCapsule_GetPointer
    unpack.argtypes, unpack.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p
    return int(unpack(capsule, None) or 0)
