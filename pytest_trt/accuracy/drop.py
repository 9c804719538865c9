"""The verdict on a drop of scores: its outcome, its figures and its sentence. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Drop", "Outcome"]

Outcome = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Drop:
    """What two sets of scores say about getting worse.

    ``drop`` is how much worse the mean became, in units of the score; negative where it became better. ``p`` is the
    probability of so great a drop, or a greater one, where nothing changed. ``upper`` is the greatest drop that the
    samples do not exclude, with the confidence ``power``. ``detectable`` is the smallest drop that as many samples turn
    significant at ``alpha`` with the probability ``power``; None where no drop is. ``max_drop`` is what was asked for.

    pass: a drop of ``max_drop`` is excluded. fail: the drop is significant, and so large a one is not excluded.
    inconclusive: neither; there are too few samples.
    """

    outcome: Outcome
    old_mean: float
    new_mean: float
    old_count: int
    count: int
    drop: float
    p: float
    upper: float
    detectable: float | None
    max_drop: float
    alpha: float
    power: float
    paired: bool
    method: str

    @property
    def sentence(self) -> str:
        """What was found, what it means, and what could have been found."""
        moved = f"worse by {self.drop:.4g}" if self.drop > 0 else "no worse" if self.drop == 0 else "better"
        said = {
            "pass": f"a drop of {self.max_drop:.4g} is excluded",
            "fail": f"a real drop, and one of {self.max_drop:.4g} is not excluded",
            "inconclusive": f"too few samples to exclude a drop of {self.max_drop:.4g}",
        }[self.outcome]
        return f"{self.new_mean:.4g} after {self.old_mean:.4g}, {moved} (p = {self.p:.2g}): {said}; {self.design}"

    @property
    def design(self) -> str:
        """The test: samples, method, α, power and the smallest drop that it detects."""
        samples = f"the same {self.count} samples"
        if not self.paired:
            samples = f"{self.count} samples, not paired with the {self.old_count} before"
        seen = "no drop is detectable" if self.detectable is None else f"smallest detectable drop {self.detectable:.3g}"
        return f"{samples}, {self.method}, α = {self.alpha:g}, power = {self.power:g}, {seen}"

    def to_json(self) -> dict[str, Any]:
        figures = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**figures, "sentence": self.sentence}
