"""Builds in a process of their own: the same result, and whatever happens there is one failed build here."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pytest
from networks import conv_net, weights
from onnx import numpy_helper

import pytest_trt
from pytest_trt import errors
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.engines import engine_key, obtain_engine
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.backends import (
    BACKENDS,
    Backend,
    BuildOptions,
    BuildRequest,
    Built,
    Calibration,
    get_backend,
    isolation,
    silent,
)
from pytest_trt.backends.build_child import inside_build_child, log_line
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.backends.isolation import build, build_isolated
from pytest_trt.errors import BuildError, TrtError, UsageError
from pytest_trt.spec import model as model_module
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import get_precision
from pytest_trt.spec.shapes import Profile

REPOSITORY = Path(pytest_trt.__file__).parents[1]
LONG_S = 600.0  # nothing here waits that long, unless something is broken

# A backend that builds by running the text that it was made with, which sets ``built``. Another process knows it from
# the moment that it reads such a text.
SCRIPTED = """
from pytest_trt.backends import BACKENDS, Built
from pytest_trt.backends.fake import FakeBackend

class Script(str):
    pass

class ScriptedBackend(FakeBackend):
    name = "scripted"

    def __init__(self, script):
        super().__init__()
        self.arguments = (Script(script),)

    def build(self, request, progress=print):
        names = {"Built": Built, "request": request, "progress": progress}
        exec(self.arguments[0], names)
        return names["built"]

BACKENDS["scripted"] = ("scripted_backend", "ScriptedBackend")
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where builds put their folders; none is left there after any test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Backend]:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "scripted_backend.py").write_text(SCRIPTED)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setitem(BACKENDS, "scripted", ("scripted_backend", "ScriptedBackend"))
    monkeypatch.delitem(sys.modules, "scripted_backend", raising=False)
    return lambda script: get_backend("scripted", dedent(script))


@pytest.fixture
def request_() -> BuildRequest:
    model = Model.from_proto(conv_net(), "net", Path("models/net.onnx"))
    return BuildRequest(model, get_precision("fp32"), Profile.fixed("b2", {"x": (2, 3, 8, 8)}))


def failure_of(backend: Backend, request: BuildRequest, timeout_s: float | None = None) -> BuildError:
    with pytest.raises(BuildError) as caught:
        build_isolated(backend, request, timeout_s=timeout_s)
    assert type(caught.value) is BuildError
    return caught.value


def is_alive(pid: int) -> bool:
    """Whether there is such a process; a zombie is one, too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int) -> None:
    """For what others have to reap, or never do. Fails when it goes on running."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(600):
        with suppress(FileNotFoundError):  # a Mac, where init reaps, or gone just now
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        if not is_alive(pid):
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


def test_the_result_is_that_of_a_build_here(request_: BuildRequest):
    backend, said, said_there = FakeBackend("log=1"), [], []
    request = replace(request_, precision=get_precision("fp16"))

    here = backend.build(request, said.append)
    there = build_isolated(backend, request, said_there.append)

    assert there == replace(here, facts={**here.facts, "isolated": True})
    assert said_there == said == ["fake: building net"]


def test_onnx_runtime_builds_there_what_runs_here(request_: BuildRequest):
    backend, feeds = get_backend("onnxruntime-cpu"), {"x": weights(9, 2, 3, 8, 8)}

    here, there = backend.build(request_), build_isolated(backend, request_, timeout_s=LONG_S)

    assert there.suffix == ".onnx"
    assert there.facts["layers"] == here.facts["layers"]
    expected, found = (backend.load(built.plan, request_).run(feeds) for built in (here, there))
    np.testing.assert_array_equal(found["y"], expected["y"])


def test_the_request_arrives_whole(scripted: Callable[[str], Backend], request_: BuildRequest):
    batches = ({"x": np.full((2, 3), i, np.float32)} for i in range(3))  # nothing that could be pickled
    request = replace(
        request_,
        precision=get_precision("fp16"),
        options=BuildOptions(workspace=10**9, plugins=(Path("a.so"),)),
        profiles=(Profile.parse("b1", "x=1x3x8x8"), request_.profile),
        calibration=Calibration("entropy2", batches, "samples", b"cache"),  # type: ignore[arg-type]
        timing_cache=bytes(range(256)),
    )
    backend = scripted("""
        r, c = request, request.calibration
        told = [r.model.fingerprint, r.model.name, str(r.model.path), r.precision.name, r.profile_index,
                repr(r.options), [p.describe() for p in r.profiles], list(r.timing_cache),
                c.algorithm, c.fingerprint, list(c.cache), [float(b["x"].sum()) for b in c.batches]]
        built = Built(b"", ".x", {"told": told})
    """)

    assert build_isolated(backend, request).facts["told"] == [
        request.model.fingerprint,
        "net",
        "models/net.onnx",
        "fp16",
        1,
        repr(request.options),
        [profile.describe() for profile in request.profiles],
        list(range(256)),
        "entropy2",
        "samples",
        list(b"cache"),
        [0.0, 6.0, 12.0],
    ]


def test_a_model_too_large_for_one_message_arrives(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    request_.model.proto.graph.initializer.append(numpy_helper.from_array(weights(5, 3, 512), "large"))
    backend = get_backend("onnxruntime-cpu")
    monkeypatch.setattr(model_module, "_MAX_MESSAGE_BYTES", 100)
    saved: list[list[str]] = []
    save = Model.save

    def watched(self: Model, folder: Path) -> Path:
        path = save(self, folder)
        saved.append(sorted(file.name for file in folder.iterdir()))
        return path

    monkeypatch.setattr(Model, "save", watched)
    built = build_isolated(backend, request_)

    assert saved == [["model.onnx", "model.onnx.data"]]
    assert backend.load(built.plan, request_).run({"x": weights(9, 2, 3, 8, 8)})["y"].shape == (2, 5)


def test_bytes_and_facts_come_back_as_they_are(scripted: Callable[[str], Backend], request_: BuildRequest):
    backend = scripted("""
        facts = {"build_seconds": 1.5, "tactics": {"conv": ["a", None, True]}, "text": "é…\\u2028"}
        built = Built(bytes(range(256)) * 9999, ".plan", facts, b"\\x00timings\\n", "one\\ntwo", b"\\xffcalibration")
    """)

    assert build_isolated(backend, request_) == Built(
        plan=bytes(range(256)) * 9999,
        suffix=".plan",
        facts={
            "build_seconds": 1.5,
            "tactics": {"conv": ["a", None, True]},
            "text": "é…\u2028",
            "isolated": True,
        },
        timing_cache=b"\x00timings\n",
        log="one\ntwo",
        calibration_cache=b"\xffcalibration",
    )


def test_what_libraries_print_is_log_and_no_message(scripted: Callable[[str], Backend], request_: BuildRequest):
    backend = scripted("""
        import ctypes, os, sys, threading
        print('{"built": {"suffix": ".wrong"}}')
        os.write(2, b'{"progress": "wrong"}\\nno UTF-8: \\xff\\n')
        ctypes.CDLL(None).printf(b"from C, buffered\\n")
        threads = [threading.Thread(target=lambda i=i: [progress(f"{i} {j}" + "." * 50_000) for j in range(40)])
                   for i in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
        built = Built(b"", ".x", {}, log="said")
    """)
    said: list[str] = []

    found = build_isolated(backend, request_, said.append)

    assert found.suffix == ".x"
    assert sorted(said) == sorted(f"{i} {j}{'.' * 50_000}" for i in range(4) for j in range(40))
    assert found.log.splitlines() == [
        "said",
        '{"built": {"suffix": ".wrong"}}',
        '{"progress": "wrong"}',
        "no UTF-8: �",
        "from C, buffered",
    ]


@pytest.mark.parametrize(
    ("number", "hint"), [("SIGABRT", "may not crash"), ("SIGKILL", "when the memory is used up"), ("SIGBUS", "log")]
)
def test_a_crash_is_a_failed_build(scripted: Callable[[str], Backend], request_: BuildRequest, number: str, hint: str):
    error = failure_of(
        scripted(f"""
        import os, signal, sys
        from pytest_trt.backends.build_child import log_line
        log_line("said before")
        print("printed before", end="")
        os.kill(os.getpid(), signal.{number})
        """),
        request_,
    )

    died = f"the builder's process died with signal {getattr(signal, number):d} ({number})"
    assert error.message == f"{died} while building 'net' in fp32, profile 'b2'"
    assert hint in str(error.hint)
    assert error.log.splitlines()[0] == "said before"
    assert error.log.splitlines()[1].startswith("printed before")


@pytest.mark.parametrize(("number", "hint"), [("SIGSEGV", "too new"), ("SIGKILL", "the memory is used up")])
def test_a_crash_has_the_hint_that_was_left_for_it(
    scripted: Callable[[str], Backend], request_: BuildRequest, number: str, hint: str
):
    error = failure_of(
        scripted(f"""
        import os, signal
        from pytest_trt.backends.build_child import crash_hint
        crash_hint("the model is too new")
        os.kill(os.getpid(), signal.{number})
        """),
        request_,
    )

    assert hint in str(error.hint)
    assert error.log.startswith("Fatal Python error" if number == "SIGSEGV" else "")


def test_a_hint_for_a_crash_is_no_part_of_a_build_that_ends_well(
    scripted: Callable[[str], Backend], request_: BuildRequest
):
    backend = scripted("""
        from pytest_trt.backends.build_child import crash_hint
        crash_hint("the model is too new")
        built = Built(b"", ".x", {}, log="said")
    """)

    assert build_isolated(backend, request_) == Built(b"", ".x", {"isolated": True}, log="said")


def test_an_injected_crash_leaves_what_was_logged(request_: BuildRequest):
    error = failure_of(FakeBackend("crash=1,log=1"), request_)

    assert error.message.startswith("the builder's process died with signal 11 (SIGSEGV) while ")
    assert error.log.startswith("fake: 7 nodes\nfake: what follows is as injected\n")
    assert "_misbehave" in error.log  # the Python lines that it came from


@pytest.mark.parametrize(
    ("script", "status", "last"),
    [
        ("import os; os._exit(3)", 3, "it said nothing"),
        ("raise SystemExit(0)", 0, "it said nothing"),
        ("raise TypeError('of the library')", 1, "TypeError: of the library"),
        (
            "built = Built(b'', '.x', {'fact': object()})",
            1,
            "TypeError: Object of type object is not JSON serializable",
        ),
    ],
)
def test_any_other_end_is_a_failed_build(
    scripted: Callable[[str], Backend],
    request_: BuildRequest,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: int,
    last: str,
):
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # a warning as Python ends would be said last
    error = failure_of(scripted(script), request_)

    first, *rest = error.message.splitlines()
    assert first == f"the build of 'net' in fp32, profile 'b2' ended with status {status} and no result:"
    assert rest[-1] == f"  {last}"
    assert error.log.splitlines()[-1:] == ([] if last == "it said nothing" else [last])


@pytest.mark.parametrize("name", ["BuildError", "UnsupportedError", "ProfileError", "UsageError", "TrtError"])
def test_an_error_arrives_as_it_was_raised(scripted: Callable[[str], Backend], request_: BuildRequest, name: str):
    backend = scripted(f"""
        from pytest_trt.errors import *
        raise {name}("what is wrong: é", hint="what to do")
    """)

    with pytest.raises(TrtError) as caught:
        build_isolated(backend, request_)

    assert type(caught.value) is getattr(errors, name)
    assert (caught.value.message, caught.value.hint) == ("what is wrong: é", "what to do")


def test_an_error_brings_the_log_along(scripted: Callable[[str], Backend], request_: BuildRequest):
    backend = scripted("""
        import os
        from pytest_trt.backends.build_child import log_line
        from pytest_trt.errors import BuildError

        class SpecialError(BuildError):
            pass

        os.write(2, b"printed\\n")
        log_line("one")
        raise SpecialError("wrong", log="one\\ntwo")
    """)

    assert failure_of(backend, request_).log == "one\ntwo\nprinted"  # as the nearest class that both know


def test_a_build_that_takes_too_long_is_ended_with_all_that_it_started(
    scripted: Callable[[str], Backend], request_: BuildRequest, monkeypatch: pytest.MonkeyPatch
):
    backend = scripted(f"""
        import os, subprocess, sys, tempfile, time
        from pytest_trt.backends.build_child import log_line
        tempfile.mkdtemp()
        log_line("begun")
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep({LONG_S})"])
        progress(f"{{os.getpid()}} {{other.pid}}")
        time.sleep({LONG_S})
    """)
    clock, said = SimpleNamespace(monotonic=time.monotonic), []
    monkeypatch.setattr(isolation, "time", clock)

    def begun(message: str) -> None:
        said.append(message)
        clock.monotonic = lambda: time.monotonic() + LONG_S

    with pytest.raises(BuildError) as caught:
        build_isolated(backend, request_, begun, timeout_s=LONG_S)

    wanted = "the build of 'net' in fp32, profile 'b2' was not finished after 600 s (--trt-build-timeout)"
    assert caught.value.message == wanted
    assert caught.value.hint
    assert caught.value.log == "begun"
    builder, other = map(int, said[0].split())
    assert not is_alive(builder)
    wait_until_gone(other)


def test_a_process_that_stays_behind_holds_nothing_up(
    scripted: Callable[[str], Backend], request_: BuildRequest, tmp_path: Path
):
    pid_file = tmp_path / "pid"
    backend = scripted(f"""
        import os, time
        pid = os.fork()
        if not pid:
            time.sleep({LONG_S})
            os._exit(0)
        open({str(pid_file)!r}, "w").write(str(pid))
        built = Built(b"plan", ".x")
    """)

    try:
        assert build_isolated(backend, request_, timeout_s=LONG_S / 2).plan == b"plan"
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where these tests are a job that a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_build_and_goes_on(
    scripted: Callable[[str], Backend], request_: BuildRequest, interruptible: None
):
    backend = scripted(f"""
        import os, time
        progress(str(os.getpid()))
        time.sleep({LONG_S})
    """)
    said: list[str] = []
    interrupt = threading.Timer(0.2, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))

    def begun(message: str) -> None:
        said.append(message)
        interrupt.start()

    with pytest.raises(KeyboardInterrupt):
        build_isolated(backend, request_, begun)

    interrupt.join()
    assert not is_alive(int(said[0]))


def test_what_a_progress_raises_ends_the_build(request_: BuildRequest):
    def refuse(message: str) -> None:
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="fake: building net"):
        build_isolated(FakeBackend(f"hang={LONG_S}"), request_, refuse)


def test_a_build_ends_with_the_process_that_wanted_it(tmp_path: Path):
    script = f"""
import sys
from pathlib import Path
from networks import conv_net
from pytest_trt.backends import BuildRequest
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.backends import isolation
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import get_precision
from pytest_trt.spec.shapes import Profile

end = isolation._messages
def watched(child, *rest):
    for message in end(child, *rest):
        print(child.pid, flush=True)
        yield message
isolation._messages = watched
request = BuildRequest(Model.from_proto(conv_net(), "net"), get_precision("fp32"), Profile.fixed("p", {{}}))
isolation.build_isolated(FakeBackend("hang={LONG_S}"), request)
"""
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        builder = int(parent.stdout.readline())
        parent.kill()

    wait_until_gone(builder)


def test_the_process_is_at_home(
    scripted: Callable[[str], Backend], request_: BuildRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The same package, path, environment and folder; a file of the folder cannot stand in for a library."""
    here = tmp_path / "here"
    (here / "pytest_trt").mkdir(parents=True)
    for name in ("json.py", "onnx.py", "numpy.py", "random.py", "pytest_trt/__init__.py"):
        (here / name).write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(here)
    monkeypatch.setenv("A_VARIABLE", "of this process")
    backend = scripted("""
        import os, sys, tempfile, pytest_trt
        from pytest_trt.backends.build_child import inside_build_child
        mode = os.stat(sys.argv[1]).st_mode
        built = Built(b"", ".x", {"found": [
            pytest_trt.__file__, os.getcwd(), os.environ["A_VARIABLE"], sys.path, mode, inside_build_child(),
            os.path.dirname(sys.argv[1]), os.path.dirname(tempfile.mkdtemp()) == sys.argv[1], sys.executable]})
    """)

    *found, folder, is_temporary, executable = build_isolated(backend, request_).facts["found"]

    mode = found.pop(4)
    assert found == [pytest_trt.__file__, str(here), "of this process", [*sys.path, str(REPOSITORY)], True]
    assert stat.S_IMODE(mode) == 0o700
    assert folder == tempfile.gettempdir()
    assert is_temporary is True
    assert executable == sys.executable
    assert not inside_build_child()


def test_a_line_for_the_log_goes_nowhere_here(capfd: pytest.CaptureFixture[str]):
    log_line("said")

    assert capfd.readouterr() == ("", "")


def test_a_backend_that_cannot_be_made_elsewhere_is_refused(request_: BuildRequest):
    class Special(FakeBackend):
        pass

    with pytest.raises(UsageError, match="Special is not the registered backend 'fake'") as caught:
        build_isolated(Special(), request_)
    assert caught.value.hint == "build without --trt-isolate and --trt-build-timeout"


def test_elsewhere_than_on_posix_it_is_refused(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(isolation, "os", SimpleNamespace(name="nt"))

    with pytest.raises(UsageError, match="needs Linux or macOS"):
        build_isolated(FakeBackend(), request_)


def test_a_full_disk_is_said(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Model, "save", full)

    error = failure_of(FakeBackend(), request_)
    assert error.message.endswith("to a process of its own: No space left on device")
    assert "TMPDIR" in str(error.hint)


def test_a_python_that_cannot_be_started_is_said(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")

    assert (
        failure_of(FakeBackend(), request_).message == "cannot start a process for the build: No such file or directory"
    )


@pytest.mark.parametrize(
    ("isolate", "timeout_s", "isolated"), [(False, None, False), (True, None, True), (False, LONG_S, True)]
)
def test_a_timeout_needs_a_process(request_: BuildRequest, isolate: bool, timeout_s: float | None, isolated: bool):
    built = build(FakeBackend(), request_, silent, isolate=isolate, timeout_s=timeout_s)

    assert built.facts.get("isolated", False) is isolated


@pytest.mark.parametrize("isolate", [False, True])
def test_an_engine_keeps_its_log(request_: BuildRequest, tmp_path: Path, isolate: bool):
    store, backend = DirectoryStore(tmp_path / "cache"), FakeBackend("log=1")

    built = obtain_engine(store, backend, request_, label="net", isolate=isolate)
    found = obtain_engine(store, backend, request_, label="net", isolate=isolate)

    assert (built.fresh, found.fresh) == (True, False)
    assert built.log == found.log == "fake: 7 nodes\nfake: what follows is as injected"
    assert built.facts == found.facts
    assert built.facts.get("isolated", False) is isolate
    (entry,) = store.entries()
    assert entry.path is not None
    assert (entry.path / "build.log").read_text() == found.log


def test_an_engine_without_a_log_has_no_file(request_: BuildRequest):
    store = MemoryStore()

    assert obtain_engine(store, FakeBackend(), request_, label="net").log == ""
    entry = store.get(engine_key(FakeBackend(), request_))
    assert entry is not None
    assert sorted(entry.files) == ["engine.fake", "facts.json"]


def test_an_engine_that_takes_too_long_is_not_kept(request_: BuildRequest):
    store = MemoryStore()
    with pytest.raises(BuildError, match=r"after 0\.5 s"):
        obtain_engine(store, FakeBackend(f"hang={LONG_S}"), request_, label="net", build_timeout_s=0.5)

    assert list(store.entries()) == []


def test_a_calibration_is_in_the_key_by_its_samples_and_algorithm(request_: BuildRequest):
    def key(*arguments: object) -> str:
        calibration = Calibration(*arguments) if arguments else None  # type: ignore[arg-type]
        return engine_key(FakeBackend(), replace(request_, calibration=calibration)).digest

    assert len({key(), key("minmax", (), "a"), key("entropy2", (), "a"), key("minmax", (), "b")}) == 4
    assert key("minmax", (), "a") == key("minmax", ({"x": np.zeros(3)},), "a", b"cache")


@pytest.mark.parametrize("copied", [BuildError.again, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_build_error_keeps_its_log_when_copied(copied: Callable[[BuildError], BuildError]):
    copy = copied(BuildError("wrong", hint="do it", log="one\ntwo"))

    assert type(copy) is BuildError
    assert (copy.message, copy.hint, copy.log) == ("wrong", "do it", "one\ntwo")
    assert str(copy) == "wrong\n  hint: do it"
    assert BuildError("wrong").log == ""
