"""The commands that do something again with a case, for the texts of failures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_trt.option import flag_of
from pytest_trt.settings import Settings, as_words, options
from pytest_trt.spec.build_options import BuildOptions
from pytest_trt.spec.case import AS_IS, Case
from pytest_trt.spec.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from pytest_trt.lab.catalog import Catalog

__all__ = ["bisect_again", "compare_again", "measure_again"]


# One of these replaces all of them.
_ELEMENTWISE = frozenset(("rtol", "atol", "atol_scale", "floor"))


def compare_again(lab: Catalog, case: Case, tolerance: Mapping[str, Any] | None = None) -> str:
    """The command that compares *case*, within what a test's *tolerance* adds to the command line's."""
    judging = _judging(lab.settings, tolerance) + _gating(lab.settings)
    return f"pytest-trt compare {_arguments(lab, case, '--')}{judging}{_held(lab, '--')}"


def bisect_again(lab: Catalog, case: Case, tolerance: Mapping[str, Any] | None = None) -> str:
    """The command that searches the nodes or the tensor of *case*."""
    return f"pytest-trt bisect {_arguments(lab, case, '--')}{_judging(lab.settings, tolerance)}"


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
    return f"pytest {_arguments(lab, case, '--trt-')}{how}{_held(lab, '--trt-')} -k latency"


def _judging(settings: Settings, over: Mapping[str, Any] | None) -> str:
    """What the command line and a test said of how outputs are judged, and on how many samples."""
    text = _tolerance(settings.tolerance or "", over or {})
    tolerance = f" --tolerance={shlex.quote(text)}" if text else ""
    return tolerance + (f" --samples={settings.samples}" if settings.samples else "")


def _gating(settings: Settings) -> str:
    """What was said of the gates that only a comparison has."""
    given = {"alpha": settings.alpha, "power": settings.power}
    text = "".join(f" --{name}={value:g}" for name, value in given.items() if value is not None)
    return text + (f" --census={settings.census}" if settings.census != "fail" else "")


def _tolerance(text: str, over: Mapping[str, Any]) -> str:
    """The command line's *text* with *over* laid on top, in the words of ``--tolerance``."""
    general = {name: value for name, value in over.items() if name != "outputs"}
    named = {f"{out}:{name}": value for out, table in over.get("outputs", {}).items() for name, value in table.items()}
    replaced = {*general, *named}
    for key in list(replaced):
        output, colon, name = key.rpartition(":")
        if name in _ELEMENTWISE:
            replaced |= {output + colon + other for other in _ELEMENTWISE}
    keys = [(part.strip(), part.rpartition("=")[0].strip()) for part in text.split(",") if part]
    kept = [part for part, key in keys if not {key, key.rpartition(":")[2]} & replaced]
    return ",".join([*kept, *(f"{key}={_word(value)}" for key, value in {**general, **named}.items())])


def _word(value: Any) -> str:
    return "off" if value is None or value is False else str(value)


def _held(lab: Catalog, prefix: str) -> str:
    """Where the baselines lie that *lab* judges by, if that was said."""
    if lab.settings.baselines is None:
        return ""
    place = lab.settings.baselines.absolute()
    if place.is_relative_to(lab.root):
        place = place.relative_to(lab.root)
    return f" {prefix}baselines={shlex.quote(str(place))}"


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
