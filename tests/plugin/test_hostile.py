"""Broken and hostile models among good ones: each is one red item with its own words, and the rest of the run goes on."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hostile import EXPECTED, HOSTILE, INPUTS

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
