"""Building in a process of its own: a crash or a hang of the builder is a failed build, not the end of the session.

Only the request is pickled, by this process for a child of its own: what comes back is JSON and raw files, so that
nothing that a crashed builder left is ever executed here.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

import pytest_trt
from pytest_trt import errors
from pytest_trt.backends import Backend, BuildRequest, Built, Progress, get_backend, silent
from pytest_trt.backends.build_child import REQUEST_FILE
from pytest_trt.errors import BuildError, TrtError, UsageError

__all__ = ["build", "build_isolated"]

# Not ``-m``: that looks into the working directory first, and a file there may have the name of any library.
_START: Final = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from pytest_trt.backends.build_child import main; main(sys.argv[1], int(sys.argv[2]))"
)
_TICK_S: Final = 0.5
_KILL_S: Final = 30.0  # a process that hangs in a driver cannot even be killed; it is left behind then
_OUTPUT_LIMIT_BYTES: Final = 1_000_000


def build(
    backend: Backend,
    request: BuildRequest,
    progress: Progress = silent,
    *,
    isolate: bool = False,
    timeout_s: float | None = None,
) -> Built:
    """Build here, or in a process of its own where that is wanted; a timeout needs one. Raises BuildError."""
    if isolate or timeout_s is not None:
        return build_isolated(backend, request, progress, timeout_s=timeout_s)
    return backend.build(request, progress)


def build_isolated(
    backend: Backend, request: BuildRequest, progress: Progress = silent, *, timeout_s: float | None = None
) -> Built:
    """Build in a fresh process with this one's environment, working directory and import path.

    The result is that of ``backend.build``, with the fact ``isolated`` and with whatever the process wrote to stdout
    and stderr at the end of ``log``. The backend is made anew there, from its name and its ``arguments`` (a tuple; none
    where the attribute is missing). *timeout_s* counts from the start of the process.

    Raises what ``build`` raised there; BuildError for a crash, a timeout, or any other end; UsageError where this
    cannot be done.
    """
    if os.name != "posix":
        raise UsageError(
            "a build in a process of its own needs Linux or macOS",
            hint="leave --trt-isolate and --trt-build-timeout out",
        )
    arguments = _arguments(backend)
    with tempfile.TemporaryDirectory(prefix="pytest-trt-build-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            _write(folder, backend.name, arguments, request)
        except OSError as error:
            raise BuildError(
                f"cannot hand {_what(request)} to a process of its own: {error.strerror}",
                hint="let TMPDIR name a folder with room for the model",
            ) from error
        return _run(folder, request, progress, timeout_s)


def _arguments(backend: Backend) -> tuple[str, ...]:
    """What *backend* was made with. Raises UsageError unless another process would get the same one by its name."""
    arguments: tuple[str, ...] = getattr(backend, "arguments", ())
    if type(get_backend(backend.name, *arguments)) is not type(backend):
        raise UsageError(
            f"{type(backend).__name__} is not the registered backend {backend.name!r}, and cannot be made elsewhere",
            hint="build without --trt-isolate and --trt-build-timeout",
        )
    return arguments


def _write(folder: Path, backend: str, arguments: tuple[str, ...], request: BuildRequest) -> None:
    # The model as ONNX, since a pickle of it would stop at protobuf's 2 GiB; the rest is small, or arrays.
    model: Any = request.model  # without a graph it is small, and its function is imported there again
    if request.model.has_graph:
        request.model.save(folder)
        model = {"name": request.model.name, "path": request.model.path}
    rest = {f.name: getattr(request, f.name) for f in fields(request) if f.name != "model"}
    if request.calibration is not None:
        batches = [dict(batch) for batch in request.calibration.batches]  # whatever reads them, only here it can
        rest["calibration"] = replace(request.calibration, batches=batches)
    with (folder / REQUEST_FILE).open("wb") as file:
        pickle.dump({"backend": backend, "arguments": arguments, "model": model, "rest": rest}, file)


def _run(folder: Path, request: BuildRequest, progress: Progress, timeout_s: float | None) -> Built:
    heard = _Heard(folder / "output")
    end: dict[str, Any] = {}
    deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
    with _child(folder, heard.output) as (child, pipe):
        try:
            for message in _messages(child, pipe, deadline):
                if "progress" in message:
                    progress(message["progress"])
                elif "log" in message:
                    heard.lines.append(message["log"])
                elif "crash_hint" in message:
                    heard.crash_hint = message["crash_hint"]
                else:
                    end = message
            child.wait(None if deadline == math.inf else max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise BuildError(
                f"the build of {_what(request)} was not finished after {timeout_s:g} s (--trt-build-timeout)",
                hint="give it more time, or less to do: a lower --trt-opt-level, --trt-timing-cache=on",
                log=heard.log(),
            ) from None
    if "built" in end:
        return _built(end["built"], folder, heard)
    raise _error(end["error"], heard) if "error" in end else _ended(child.returncode, request, heard)


@contextmanager
def _child(folder: Path, output: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The process, and the end of its pipe to read from. It and all that it started are gone afterwards."""
    # This package's place comes last, where it hides nothing: for when no entry of the path leads to it.
    path = [*(entry for entry in sys.path if isinstance(entry, str)), str(Path(pytest_trt.__file__).parents[1])]
    reading, writing = os.pipe()
    try:
        try:
            with output.open("wb") as log:
                child = subprocess.Popen(
                    # A crash leaves the Python lines it came from (faulthandler) and all output, C's too (-u).
                    [sys.executable, "-u", "-X", "faulthandler", "-c", _START, str(folder), str(writing), *path],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(writing,),
                    start_new_session=True,  # Ctrl-C is for this process, which then ends the other one
                )
        except OSError as error:
            raise BuildError(f"cannot start a process for the build: {error.strerror or error}") from error
        finally:
            os.close(writing)
        try:
            yield child, reading
        finally:
            _end(child)
    finally:
        os.close(reading)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        # Not waited for yet: its number cannot be anybody else's.
        os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_KILL_S)
    if child.stdin is not None:
        child.stdin.close()


def _messages(child: subprocess.Popen[bytes], pipe: int, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield what the child says until it has ended or closed the pipe. Raises TimeoutExpired at *deadline*."""
    pending: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(_START, deadline)
            # What the builder forked can hold the pipe open: the child's end counts as well, but only after all
            # that it had said.
            ended = child.poll() is not None
            if selector.select(0 if ended else min(left, _TICK_S)):
                data = os.read(pipe, 1 << 20)
                if not data:
                    return
                pending.append(data)
                if b"\n" in data:
                    *lines, rest = b"".join(pending).split(b"\n")
                    pending = [rest]
                    yield from map(json.loads, lines)
            elif ended:
                return


@dataclass
class _Heard:
    """What is known of a build besides its result: its ``log`` messages, the hint that it left for a crash, and the
    file of stdout and stderr."""

    output: Path
    lines: list[str] = field(default_factory=list)
    crash_hint: str = "the build log has its last words; another TensorRT, or a lower --trt-opt-level, may not crash"

    def log(self, told: str = "") -> str:
        """*told* by the builder at its end, or else what was heard until then; after it, what else was printed."""
        with self.output.open("rb") as file:
            skipped = max(0, file.seek(0, os.SEEK_END) - _OUTPUT_LIMIT_BYTES)
            file.seek(skipped)
            printed = ("…" if skipped else "") + file.read().decode("utf-8", "replace")
        return "\n".join(text for part in (told or "\n".join(self.lines), printed) if (text := part.rstrip()))


def _built(end: Mapping[str, Any], folder: Path, heard: _Heard) -> Built:
    files = {name: (folder / name).read_bytes() for name in end["files"]}
    return Built(suffix=end["suffix"], facts={**end["facts"], "isolated": True}, log=heard.log(end["log"]), **files)


def _error(end: Mapping[str, Any], heard: _Heard) -> TrtError:
    kind: type[TrtError] = getattr(errors, end["type"])
    if issubclass(kind, BuildError):
        return kind(end["message"], hint=end["hint"], log=heard.log(end["log"]))
    return kind(end["message"], hint=end["hint"])


def _ended(status: int, request: BuildRequest, heard: _Heard) -> BuildError:
    log = heard.log()
    if status >= 0:
        last = "\n  ".join([line for line in log.splitlines() if line.strip()][-5:])
        return BuildError(
            f"the build of {_what(request)} ended with status {status} and no result:\n  {last or 'it said nothing'}",
            log=log,
        )
    hint = heard.crash_hint
    if -status == signal.SIGKILL:
        hint = "the kernel does this to a process when the memory is used up"
    died = f"the builder's process died with {_signal_name(-status)} while building {_what(request)}"
    return BuildError(died, hint=hint, log=log)


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _what(request: BuildRequest) -> str:
    return f"{request.model.name!r} in {request.precision.name}, profile {request.profile.name!r}"
