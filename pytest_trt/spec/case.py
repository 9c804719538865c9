"""Case: one combination of model, precision, profile, tactics and backend."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """What is tested, by names only; ``Lab`` knows what the names mean. Hashable and cheap."""

    model: str
    precision: str
    profile: str
    backend: str
    tactics: tuple[str, ...] = ()

    @property
    def variant_id(self) -> str:
        """The case without its model: ``fp16-b8-tensorrt``, ``fp16-b8[-JIT_CONVOLUTIONS]-tensorrt``."""
        tactics = "".join(self.tactics)
        return f"{self.precision}-{_plain(self.profile)}{f'[{tactics}]' if tactics else ''}-{self.backend}"

    @property
    def id(self) -> str:
        """Stable and readable: ``digits-fp16-b8-tensorrt``. Baselines and reports are keyed by it."""
        return f"{_plain(self.model)}-{self.variant_id}"

    def to_json(self) -> dict[str, object]:
        return {
            "model": self.model,
            "precision": self.precision,
            "profile": self.profile,
            "backend": self.backend,
            "tactics": list(self.tactics),
        }

    def __str__(self) -> str:
        parts = [self.precision, self.profile, *(["".join(self.tactics)] if self.tactics else []), self.backend]
        return f"{self.model}[{', '.join(parts)}]"


def _plain(text: str) -> str:
    # Brackets and separators of pytest's node ids would make an id that cannot be selected with -k or ::.
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", text)
