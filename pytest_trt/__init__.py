"""pytest for TensorRT engines: build once, compare with a reference, measure, gate.

The entry point imports this file in every pytest run of the environment, so it imports nothing:
public names are resolved on first use (PEP 562).
"""

TYPE_CHECKING = False  # type checkers take it for true by its name; typing would be an import
if TYPE_CHECKING:
    from pytest_trt.accuracy import compare as compare
    from pytest_trt.accuracy.comparison import Comparison as Comparison
    from pytest_trt.environment import Environment as Environment
    from pytest_trt.lab import Lab as Lab
    from pytest_trt.latency.gate import Verdict as Verdict
    from pytest_trt.record import Record as Record
    from pytest_trt.settings import Settings as Settings
    from pytest_trt.spec.case import Case as Case
    from pytest_trt.spec.model import Model as Model
    from pytest_trt.spec.shapes import Profile as Profile

__version__ = "0.1.0"

_PUBLIC = {
    "Case": "pytest_trt.spec.case",
    "Comparison": "pytest_trt.accuracy.comparison",
    "Environment": "pytest_trt.environment",
    "Lab": "pytest_trt.lab",
    "Model": "pytest_trt.spec.model",
    "Profile": "pytest_trt.spec.shapes",
    "Record": "pytest_trt.record",
    "Settings": "pytest_trt.settings",
    "Verdict": "pytest_trt.latency.gate",
    "compare": "pytest_trt.accuracy",
}

__all__ = ["__version__", *sorted(_PUBLIC)]  # noqa: PLE0604 - the table above is the list


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'pytest_trt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
