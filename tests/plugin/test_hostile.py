"""Broken and hostile models among good ones: each is one red item with its own words, and the rest goes on."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError
from hostile import EXPECTED, HOSTILE, INPUTS, MODELS

Run = Callable[..., pytest.RunResult]

# Two precisions: a broken model has several cases to skip.
PRECISIONS = "--trt-precision=fp32,fp16"
CASES = 4
# With a manifest: a path that leaves the folder or leads nowhere is the manifest's, known before there are cases.
OF_THE_MANIFEST = {"model_symlink": r"leaves the model's folder", "model_symlink_loop": r"cannot be followed.*loop"}
# On the command line pytest itself refuses what is no file, and walks a folder.
NO_ARGUMENT = {"missing_file", "folder_as_model", "model_symlink_loop", "model_fifo"}
# An .npz is of interest only where a manifest names it.
NEEDS_MANIFEST = {name for name in INPUTS if name.startswith("npz_")}


@dataclass
class Outcomes:
    """What a junit file says of one model: how its model item ended and with what words, and how its cases did."""

    model: list[tuple[str, str]]
    cases: Counter[str]


def place(root: Path, name: str) -> Path:
    """Build the hostile model *name* below *root*, in a folder of that name, and return the path of its file."""
    folder = root / name
    folder.mkdir(parents=True)
    return HOSTILE[name](folder)


def with_manifest(path: Path, name: str) -> None:
    """Write the manifest of a user who knows of nothing bad."""
    text = f'[model]\nname = "{name}"\npath = "{path.name}"\n'
    if (path.parent / "inputs.npz").exists():
        text += '[inputs]\nfile = "inputs.npz"\n'
    (path.parent / "trt.toml").write_text(text)


def outcomes(junit: Path) -> dict[str, Outcomes]:
    """Outcomes by model; each lies in a folder of its name, one below the run's."""
    found: dict[str, Outcomes] = {}
    for case in ElementTree.parse(junit).iter("testcase"):
        folder = (case.get("classname") or "").split(".")[1]
        kinds = {child.tag: child.get("message", "") + "\n" + (child.text or "") for child in case}
        kind, text = next(iter(kinds.items()), ("passed", ""))
        entry = found.setdefault(folder, Outcomes([], Counter()))
        if case.get("name") == "model":
            entry.model.append((kind, text))
        else:
            entry.cases[kind] += 1
    return found


def refused(found: dict[str, Outcomes], expected: dict[str, str], cases: int) -> str:
    """Return a line for each model that was not refused with the *expected* words, and its cases skipped."""
    wrong = []
    for name, pattern in expected.items():
        entry = found.get(name, Outcomes([], Counter()))
        if [kind for kind, _ in entry.model] != ["failure"] or entry.cases != ({"skipped": cases} if cases else {}):
            wrong.append(f"{name}: model {entry.model}, cases {dict(entry.cases)}")
        elif not re.search(pattern, entry.model[0][1]):
            wrong.append(f"{name}: {entry.model[0][1]!r} does not match {pattern!r}")
    return "\n".join(wrong)


def assert_healthy_passed(found: dict[str, Outcomes]) -> None:
    assert [kind for kind, _ in found["tiny"].model] == ["passed"]
    assert found["tiny"].cases == {"passed": 8}


def assert_no_python_shows(result: pytest.RunResult) -> None:
    text = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["one process", "two workers"])
def test_each_hostile_model_folder_is_one_failed_item(run: Run, project: Path, workers: tuple[str, ...]) -> None:
    for name in HOSTILE:
        with_manifest(place(project / "models", name), name)

    result = run("models", PRECISIONS, "--junit-xml=junit.xml", *workers)

    found = outcomes(project / "junit.xml")
    loaded = {name: pattern for name, pattern in EXPECTED.items() if name not in OF_THE_MANIFEST}
    assert refused(found, loaded, CASES) == ""
    assert refused(found, OF_THE_MANIFEST, 0) == ""
    assert_healthy_passed(found)
    assert_no_python_shows(result)
    result.assert_outcomes(failed=len(HOSTILE), passed=9, skipped=CASES * len(loaded))


def test_each_hostile_onnx_file_is_one_failed_item(run: Run, project: Path) -> None:
    expected = {n: pattern for n, pattern in EXPECTED.items() if n not in NO_ARGUMENT | NEEDS_MANIFEST}
    files = []
    for name in expected:
        path = place(project / "bare", name)
        if path.parent.name != name:
            # It would be called as its folder, and several of these are called alike.
            path = path.rename(path.with_name(f"{name}.onnx"))
        files.append(str(path.relative_to(project)))

    result = run("models", *files, PRECISIONS, "--junit-xml=junit.xml")

    found = outcomes(project / "junit.xml")
    assert refused(found, expected, CASES) == ""
    assert_healthy_passed(found)
    assert_no_python_shows(result)
    result.assert_outcomes(failed=len(expected), passed=9, skipped=CASES * len(expected))


# What a source returns is in memory: it has no file that could be empty, a link, or have others beside it.
OF_A_FILE = {"empty_file", "no_graph", "model_symlink"}
SOURCE = """
import onnx
from pathlib import Path

def build():
    return onnx.ModelProto.FromString(Path(__file__).with_name({name!r}).read_bytes())
"""


def returned_by_a_source(root: Path) -> dict[str, str]:
    """Write a folder with a ``build.py`` for each hostile model that can be in memory; return what to expect."""
    expected = {}
    for name in MODELS.keys() - OF_A_FILE - NO_ARGUMENT:
        path = place(root, name)
        try:
            onnx.ModelProto.FromString(path.read_bytes())
        except DecodeError:
            continue
        path = path.rename(path.with_name(f"{name}.onnx"))
        (path.parent / "build.py").write_text(SOURCE.format(name=path.name))
        (path.parent / "trt.toml").write_text(f'[model]\nname = "{name}"\nsource = "build.py:build"\n')
        expected[name] = "external data that were not loaded" if name.startswith("external_") else EXPECTED[name]
    return expected


def test_what_a_source_returns_is_checked_like_a_file(run: Run, project: Path) -> None:
    # A source's code and arguments are its key: alike in two folders, they are one model.
    expected = returned_by_a_source(project / "models")

    result = run("models", PRECISIONS, "--junit-xml=junit.xml")

    found = outcomes(project / "junit.xml")
    assert len(expected) >= 30
    assert refused(found, expected, CASES) == ""
    assert_healthy_passed(found)
    assert_no_python_shows(result)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import numpy as np; return {'x': np.ones((2, 4), np.float32), 'z': np.ones(1)}", "array 'z' is no input"),
        ("return {'x': [[1, 2, 3, 4]]}", "returned list for 'x', not a NumPy array"),
        ("return [1]", "returned list, not arrays by the names of inputs"),
        ("return {}", "no array for input 'x'"),
        ("import numpy as np; return {'x': np.array([['a'] * 4])}", "<U1, but the model wants float32"),
        ("raise KeyError('images')", "build.py:inputs failed: KeyError: 'images'"),
        ("import sys; sys.exit('no data set here')", "build.py:inputs failed: SystemExit: no data set here"),
        ("def", "importing build.py failed: SyntaxError"),
    ],
)
def test_a_source_of_inputs_that_fails_is_one_failed_item(run: Run, project: Path, body: str, message: str) -> None:
    folder = project / "models" / "tiny"
    (folder / "trt.toml").write_text('[inputs]\nsource = "build.py:inputs"\n')
    (folder / "build.py").write_text(f"def inputs():\n    {body}\n")

    result = run("models")

    result.assert_outcomes(failed=1, skipped=2)
    assert message in result.stdout.str()
    assert_no_python_shows(result)


def test_an_error_that_nobody_foresaw_is_no_skip_in_the_report(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("of a library")

    monkeypatch.setattr("pytest_trt.backends.fake.FakeBackend.load", broken)
    result = run("models", "--trt-profile=b8", "--trt-report=report.json", backend="fake,onnxruntime-cpu")

    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        ["*KeyError: 'of a library'", " tiny-fp32-b8-fake * error", " tiny-fp32-b8 * - ERROR *ms*"]
    )
    record = json.loads((project / "report.json").read_text())["records"][0]
    assert record["outcome"] == "error"
    assert record["messages"]["accuracy"] == "KeyError: 'of a library'"
