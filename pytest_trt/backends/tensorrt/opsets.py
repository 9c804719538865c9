"""Models of a newer ONNX opset than the parser is documented to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_trt.backends.tensorrt.versions import newest_opset, version

if TYPE_CHECKING:
    from pytest_trt.spec.model import Model

__all__ = ["opset_remark", "opset_remark_for"]


def opset_remark(trt: Any, model: Model) -> str | None:
    """What to know of a model whose opset is newer than the parser's; None for any other.

    Such a model can be parsed all the same, and wrongly: TensorRT 8.6.0 leaves out the ``axes`` that ReduceSum and the
    like take as an input since opset 18, and reduces over all of them.
    """
    return opset_remark_for(version(trt), str(trt.__version__), model)


def opset_remark_for(release: tuple[int, ...], title: str, model: Model) -> str | None:
    """The remark for a TensorRT *release* that is not at hand; *title* is how it is called."""
    newest = newest_opset(release)
    opset = max((entry.version for entry in model.proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if not model.has_graph or newest is None or opset <= newest:
        return None
    return (
        f"the model uses opset {opset}; TensorRT {title} reads up to opset {newest}, and may leave out what"
        f" is newer without a word: export with that one, or --trt-graph=opset={newest}"
    )
