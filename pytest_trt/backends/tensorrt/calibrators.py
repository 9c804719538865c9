"""TensorRT's own int8 calibration: a calibrator that feeds real samples to the builder and keeps what it found.

Implicit quantization is in 8.6 to 10, for weakly typed networks; 11 has it no more. The builder runs the float32
network on each batch, asks the calibrator for the next one, and hands over a table of one scale per tensor at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_trt.backends import Support
from pytest_trt.backends.buffers import DeviceBuffer, PinnedBuffer
from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.tensorrt.dtypes import cast
from pytest_trt.backends.tensorrt.versions import calibrator_base, has_type
from pytest_trt.errors import InputsError, ProfileError, TrtError, UsageError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_trt.backends import Array, Calibration, Feeds
    from pytest_trt.spec.precision import Precision

__all__ = ["CLASSES", "calibrator_support", "make_calibrator", "set_calibration_shapes"]

# Calibration.algorithm -> the class of the bindings that stands for it.
CLASSES = {
    "entropy": "IInt8EntropyCalibrator",
    "entropy2": "IInt8EntropyCalibrator2",
    "minmax": "IInt8MinMaxCalibrator",
    "legacy": "IInt8LegacyCalibrator",
}

# What NVIDIA's guide found best for the legacy calibrator: the 99.99th percentile, and no cut by regression.
_QUANTILE = 0.9999
_REGRESSION_CUTOFF = 1.0

# What can go wrong between a sample and the device. An exception cannot cross TensorRT's frames: it is kept.
_KEPT = (TrtError, MemoryError, KeyboardInterrupt)


def calibrator_support(trt: Any, precision: Precision) -> Support | None:
    """Say why this TensorRT cannot calibrate *precision* itself; None when it can, or when nobody asks it to."""
    if precision.calibrator is None or calibrator_base(trt, CLASSES[precision.calibrator]) is not None:
        return None
    return Support(
        "unsupported",
        f"TensorRT {trt.__version__} has no calibrators; int8 with Q/DQ is the way (--trt-precision=int8)",
    )


def make_calibrator(trt: Any, calibration: Calibration, logger: Any) -> Any:
    """Return a calibrator of the bindings' class for *calibration*'s algorithm.

    ``cache``: the table that was given or, after a build, the one that the builder wrote (bytes, or None).
    ``batches_used``: how many batches it took; 0 when the cache was enough. ``error``: what went wrong in a callback.
    The bindings would lose it, and the build may even succeed on the batches before it, so **the caller must raise
    it** after the build, whether there is a plan or not. ``close()`` frees the device memory; it may be called twice.

    Raises UsageError for an unknown algorithm, and InputsError when there is neither a cache nor a batch, or when the
    batches differ in names, shapes or types.
    """
    if calibration.algorithm not in CLASSES:
        raise UsageError(
            f"unknown calibration algorithm {calibration.algorithm!r}", hint=nearest(calibration.algorithm, CLASSES)
        )
    _check_batches(calibration)
    base: Any = calibrator_base(trt, CLASSES[calibration.algorithm])

    class Calibrator(base):  # type: ignore[misc]  # a base of an untyped library
        def __init__(self) -> None:
            base.__init__(self)
            self.cache: bytes | None = calibration.cache
            self.error: BaseException | None = None
            self.batches_used = 0
            self._batches: Iterator[Feeds] = iter(calibration.batches)
            self._memory = _Memory(_narrowing(trt))

        def get_batch_size(self) -> int:
            return 1  # counts for networks with an implicit batch dimension only, which are never built here

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            """The addresses of the next batch's arrays, in the order of *names*; None at the end and after an error."""
            if self.error is not None:
                return None
            try:
                feeds = next(self._batches, None)
                if feeds is None:
                    return None
                addresses = self._memory.put(feeds, list(names))
            except _KEPT as error:
                self._keep(error)
                return None
            self.batches_used += 1
            return addresses

        def read_calibration_cache(self) -> bytes | None:
            return self.cache

        def write_calibration_cache(self, cache: Any) -> None:
            # A view of TensorRT's own memory. After an error the table is that of a part of the samples.
            if self.error is None:
                self.cache = bytes(cache)

        def close(self) -> None:
            self._memory.close()

        def _keep(self, error: BaseException) -> None:
            self.error = error
            logger.log(trt.ILogger.ERROR, f"calibration: {str(error) or type(error).__name__}")

        # What follows is asked of the legacy calibrator alone.

        def get_quantile(self) -> float:
            return _QUANTILE

        def get_regression_cutoff(self) -> float:
            return _REGRESSION_CUTOFF

        def read_histogram_cache(self, _length: int) -> None:
            """No histogram is kept: the calibration cache holds what follows from it."""

        def write_histogram_cache(self, _pointer: Any, _length: int) -> None:
            """See ``read_histogram_cache``."""

    return Calibrator()


def set_calibration_shapes(builder: Any, network: Any, config: Any, calibration: Calibration) -> None:
    """Tell *config* the shapes of the batches, where the network leaves them open.

    Otherwise the builder reads as much as the opt shapes of its first profile need, whatever the batches hold. Raises
    InputsError for an input that the batches lack, and ProfileError when TensorRT refuses the shapes.
    """
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if any(size < 0 for size in tensor.shape)]
    if not dynamic or not calibration.batches:
        return
    first = calibration.batches[0]
    profile = builder.create_optimization_profile()
    for tensor in dynamic:
        shape = _of(first, tensor.name).shape
        try:
            profile.set_shape(tensor.name, shape, shape, shape)
        except (RuntimeError, ValueError) as error:
            raise ProfileError(
                f"calibration: TensorRT refuses {shape} for input {tensor.name!r}: {error}",
                hint=f"the network declares it as {tuple(tensor.shape)}",
            ) from error
    if not profile or not config.set_calibration_profile(profile):
        raise ProfileError("TensorRT refuses to calibrate at the shapes of the samples")


def _check_batches(calibration: Calibration) -> None:
    if not calibration.batches and calibration.cache is None:
        raise InputsError("int8 calibration needs real samples, and there are none", hint="give the model inputs")
    layouts = [{n: (a.shape, a.dtype.name) for n, a in feeds.items()} for feeds in calibration.batches]
    for index, layout in enumerate(layouts):
        if layout != layouts[0]:
            raise InputsError(
                f"calibration: batch {index} is {layout}, the first one is {layouts[0]}",
                hint="all batches of a calibration have one shape; pad them, or choose samples of one size",
            )


def _of(feeds: Feeds, name: str) -> Array:
    if name not in feeds:
        raise InputsError(f"calibration: the samples have no input {name!r}", hint=nearest(name, feeds))
    return feeds[name]


def _narrowing(trt: Any) -> Callable[[str, Array], Array]:
    """How an array becomes what the network's input is: the parser narrows types that this TensorRT lacks."""
    narrow = {"float64": "float32"}
    if not has_type(trt, "INT64"):
        narrow["int64"] = "int32"

    def convert(name: str, array: Array) -> Array:
        wanted = narrow.get(array.dtype.name)
        return array if wanted is None else cast(array, np.dtype(wanted), name)

    return convert


class _Memory:
    """One device buffer per input, made when the first batch comes."""

    def __init__(self, convert: Callable[[str, Array], Array]) -> None:
        self._convert = convert
        self._stream: Stream | None = None
        self._buffers: dict[str, tuple[PinnedBuffer, DeviceBuffer]] = {}

    def put(self, feeds: Feeds, names: list[str]) -> list[int]:
        """Copy the arrays called *names* to the device and return their addresses. Raises InputsError, RunError."""
        if self._stream is None:
            self._stream = Stream()
        for name in names:
            array = self._convert(name, _of(feeds, name))
            if name not in self._buffers:
                self._buffers[name] = (PinnedBuffer(), DeviceBuffer())
            host, device = self._buffers[name]
            host.reserve(array.nbytes)
            device.reserve(array.nbytes)
            host.view(array.dtype, array.shape)[...] = array
            self._stream.upload(device, host, array.nbytes)
        self._stream.synchronize()  # TensorRT reads on a stream of its own
        return [self._buffers[name][1].pointer for name in names]

    def close(self) -> None:
        if self._stream is not None:
            self._stream.drain()
            self._stream.close()
            self._stream = None
        for host, device in self._buffers.values():
            host.close()
            device.close()
        self._buffers.clear()
