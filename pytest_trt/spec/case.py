"""Case: one combination of model, precision, profile, tactics and backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

__all__ = ["AS_IS", "NO_AXES", "Axes", "Case", "plain"]

# The graph of the model, not optimized by anything before the backend gets it.
AS_IS = "as-is"

# Build options whose values are paths.
_PATHS = ("lean_runtime", "plugins")


@dataclass(frozen=True)
class Axes:
    """What a marker says of the matrix; None leaves an axis to the command line and the manifest."""

    precisions: tuple[str, ...] | None = None
    profiles: tuple[str, ...] | None = None
    backends: tuple[str, ...] | None = None
    graphs: tuple[str, ...] | None = None
    tactics: tuple[tuple[str, ...], ...] | None = None
    options: tuple[tuple[str, str], ...] = ()  # build options, as text


NO_AXES = Axes()


@dataclass(frozen=True)
class Case:
    """What is tested, by names only; ``Lab`` knows what the names mean. Hashable and cheap."""

    model: str
    precision: str
    profile: str
    backend: str
    tactics: tuple[str, ...] = ()
    graph: str = AS_IS
    options: tuple[tuple[str, str], ...] = ()  # build options of a marker, as text, sorted by name

    @property
    def variant_id(self) -> str:
        """The case without its model: ``fp16-b8-tensorrt``, ``fp16-b8[-JIT_CONVOLUTIONS]-tensorrt``."""
        special = "".join(f"[{part}]" for part in self._special)
        return f"{self.precision}-{plain(self.profile)}{special}-{self.backend}"

    @property
    def _special(self) -> list[str]:
        """What a case has beyond the common axes."""
        options = ",".join(f"{name}={plain(_shown(name, value))}" for name, value in self.options)
        graph = "" if self.graph == AS_IS else plain(self.graph)
        return [part for part in ("".join(self.tactics), graph, options) if part]

    @property
    def id(self) -> str:
        """Stable and readable: ``digits-fp16-b8-tensorrt``. Baselines and reports are keyed by it."""
        return f"{plain(self.model)}-{self.variant_id}"

    def to_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "precision": self.precision,
            "profile": self.profile,
            "backend": self.backend,
            "tactics": list(self.tactics),
            "graph": self.graph,
            "options": [list(pair) for pair in self.options],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """The case of ``to_json``; records of before some axis existed have its default."""
        values = {**data, "tactics": tuple(data["tactics"])}
        values["options"] = tuple((name, value) for name, value in data.get("options", ()))
        return cls(**values)

    def __str__(self) -> str:
        parts = [self.precision, self.profile, *self._special, self.backend]
        return f"{self.model}[{', '.join(parts)}]"


def _shown(option: str, value: str) -> str:
    # Where a library lies differs from machine to machine, and its content is in the key.
    return ",".join(PurePath(path).name for path in value.split(",")) if option in _PATHS else value


def plain(text: str) -> str:
    """*text* as it stands in an id: letters and digits of any script, and ``_.=-``."""
    # Brackets and separators of pytest's node ids would make an id that cannot be selected with -k or ::.
    return re.sub(r"[^\w.=-]+", "_", text)
