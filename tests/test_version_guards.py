"""What differs between TensorRT's versions is told apart in one package, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

import pytest_trt

ROOT = Path(pytest_trt.__file__).parent
TENSORRT = Path("backends/tensorrt")
GUARDS = TENSORRT / "versions"
# They write lines for a tool of any release, which need not be the one that is installed: no binding is asked.
LINES = {
    TENSORRT / "command_draft.py",
    TENSORRT / "polygraphy_line.py",
    TENSORRT / "trtexec_line.py",
    Path("lab/command_lines.py"),
}


def is_release(node: ast.AST) -> bool:
    """``(10, 3)``, ``trt.__version__``, or what ``version(trt)`` returns."""
    if isinstance(node, ast.Tuple):
        return bool(node.elts) and all(isinstance(e, ast.Constant) and type(e.value) is int for e in node.elts)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "version"
    return isinstance(node, ast.Attribute) and node.attr == "__version__"


def guards(source: str, *, bindings: bool) -> Iterator[str]:
    """What *source* tells versions apart by. *bindings*: whether its objects are TensorRT's own, so that asking for
    a member is a guard as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and not isinstance(node.ops[0], (ast.In, ast.NotIn)):
            interpreter = isinstance(node.left, ast.Attribute) and node.left.attr == "version_info"
            if not interpreter and any(map(is_release, [node.left, *node.comparators])):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if bindings and asks_for_a_member(node):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def asks_for_a_member(node: ast.AST) -> TypeGuard[ast.expr]:
    """``hasattr(trt, "X")``, ``getattr(trt, "X", None)``, or ``"X" in members(trt.Enum)``."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("hasattr", "getattr") and isinstance(node.args[1], ast.Constant)
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant):
        return any(word in ast.unparse(side) for side in node.comparators for word in ("members(", "__members__"))
    return False


def test_every_guard_is_in_one_package():
    found, seen = [], 0
    for file in sorted(ROOT.rglob("*.py")):
        place = file.relative_to(ROOT)
        if place in LINES or place.is_relative_to(GUARDS):
            continue
        seen += 1
        source = file.read_text(encoding="utf-8")
        found += [f"{place}, {guard}" for guard in guards(source, bindings=place.is_relative_to(TENSORRT))]

    assert seen > 100
    assert not found, "\n".join(found)


def test_the_package_is_where_they_are():
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / GUARDS).glob("*.py")]

    assert sum(len(list(guards(source, bindings=True))) for source in sources) > 10


@pytest.mark.parametrize(
    "line",
    [
        "version(trt) < (10,)",
        "release >= (10, 3)",
        "trt.__version__ == '8.6.0'",
        "'8.6.0' == trt.__version__",
        "hasattr(trt, 'Builder')",
        "getattr(engine, 'create_engine_inspector', None)",
        "'INT64' in members(trt.DataType)",
        "'FP16' not in trt.BuilderFlag.__members__",
    ],
)
def test_a_guard_elsewhere_is_seen(line: str):
    assert list(guards(line, bindings=True))


@pytest.mark.parametrize(
    "line", ["sys.version_info >= (3, 11)", "name in members(trt.TacticSource)", "a < b", "shape.ndim in (1, 2)"]
)
def test_what_is_none_is_let_be(line: str):
    assert not list(guards(line, bindings=True))
