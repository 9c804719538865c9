"""The comparing half of ``reproduce.py``. Its source is copied there: it knows NumPy and ``case.json``."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_trt.backends.cannot_run import CannotRun

__all__ = ["main", "problems_of"]

FAILS, CLOSE, CANNOT_RUN = 1, 0, 2
Pairs = Sequence["tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]"]


def main(folder: Path, runners: Mapping[str, Callable[..., Any]], arguments: Sequence[str]) -> int:
    """Run the model of the bundle in *folder* (or the one that *arguments* name) and compare it with what is expected.

    *runners* are by tool: ``run(model path, how, feeds of each sample) -> outputs of each sample``. Returns 1 where the
    failure shows, 0 where it does not, 2 where the model cannot be run here, or a file is missing or damaged.
    """
    try:
        case = described(folder / "case.json")
        how = case["run"]
        if how["tool"] not in runners:
            say(f"{how['tool']}: {how['why']}")
            return CANNOT_RUN
        model = Path(arguments[0]) if arguments else folder / how["model"]
        if arguments and not model.is_file():
            return cannot(f"there is no file {model}", "give the path of an ONNX file, or nothing")
        if not model.is_file():
            raise Unusable(f"there is no file {model}")
        for name in changed(folder, case, [] if arguments else [how["model"]]):
            say(f"{name} is not as it was written: what follows is about this file")
        feeds, expected = (read(folder / name, case["samples"]) for name in ("inputs.npz", "expected.npz"))
        how = timings_found(how, folder)
    except Unusable as error:
        return cannot(str(error), "a bundle is used as a whole folder, as it was written")
    samples = f"{case['samples']} sample{'' if case['samples'] == 1 else 's'}"
    say(f"{case['title']}: {model.name} with {how['tool']}, {samples}")
    try:
        actual = runners[how["tool"]](model, how, feeds)
    except ImportError as error:
        return cannot(str(error), f"install {library(case, how['tool'])}")
    except CannotRun as error:
        if arguments:
            given = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in feeds[0].items())
            return cannot(str(error), f"give a model that takes {given}")
        return cannot(str(error), f"the bundle was written with {library(case, how['tool'])}")
    problems = problems_of(actual, expected, case["tolerance"], case["allow_nonfinite"])
    for line in problems:
        say(f"not close: {line}")
    say("the failure shows" if problems else "close: the failure does not show")
    return FAILS if problems else CLOSE


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def cannot(why: str, advice: str) -> int:
    say(f"cannot run here: {why}; {advice}")
    return CANNOT_RUN


def library(case: Mapping[str, Any], tool: str) -> str:
    """What ran the case, such as ``onnxruntime-gpu 1.20.1``; without a version where none is known."""
    versions = case.get("versions", {})
    return next((f"{name} {versions[name]}" for name in (tool, f"{tool}-gpu") if versions.get(name)), tool)


def timings_found(how: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """*how* with the whole path of the timing cache: the model that is run may lie elsewhere. Raises Unusable."""
    name = how.get("timing_cache")
    if name and not (folder / name).is_file():
        raise Unusable(f"there is no file {folder / name}")
    return {**how, "timing_cache": str(folder / name)} if name else dict(how)


class Unusable(Exception):  # noqa: N818 - said, and never seen by a caller
    """A file of the bundle is missing or damaged."""


def described(path: Path) -> dict[str, Any]:
    """What ``case.json`` says. Raises Unusable."""
    try:
        case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        needed = {name: case[name] for name in ("title", "run", "samples", "tolerance", "allow_nonfinite")}
        missing = [] if "why" in needed["run"] else {"tool", "model"}.difference(needed["run"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unusable(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error
    if missing:
        raise Unusable(f"{path.name} does not say how to run the model")
    return case


def changed(folder: Path, case: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """The files that are read and that have another content than the one that was written."""
    written = case.get("digests", {})
    names = [n for n in ("inputs.npz", "expected.npz", *models) if n in written and (folder / n).is_file()]
    return [n for n in names if hashlib.sha256((folder / n).read_bytes()).hexdigest() != written[n]]


def read(path: Path, samples: int) -> list[dict[str, Any]]:
    """One mapping of name to array for each sample; of several samples the first axis counts them. Raises Unusable."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if samples == 1:
            return [arrays]
        return [{name: array[i, ...] for name, array in arrays.items()} for i in range(samples)]
    except (OSError, ValueError, EOFError, IndexError, AttributeError, zipfile.BadZipFile) as error:
        raise Unusable(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error


def problems_of(
    actual: Sequence[Mapping[str, Any]],
    expected: Sequence[Mapping[str, Any]],
    tolerance: Mapping[str, Mapping[str, Any]],
    allow_nonfinite: bool,
) -> list[str]:
    """What is wrong, a sentence each; all samples of an output are judged together."""
    found: list[str] = []
    for name in expected[0]:
        pairs = [(np.asarray(a[name]), np.asarray(e[name])) for a, e in zip(actual, expected, strict=True) if name in a]
        if len(pairs) < len(expected):
            found.append(f"{name}: the engine gave no such output")
            continue
        shapes = next(((a.shape, e.shape) for a, e in pairs if a.shape != e.shape), None)
        if shapes:
            found.append(f"{name}: shape {shapes[0]}, expected {shapes[1]}")
            continue
        limit = tolerance.get(name, tolerance[""])
        exact = [[x.dtype.kind in "iub" for x in pair] for pair in pairs]
        if any(left != right for left, right in exact):
            found.append(f"{name}: integers on one side, floating-point numbers on the other")
            continue
        judge = judge_exact if all(left for left, _ in exact) else judge_floats
        found += [f"{name}: {text}" for text in judge(pairs, limit, allow_nonfinite)]
        found += [f"{name}: {text}" for text in judge_classes(pairs, limit)]
    return found


def judge_exact(pairs: Pairs, limit: Mapping[str, Any], _allow_nonfinite: bool) -> Iterator[str]:
    count = sum(e.size for _, e in pairs)
    wrong = sum(int(np.count_nonzero(a != e)) for a, e in pairs)
    if wrong and wrong > limit["max_mismatched"] * count:
        yield f"{wrong} of {count} elements differ"


def judge_floats(pairs: Pairs, limit: Mapping[str, Any], allow_nonfinite: bool) -> Iterator[str]:
    """An element is close when |actual - expected| <= atol + atol_scale * rms(expected) + rtol * |expected|."""
    count = finite = wrong = strange = bad_expected = 0
    noise = signal = energy = product = worst = 0.0
    for a, e in pairs:
        a, e = a.astype(np.float64), e.astype(np.float64)
        both = np.isfinite(a) & np.isfinite(e)
        strange += int(np.count_nonzero(~both & ~((a == e) | (np.isnan(a) & np.isnan(e)))))
        bad_expected += int(np.count_nonzero(~np.isfinite(e)))
        known = e[np.isfinite(e)]
        scale = math.sqrt(float(np.mean(known**2))) if known.size else 0.0
        count, finite = count + e.size, finite + int(np.count_nonzero(both))
        a, e = a[both], e[both]
        difference = np.abs(a - e)
        if limit["rtol"] is not None:
            allowed = limit["atol"] + limit["atol_scale"] * scale + limit["rtol"] * np.abs(e)
            wrong += int(np.count_nonzero(difference > allowed))
        worst = max(worst, float(difference.max()) if difference.size else 0.0)
        noise += float(difference @ difference)
        signal += float(e @ e)
        energy += float(a @ a)
        product += float(a @ e)
    if bad_expected and not allow_nonfinite:
        yield f"NaN or infinity is expected at {bad_expected} of {count} elements"
    if strange:
        yield f"NaN or infinity on one side only, or differently, at {strange} of {count} elements"
    if wrong and wrong > limit["max_mismatched"] * count:
        yield f"{wrong} of {count} elements are beyond rtol {limit['rtol']:g}; the greatest difference is {worst:.4g}"
    if not finite:
        return
    cosine = 1.0 if noise == 0 else 0.0
    if signal and energy:
        cosine = max(-1.0, min(1.0, product / (math.sqrt(signal) * math.sqrt(energy))))
    if limit["cosine"] is not None and not cosine >= limit["cosine"]:
        yield f"cosine {cosine:.9g}, at least {limit['cosine']} is required"
    decibels = math.inf if noise == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / noise)
    if limit["snr_db"] is not None and not decibels >= limit["snr_db"]:
        yield f"signal-to-noise ratio {decibels:.3g} dB, at least {limit['snr_db']:g} is required"


def judge_classes(pairs: Pairs, limit: Mapping[str, Any]) -> Iterator[str]:
    """Rows run along the last axis; among equal values the first one ranks first."""
    if limit["top1"] is None and limit["topk"] is None:
        return
    rows = first = among = 0
    for a, e in pairs:
        if not e.size:
            continue
        if not e.ndim or e.shape[-1] < 2 or (limit["topk"] is not None and limit["k"] >= e.shape[-1]):
            yield f"shape {e.shape} has no such classes"
            return
        a, e = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (a, e))
        best = e.argmax(axis=-1)
        value = a[np.arange(len(a)), best][:, None]
        ahead = (a > value) | ((a == value) & (np.arange(a.shape[-1]) < best[:, None]))
        rows += len(a)
        first += int(np.count_nonzero(a.argmax(axis=-1) == best))
        among += int(np.count_nonzero((np.count_nonzero(ahead, axis=-1) < limit["k"]) & ~np.isnan(value[:, 0])))
    for name, agreeing in (("top1", first), ("topk", among)):
        if rows and limit[name] is not None and agreeing / rows < limit[name]:
            yield f"{name} agreement {agreeing / rows:.4g}, at least {limit[name]:g} is required"
