"""The process that ``isolation`` builds in: takes a request from a folder, builds, and leaves the result there.

It says what it does through a pipe of its own, one JSON object a line, since libraries write to stdout and stderr as
they please::

    {"progress": "…"}    a Progress line
    {"log": "…"}         what the builder said; written at once, so that a crash does not take it away
    {"crash_hint": "…"}  what to say should it crash from here on
    {"built": {…}}       the end: suffix, facts, log and the names of the result files
    {"error": {…}}       the end: type, message, hint and log of a TrtError

Anything else that ends the process is a crash, and the parent says so.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_trt import errors
from pytest_trt.backends import BuildRequest, Built, get_backend
from pytest_trt.errors import TrtError
from pytest_trt.spec.model import Model

if TYPE_CHECKING:
    from pytest_trt.backends import Backend

__all__ = ["REQUEST_FILE", "RESULT_FILES", "crash_hint", "inside_build_child", "log_line", "main"]

REQUEST_FILE: Final = "request.pickle"
# Fields of Built that are bytes; each is a file, whatever its size.
RESULT_FILES: Final = ("plan", "timing_cache", "calibration_cache")


class _Channel:
    """The pipe to the parent. Builders call from threads of their own, and a buffered file takes each line whole."""

    def __init__(self, descriptor: int) -> None:
        # It ends with the process; Python's warning of that would be the last thing that a failed build says.
        self._pipe = os.fdopen(descriptor, "wb", closefd=False)

    def send(self, **message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        # Without a reader there is no parent any more, and then this process is about to end as well.
        with suppress(BrokenPipeError):
            self._pipe.write(line)
            self._pipe.flush()

    def progress(self, text: str) -> None:
        self.send(progress=text)


_channel: _Channel | None = None


def inside_build_child() -> bool:
    """Whether this process exists for one build only."""
    return _channel is not None


def log_line(text: str) -> None:
    """Keep one message of a builder, whatever happens after; nothing outside of a build's own process, where
    ``Built.log`` and ``BuildError.log`` carry it."""
    if _channel is not None:
        _channel.send(log=text)


def crash_hint(text: str) -> None:
    """Make *text* the hint of this build's error if its process crashes from here on; nothing outside of one."""
    if _channel is not None:
        _channel.send(crash_hint=text)


def main(folder: str, descriptor: int) -> None:
    """Build what lies in *folder*; tell it through the pipe *descriptor*. Does not return once there is a result."""
    global _channel
    os.set_inheritable(descriptor, False)
    _channel = _Channel(descriptor)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tempfile.tempdir = folder  # what a build that is killed leaves behind goes with the folder
    place = Path(folder)
    try:
        backend, request = _load(place)
        built = backend.build(request, _channel.progress)
    except TrtError as error:
        _channel.send(error=_describe(error))
    else:
        _channel.send(built=_keep(built, place))
    # What libraries do when an interpreter is taken down cannot harm a result that is there already. Nothing waits
    # to be written: this process was started without buffers.
    os._exit(0)


def _end_with_parent() -> None:
    # The parent holds the other end and never writes: this returns when it has ended, by whatever.
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _load(folder: Path) -> tuple[Backend, BuildRequest]:
    import onnx

    with (folder / REQUEST_FILE).open("rb") as file:
        job = pickle.load(file)
    # Not Model.load: it checks what strangers wrote, and completes it. This is what the parent has in memory.
    model = job["model"]
    if not isinstance(model, Model):
        model = Model.from_proto(onnx.load(folder / "model.onnx"), **model)
    return get_backend(job["backend"], *job["arguments"]), BuildRequest(model=model, **job["rest"])


def _keep(built: Built, folder: Path) -> dict[str, Any]:
    files = []
    for name in RESULT_FILES:
        data: bytes | None = getattr(built, name)
        if data is not None:
            (folder / name).write_bytes(data)
            files.append(name)
    return {"suffix": built.suffix, "facts": built.facts, "log": built.log, "files": files}


def _describe(error: TrtError) -> dict[str, Any]:
    """*error* by the name of the most special class that ``errors`` has for it."""
    known = next(kind for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    return {
        "type": known.__name__,
        "message": error.message,
        "hint": error.hint,
        "log": getattr(error, "log", ""),
    }
