"""Values of inner tensors, a bounded group at a time: every observed tensor is an output of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytest_trt.backends.onnxruntime import GraphRunner
from pytest_trt.diagnosis.conversion import as_computed
from pytest_trt.diagnosis.deviation import squared_error
from pytest_trt.spec.precision.graph import BFLOAT16, FLOAT, FLOAT16, infer_types

if TYPE_CHECKING:
    import numpy as np

    from pytest_trt.backends import Feeds
    from pytest_trt.diagnosis.conversion import Candidate
    from pytest_trt.spec.model import Model

    Array = np.ndarray[Any, Any]

__all__ = ["GROUP", "by_suspicion", "deviations", "groups", "layer_errors", "observe", "values"]

GROUP = 64
_FLOATS = (FLOAT, FLOAT16, BFLOAT16)


def values(model: Model, names: Sequence[str], feeds: Sequence[Feeds]) -> list[dict[str, Array]]:
    """Return the tensors *names* of *model* in ONNX Runtime, one mapping for each of *feeds*; inputs among them too."""
    fed = {spec.name for spec in model.inputs}
    computed = [name for name in dict.fromkeys(names) if name not in fed]
    runner = GraphRunner(model, computed) if computed else None
    found = [{**dict(feed), **(runner.run(feed) if runner else {})} for feed in feeds]
    return [{name: row[name] for name in names} for row in found]


def observe(model: Model, takers: Mapping[str, Callable[[Array], object]], feeds: Sequence[Feeds]) -> None:
    """Give each tensor of *takers* to its function, sample by sample."""
    for names in groups(list(takers), GROUP):
        for row in values(model, names, feeds):
            for name in names:
                takers[name](row[name])


def groups(names: Sequence[str], size: int) -> Iterator[list[str]]:
    """Cut *names* into lists of at most *size*."""
    for start in range(0, len(names), size):
        yield list(names[start : start + size])


def deviations(typed: Model, untyped: Model, names: Sequence[str], feeds: Sequence[Feeds]) -> dict[str, float]:
    """Return the squared error of each of *names* in *typed*, in units of its energy in *untyped*. Names that one of
    both does not have are left out."""
    shared = [name for name in dict.fromkeys(names) if all(_has(model, name) for model in (typed, untyped))]
    found: dict[str, float] = {}
    for some in groups(shared, GROUP):
        actual, expected = values(typed, some, feeds), values(untyped, some, feeds)
        for name in some:
            pair = ([{name: row[name]} for row in rows] for rows in (actual, expected))
            left, right = pair
            found[name] = squared_error(left, right, right)
    return found


def layer_errors(typed: Model, untyped: Model, precision: str, feeds: Sequence[Feeds]) -> dict[str, float]:
    """Return the relative rms error of each floating-point tensor of *typed* against *untyped*, in graph order; as its
    *precision* computes it, in ONNX Runtime. Raises PrecisionError where that cannot be shown."""
    types = infer_types(untyped.proto)
    names = [name for node in untyped.proto.graph.node for name in node.output if types.get(name) in _FLOATS]
    errors = deviations(as_computed(typed, precision), untyped, names, feeds)
    return {name: math.sqrt(error) for name, error in errors.items()}


def _has(model: Model, name: str) -> bool:
    graph = model.proto.graph
    return any(name in node.output for node in graph.node) or any(spec.name == name for spec in model.inputs)


def by_suspicion(
    candidates: Sequence[Candidate], typed: Model, untyped: Model, feeds: Sequence[Feeds]
) -> list[Candidate]:
    """Return *candidates* by how much error each adds to what comes in, the most first; NaN and infinity before all.

    Only an order to search in: an error that later nodes amplify or wash out is not told by this.
    """
    names = [name for c in candidates for name in (*c.inputs, c.output)]
    errors = deviations(typed, untyped, names, feeds)

    def added(candidate: Candidate) -> float:
        before = max((errors.get(name, 0.0) for name in candidate.inputs), default=0.0)
        after = errors.get(candidate.output, 0.0)
        return 0.0 if math.isinf(before) else after - before

    return sorted(candidates, key=added, reverse=True)
