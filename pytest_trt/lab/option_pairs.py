"""Build options that exclude something outside of them: a precision, or another setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_trt.errors import UsageError
from pytest_trt.spec.precision import get_precision

if TYPE_CHECKING:
    from pytest_trt.backends import Backend, BuildOptions
    from pytest_trt.settings import Settings
    from pytest_trt.spec.case import Case

__all__ = ["check_pairs"]


def check_pairs(settings: Settings, backend: Backend, case: Case, options: BuildOptions) -> None:
    """Raise UsageError where *options*, those of *case*, cannot go together with its precision or with *settings*."""
    _check_calibrated(backend, case, options)
    _check_timings(settings, options)


def _check_calibrated(backend: Backend, case: Case, options: BuildOptions) -> None:
    """TensorRT's own calibration needs weak typing."""
    precision = get_precision(case.precision)
    asked = "--trt-weight-streaming=on" if options.weight_streaming else None
    asked = "--trt-typing=strong" if options.typing == "strong" else asked
    if precision.calibrator is None or asked is None or backend.support(precision).kind == "unsupported":
        return
    raise UsageError(
        f"{asked}: TensorRT {backend.probe().versions.get('tensorrt', '')} calibrates weakly typed networks only, and"
        f" {precision.name} is its own calibration",
        hint="leave it out, or test the precision int8, which is Q/DQ in the model",
    )


def _check_timings(settings: Settings, options: BuildOptions) -> None:
    """Where there is no timing cache, every layer would be missing in it."""
    if options.timing_cache_miss != "error":
        return
    without = (
        (settings.timing_cache == "off", "--trt-timing-cache=off"),
        (settings.cache == "off", "--trt-cache=off"),
        (settings.builds > 1, f"--trt-builds={settings.builds}"),
    )
    for given, option in without:
        if given:
            raise UsageError(
                f"--trt-timing-cache-miss=error: with {option} builds have no timing cache to miss anything in",
                hint="leave one of the two out",
            )
