"""The first tensor of an engine that diverges, by looking at inner tensors: a few outputs more at a time.

A marked tensor can change the engine: what is an output cannot be fused away. So the original outputs of every such
engine are looked at again. Where they are right all at once, the fault vanished, and its other tensors say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pytest_trt.accuracy.metrics import plain
from pytest_trt.diagnosis.bisect import never
from pytest_trt.spec.precision.graph import BFLOAT16, FLOAT, FLOAT16, infer_types, node_label

if TYPE_CHECKING:
    import onnx

    from pytest_trt.diagnosis.deviation import Results
    from pytest_trt.diagnosis.tapping import Look
    from pytest_trt.spec.model import Model

# Tensors and the outputs that hold them -> for each tensor its relative rms error, and whether that is too much.
Deviations = Callable[[list[str], "Results"], Mapping[str, tuple[float, bool]]]

__all__ = ["Divergence", "Tap", "first_divergence"]


@dataclass(frozen=True)
class Tap:
    """What one tensor of the engine was like: ``error`` is its relative rms error against the typed model."""

    tensor: str
    error: float
    diverges: bool


@dataclass(frozen=True)
class Divergence:
    """Where an engine leaves its typed model.

    ``found``: ``tensor`` diverges and nothing that ``node`` reads does; tensors of ``hiding`` lie before it, in the
    same kernels, and could not be looked at. ``vanished``: no engine with a tensor marked had the fault.
    ``unfinished``: a limit was reached, ``tensor`` is the first one seen so far. ``none``: the outputs themselves do
    not diverge. ``before`` is the largest error of what ``node`` reads: near the tensor's own, no single node makes
    the error. ``missing`` are tensors that the engine does not have. ``between``: an
    engine whose runs differ is searched for the first tensor that is not the same in all of them.
    """

    outcome: Literal["found", "vanished", "unfinished", "none"]
    tensor: str
    node: str
    op_type: str
    taps: tuple[Tap, ...]
    hiding: tuple[str, ...]
    builds: int
    before: float = 0.0
    missing: tuple[str, ...] = ()
    between: Literal["engine and model", "runs"] = "engine and model"

    @property
    def error(self) -> float:
        """The relative rms error of ``tensor``."""
        return next((tap.error for tap in self.taps if tap.tensor == self.tensor), 0.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "tensor": self.tensor,
            "node": self.node,
            "operator": self.op_type,
            "hiding": list(self.hiding),
            "missing": list(self.missing),
            "between": self.between,
            "builds": self.builds,
            "error": plain(self.error),
            "before": plain(self.before),
            "taps": {tap.tensor: {"error": plain(tap.error), "diverges": tap.diverges} for tap in self.taps},
        }


def first_divergence(
    model: Model,
    outputs: Results,
    look: Look,
    deviations: Deviations,
    fails: Callable[[Results], bool],
    *,
    group: int = 8,
    limit: int = 40,
    late: Callable[[], bool] = never,
) -> Divergence:
    """Search the engine of *model*, a typed model, for the first tensor that diverges.

    *outputs* are those of its engine; *look* builds an engine that shows some tensors beside them. *deviations* says
    how far tensors are from the typed model's, and whether that is too far; *fails* whether the original outputs still
    show the fault. At most *group* tensors are marked at a time, in *limit* builds or fewer, none of which begins once
    it is *late*.
    """
    return _Walk(model, look, deviations, fails, group, limit, late).go(outputs)


class _Walk:
    """From an output that is wrong towards the inputs, always among the ancestors of the earliest wrong tensor."""

    def __init__(
        self,
        model: Model,
        look: Look,
        deviations: Deviations,
        fails: Callable[[Results], bool],
        group: int,
        limit: int,
        late: Callable[[], bool],
    ) -> None:
        self.model, self.look, self.deviations, self.fails = model, look, deviations, fails
        self.group, self.limit, self.late, self.builds = group, limit, late, 0
        self.nodes = list(model.proto.graph.node)
        self.makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        types = infer_types(model.proto)
        self.outputs = [spec.name for spec in model.outputs]
        self.seen: dict[str, Tap] = {}
        self.hiding: dict[str, None] = {}
        self.missing: dict[str, None] = {}
        self.tappable = {n for n in self.makers if types.get(n) in (FLOAT, FLOAT16, BFLOAT16)} - set(self.outputs)
        # What comes from constants alone is not computed by the engine.
        self.tappable &= self._fed()

    def _fed(self) -> set[str]:
        """The tensors that depend on the inputs of the model."""
        fed = {spec.name for spec in self.model.inputs}
        for node in self.nodes:
            if not fed.isdisjoint(_reads(node)):
                fed.update(name for name in node.output if name)
        return fed

    def go(self, outputs: Results) -> Divergence:
        self._look(self.outputs, outputs)
        wrong = [tap.tensor for tap in self.seen.values() if tap.diverges]
        if not wrong or not self.fails(outputs):
            return self._result("none", "")
        first = self._earliest(wrong)
        while (ahead := self._unseen(first)) and self._may_build():
            self._tap(self._spread(ahead))
            first = self._earliest(tap.tensor for tap in self.seen.values() if tap.diverges)
        if self._unseen(first):
            return self._result("unfinished", first)
        observed = [tap for tap in self.seen if tap not in self.outputs]
        return self._result("vanished" if self.hiding and not observed else "found", first)

    def _spread(self, ahead: list[str]) -> list[str]:
        """At most a group of *ahead*, so that they cut it into parts of equal length."""
        if len(ahead) <= self.group:
            return ahead
        return [ahead[(number + 1) * len(ahead) // (self.group + 1)] for number in range(self.group)]

    def _tap(self, tensors: list[str]) -> None:
        """Look at *tensors*; where that makes the fault vanish, at half of them at a time, and at single ones."""
        self.builds += 1
        rows = self.look(tensors)
        self.missing.update(dict.fromkeys(name for name in tensors if any(name not in row for row in rows)))
        tensors = [name for name in tensors if name not in self.missing]
        if self.fails([{name: row[name] for name in self.outputs} for row in rows]):
            self._look(tensors, [{name: row[name] for name in tensors} for row in rows])
        elif len(tensors) == 1:
            self.hiding[tensors[0]] = None
        elif tensors:
            middle = len(tensors) // 2
            for half in (tensors[:middle], tensors[middle:]):
                if self._may_build():
                    self._tap(half)

    def _may_build(self) -> bool:
        return self.builds < self.limit and not self.late()

    def _look(self, tensors: list[str], rows: Results) -> None:
        found = self.deviations(tensors, rows) if tensors else {}
        self.seen.update({tensor: Tap(tensor, *found[tensor]) for tensor in tensors})

    def _earliest(self, tensors: Iterable[str]) -> str:
        return min(tensors, key=lambda name: self.makers.get(name, -1))

    def _unseen(self, tensor: str) -> list[str]:
        """Ancestors of *tensor* that nobody has looked at, in graph order. Those behind a tensor that is right do not
        count: the error came another way."""
        found: dict[str, int] = {}
        walk, walked = [tensor], {tensor}
        while walk:
            index = self.makers.get(walk.pop())
            for name in () if index is None else _reads(self.nodes[index]):
                if name in walked or name not in self.makers:
                    continue
                walked.add(name)
                if name in self.seen:
                    continue
                if name in self.tappable and name not in self.hiding and name not in self.missing:
                    found[name] = self.makers[name]
                walk.append(name)
        return sorted(found, key=lambda name: found[name])

    def _result(self, outcome: Literal["found", "vanished", "unfinished", "none"], tensor: str) -> Divergence:
        node = self.nodes[self.makers[tensor]] if tensor in self.makers else None
        return Divergence(
            outcome,
            tensor,
            node_label(node) if node is not None else "",
            str(node.op_type) if node is not None else "",
            tuple(sorted(self.seen.values(), key=lambda tap: self.makers.get(tap.tensor, -1))),
            tuple(self.hiding),
            self.builds,
            self._before(tensor),
            tuple(self.missing),
        )

    def _before(self, tensor: str) -> float:
        """The largest error of the tensors next before *tensor* that were looked at."""
        worst, walk, walked = 0.0, [tensor], {tensor}
        while walk:
            index = self.makers.get(walk.pop())
            for name in () if index is None else _reads(self.nodes[index]):
                if name in self.seen:
                    worst = max(worst, self.seen[name].error)
                elif name not in walked:
                    walked.add(name)
                    walk.append(name)
        return worst


def _reads(node: onnx.NodeProto) -> list[str]:
    from pytest_trt.spec.precision.graph import captured_names

    return [name for name in (*node.input, *sorted(captured_names(node))) if name]
