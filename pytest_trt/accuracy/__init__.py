"""Is it right? Outputs of an engine against their reference. Pure: arrays and numbers in, values and words out."""

from pytest_trt.accuracy.comparison import Comparison, OutputComparison, compare
from pytest_trt.accuracy.measurement import measure
from pytest_trt.accuracy.metrics import Extreme, Metrics
from pytest_trt.accuracy.problems import Problem
from pytest_trt.accuracy.ranking import Ranking, rank
from pytest_trt.accuracy.tolerance import (
    DEFAULTS,
    Overrides,
    Tolerance,
    ToleranceSet,
    default_tolerance,
    parse_tolerance,
)

__all__ = [
    "DEFAULTS",
    "Comparison",
    "Extreme",
    "Metrics",
    "OutputComparison",
    "Overrides",
    "Problem",
    "Ranking",
    "Tolerance",
    "ToleranceSet",
    "compare",
    "default_tolerance",
    "measure",
    "parse_tolerance",
    "rank",
]
