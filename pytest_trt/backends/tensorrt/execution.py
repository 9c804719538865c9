"""One execution context on one stream, and the memory of its inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.cuda import Stream
from pytest_trt.backends.feeds import check_names
from pytest_trt.backends.tensorrt.binding import Binding, declared_shape, output_allocator
from pytest_trt.backends.tensorrt.logger import process_logger
from pytest_trt.backends.tensorrt.versions.debugging import DebugTensors
from pytest_trt.errors import RunError, UnsupportedError

if TYPE_CHECKING:
    from pytest_trt.backends import Array, BuildRequest, Feeds, Outputs
    from pytest_trt.backends.tensorrt.loading import LoadedEngine

__all__ = ["Execution"]


class Execution:
    """Runs *loaded* under the profile of *request*. Buffers are kept between runs, and freed with the context."""

    def __init__(self, trt: Any, loaded: LoadedEngine, request: BuildRequest) -> None:
        self._trt, self._request, self._loaded = trt, request, loaded
        self._logger = process_logger(trt)
        self._profile = request.profile.name
        self._addresses: tuple[Any, ...] = ()
        with ExitStack() as stack:
            alone = loaded.users == 0
            loaded.retain()
            stack.callback(loaded.release)
            self._stream = Stream()
            stack.callback(self._stream.close)
            self._handle = self._stream.handle
            engine = loaded.engine
            self._bindings = self._bind(stack)
            self._context = engine.create_execution_context()
            if self._context is None:
                raise self._error("no execution context could be made")
            self._execute = self._context.execute_async_v3
            stack.callback(self._let_go)  # the context goes before the memory that it knows
            # The plan carries DETAILED names for the inspector; annotating them would cost time in each launch.
            self._context.nvtx_verbosity = trt.ProfilingVerbosity.NONE
            self._debugged = self._listen(stack) if request.debug_tensors else None
            self._select_profile(alone)
            self._resources = stack.pop_all()
        self._inputs = [b for b in self._bindings if b.is_input]
        self._outputs = [b for b in self._bindings if not b.is_input]
        # Inputs that no node reads are not in the engine; feeding them is no mistake.
        self._unused = {spec.name for spec in request.model.inputs} - {b.name for b in self._inputs}

    def _listen(self, stack: ExitStack) -> DebugTensors:
        engine, names = self._loaded.engine, self._request.debug_tensors
        found = DebugTensors(self._trt, engine, self._context, names, self._stream)
        stack.callback(found.close)
        return found

    def _select_profile(self, alone: bool) -> None:
        """The first context of an engine begins with profile 0; every other one has to be told."""
        index = self._request.profile_index
        fixed = all(-1 not in b.declared for b in self._bindings if b.is_input)  # built without any profile
        if fixed or (alone and len(self._request.held_profiles) == 1):
            return
        if not self._context.set_optimization_profile_async(index, self._stream.handle):
            if alone:
                raise self._error("the profile was refused")
            raise UnsupportedError(
                f"{self._error('a second context was refused').message}",
                hint="before TensorRT 10 an engine must be built to share its profiles: build it again",
            )
        self._stream.synchronize()

    def _bind(self, stack: ExitStack) -> list[Binding]:
        request, engine = self._request, self._loaded.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT]
        strange = sorted(set(inputs) - {spec.name for spec in request.model.inputs})
        if strange:
            raise self._error(
                f"the engine has an input {strange[0]!r}, which is none of the model's"
                f" ({', '.join(spec.name for spec in request.model.inputs)}): its parser named a tensor anew"
            )
        fixed = all(-1 not in declared_shape(engine, name) for name in inputs)
        index = 0 if fixed else request.profile_index
        held = int(engine.num_optimization_profiles) if index else 1
        if index >= held:
            raise self._error(f"the engine holds {held} profiles, and this would be number {index + 1}")
        specs = {spec.name: spec for spec in (*request.model.inputs, *request.model.outputs)}
        bindings: list[Binding] = []
        for name in names:
            bindings.append(Binding(self._trt, engine, name, specs.get(name), index))
            stack.callback(bindings[-1].close)
        return bindings

    def _encode(self, feeds: Feeds) -> dict[str, Array]:
        """Check *feeds*; return them in the engine's types."""
        check_names([b.name for b in self._inputs], feeds, self._unused)
        return {b.name: self._apart(b, b.encode(feeds[b.name], self._profile)) for b in self._inputs}

    def _put(self, arrays: Mapping[str, Array]) -> bool:
        """Bring *arrays* to the device, and have memory for the outputs that they lead to.

        Returns whether shapes or addresses are others than before: then a graph of an earlier launch is stale.
        """
        self._stream.synchronize()  # launches still under way read the buffers that follow
        for binding in self._inputs:
            array = arrays[binding.name]
            if binding.shape != array.shape and not self._context.set_input_shape(binding.name, array.shape):
                raise self._error(f"input {binding.name!r}: the shape {array.shape} was refused")
            binding.reserve(array.shape)
            binding.fill(array)
            self._context.set_tensor_address(binding.name, binding.address)
        self._shape_outputs()
        addresses = tuple((b.shape, b.address) for b in self._bindings)
        moved, self._addresses = addresses != self._addresses, addresses
        self._upload()
        self._stream.synchronize()
        return moved

    def _apart(self, binding: Binding, array: Array) -> Array:
        """*array*, copied where it lies in the buffer of another input, which is filled meanwhile."""
        others = (b for b in self._inputs if b is not binding)
        return array.copy() if any(other.host.overlaps(array) for other in others) else array

    def _shape_outputs(self) -> None:
        try:
            unknown = self._context.infer_shapes()
        except RuntimeError as error:
            raise self._error(f"shapes cannot be inferred: {error}") from error
        if unknown:
            raise self._error(f"shapes cannot be inferred, for lack of {', '.join(unknown)}")
        for binding in self._outputs:
            if binding.allocator is None:
                shape = tuple(int(size) for size in self._context.get_tensor_shape(binding.name))
                if all(size >= 0 for size in shape):
                    binding.reserve(shape)
                else:
                    binding.allocator = output_allocator(self._trt)
                    self._context.set_output_allocator(binding.name, binding.allocator)
            if binding.allocator is not None:
                binding.allocator.prepare(int(self._context.get_max_output_size(binding.name)))
            if binding.address:
                self._context.set_tensor_address(binding.name, binding.address)

    def _enqueue(self) -> None:
        if not self._execute(self._handle):
            raise self._failure()

    def _failure(self) -> RunError:
        for binding in self._outputs:
            if binding.allocator is not None and binding.allocator.error is not None:
                error: RunError = binding.allocator.error
                return error
        return self._error("execution failed")

    def _upload(self) -> None:
        for binding in self._inputs:
            binding.upload(self._stream)

    def _download(self) -> None:
        for binding in self._outputs:
            binding.download(self._stream)

    def _collect(self, *, copy: bool) -> Outputs:
        """Copy the outputs to the host and return them."""
        self._download()
        self._stream.synchronize()
        outputs = {binding.name: binding.decode(copy=copy) for binding in self._outputs}
        return outputs if self._debugged is None else {**outputs, **self._debugged.take()}

    def _error(self, what: str) -> RunError:
        said = self._logger.complaints()
        return RunError(
            f"TensorRT {self._trt.__version__}, profile {self._profile!r}: {what}" + (f"\n  {said}" if said else "")
        )

    def _let_go(self) -> None:
        # Not checked, like every call that frees: after a failed kernel it only repeats that error.
        self._stream.drain()
        self._execute = self._context = None
