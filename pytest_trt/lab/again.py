"""The commands that do something again with a case, for the texts of failures."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from pytest_trt.option import flag_of
from pytest_trt.settings import Settings, as_words, options
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.case import AS_IS, Case
from pytest_trt.spec.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from pytest_trt.lab.catalog import Catalog

__all__ = ["bisect_again", "compare_again", "measure_again"]


def compare_again(lab: Catalog, case: Case) -> str:
    """The command that compares *case*."""
    return f"pytest-trt compare {_arguments(lab, case, '--')}{_judging(lab.settings)}"


def bisect_again(lab: Catalog, case: Case) -> str:
    """The command that searches the nodes or the tensor of *case*."""
    return f"pytest-trt bisect {_arguments(lab, case, '--')}{_judging(lab.settings)}"


def measure_again(lab: Catalog, case: Case) -> str:
    """The command that measures *case*."""
    settings = lab.settings
    how = f" --trt-latency-mode={settings.latency_mode}" if settings.latency_mode != "graph" else ""
    how += " --trt-l2-flush=on" if settings.l2_flush else ""
    engine = settings.baseline_engine
    how += f" --trt-baseline-engine={shlex.quote(str(engine))}" if engine else ""
    how += f" --trt-streams={settings.streams}" if settings.latency_mode == "throughput" else ""
    how += " --trt-ab=off" if settings.ab == "off" else ""
    how += f" --trt-threshold={settings.threshold * 100:.6g}%" if settings.threshold is not None else ""
    return f"pytest {_arguments(lab, case, '--trt-')}{how} -k latency"


def _judging(settings: Settings) -> str:
    """What the command line said of how outputs are judged, and on how many samples."""
    tolerance = f" --tolerance={shlex.quote(settings.tolerance)}" if settings.tolerance else ""
    return tolerance + (f" --samples={settings.samples}" if settings.samples else "")


def _arguments(lab: Catalog, case: Case, prefix: str) -> str:
    manifest, settings = lab.manifest(case), lab.settings
    place = manifest.folder if manifest.file.name == MANIFEST_NAME else manifest.file
    if place.is_relative_to(lab.root):
        place = place.relative_to(lab.root)
    given = {"precision": case.precision, "profile": case.profile, "backend": case.backend}
    # The manifest's sets are what a command line without any means.
    given["tactics"] = ",".join(case.tactics) or ("default" if manifest.tactics and case.backend == "tensorrt" else "")
    given["graph"] = "" if case.graph == AS_IS else case.graph
    asked = {**_build_words(settings), **dict(case.options)}
    given |= {flag_of(name, ""): text for name, text in asked.items()}
    given["variant"] = (manifest.variant or "") if settings.variant else ""
    given["shapes"] = "" if settings.shapes == "corners" else str(settings.shapes)
    given["seed"] = str(settings.seed or "")
    given["fake"] = settings.fake or ""
    if settings.engine and case.backend == "tensorrt":
        given |= {"engine": str(settings.engine), "trust": settings.trust or ""}
    words = [str(place), *(f"{prefix}{name}={value}" for name, value in given.items() if value)]
    return " ".join(shlex.quote(word) for word in words)


def _build_words(settings: Settings) -> dict[str, str]:
    """The build options of the command line, in its own words."""
    wanted = [o for o in options() if o.name in BuildOptions.names() and o.name != "tactics"]
    given = {o.name: getattr(settings, o.name) for o in wanted if getattr(settings, o.name) != o.default}
    return {name: as_words(value) for name, value in given.items()}
