"""``reproduce.py``: one file that needs NumPy and the library that runs the model, and nothing of this package."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

__all__ = ["script"]

_HEAD = '''\
"""{title}

    python reproduce.py [MODEL]

Exit code 1 where the failure shows, 0 where it does not, 2 where the model cannot be run here.
Needs {needs}. Written by pytest-trt {version}; what the case is stands in case.json.
"""

from __future__ import annotations

'''
_NUMPY = """

try:
    import numpy as np
except ImportError as error:
    sys.stdout.write(f"cannot run here: {error}; install numpy\\n")
    raise SystemExit(2) from error


"""
_TAIL = """

if __name__ == "__main__":
    try:
        code = main(Path(__file__).resolve().parent, RUNNERS, sys.argv[1:])
    except Exception:  # a bug in this file or in what it calls: Python itself would end with 1, which is the failure's
        traceback.print_exc()
        code = CANNOT_RUN
    raise SystemExit(code)
"""


def script(title: str, tool: str, version: str) -> str:
    """The source of the script for a case that *tool* runs: ``onnxruntime``, ``tensorrt``, or none that it knows."""
    from pytest_trt.backends import cannot_run
    from pytest_trt.backends.onnxruntime import standalone as onnxruntime
    from pytest_trt.backends.tensorrt.versions import standalone as tensorrt
    from pytest_trt.diagnosis.bundle import verdict

    runners = {"onnxruntime": onnxruntime, "tensorrt": tensorrt}
    modules: list[ModuleType] = [cannot_run, verdict, *([runners[tool]] if tool in runners else [])]
    parts = [_parts(inspect.getsource(module)) for module in modules]
    found = ["import traceback", *(line for lines, _ in parts for line in lines)]
    imports = _merged([line for line in found if "numpy" not in line and "pytest_trt" not in line])
    needs = f"numpy and {tool}" if tool in runners else "numpy"
    head = _HEAD.format(title=title.replace("\\", "/").replace('"', "'"), needs=needs, version=version)
    table = f'\n\nRUNNERS = {{"{tool}": run_{tool}}}\n' if tool in runners else "\n\nRUNNERS = {}\n"
    body = "\n\n\n".join(text for _, text in parts)
    return head + "\n".join(imports) + _NUMPY + body + table + _TAIL


def _merged(lines: list[str]) -> list[str]:
    """Each module once, plain imports before those of names."""
    names: dict[str, set[str]] = {}
    for line in lines:
        head, _, tail = line.partition(" import ")
        names.setdefault(head, set()).update(tail.split(", ") if tail else ())
    plain = sorted(head for head, found in names.items() if not found)
    return plain + sorted(f"{head} import {', '.join(sorted(found))}" for head, found in names.items() if found)


def _parts(source: str) -> tuple[list[str], str]:
    """The lines that import, and what follows them and ``__all__``."""
    imports, end = [], 0
    for node in ast.parse(source).body:
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            text = ast.unparse(node)
            imports += [text] if "__future__" not in text else []
        elif not (is_all or is_text):
            break
        end = node.end_lineno or end
    return imports, "\n".join(source.splitlines()[end:]).strip()
