"""A model of which only the outside is at hand: what builds and reports ask first, without the graph behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.errors import StaleModelError
from pytest_trt.spec.model import Model, TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["RememberedModel", "outside"]


def outside(model: Model) -> dict[str, Any]:
    """What a RememberedModel knows of *model*, as JSON: fingerprint, inputs and outputs."""
    sides = {"inputs": model.inputs, "outputs": model.outputs}
    specs = {side: [[spec.name, spec.dtype, list(spec.shape)] for spec in found] for side, found in sides.items()}
    return {"fingerprint": model.fingerprint, **specs}


class RememberedModel(Model):
    """A model that *make* reads or makes when its graph is first asked for; *facts* are its ``outside``."""

    def __init__(
        self, name: str, facts: Mapping[str, Any], make: Callable[[], Model], path: Path | None = None
    ) -> None:
        sides = {
            side: tuple(TensorSpec(tensor, dtype, tuple(shape)) for tensor, dtype, shape in facts[side])
            for side in ("inputs", "outputs")
        }
        # Past the guard of a frozen dataclass, as a cached_property does it.
        vars(self).update(name=name, path=path, fingerprint=facts["fingerprint"], _make=make, **sides)

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The graph. Raises what making it raises, and StaleModelError when it is another one than was remembered:
        results may be filed under the old fingerprint already."""
        made: Model = vars(self)["_make"]()
        if made.fingerprint != self.fingerprint:
            raise StaleModelError(
                f"model {self.name!r} is another one ({made.fingerprint[:12]}) than it was when this run looked it up"
                f" ({self.fingerprint[:12]})",
                hint="it was changed meanwhile: run again",
            )
        return made.proto
