"""How the text of an option becomes its value. Each function raises ValueError with what it wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_trt.errors import nearest

__all__ = [
    "choice",
    "graphs",
    "io_formats",
    "names",
    "number",
    "path",
    "path_of_file",
    "paths",
    "ratio",
    "shape_points",
    "signed",
    "size",
    "sizes",
    "switch",
    "tactic_sets",
]


def names(text: str) -> tuple[str, ...]:
    # A name that is given twice would make two cases with one id.
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise ValueError("a comma-separated list with at least one name is wanted")
    return found


def tactic_sets(text: str) -> tuple[tuple[str, ...], ...]:
    sets: list[tuple[str, ...]] = []
    for part in text.split(";"):
        part = part.strip()
        if part in ("", "default"):
            sets.append(())
            continue
        sources = tuple(name.strip() for name in part.split(","))
        for name in sources:
            if name[:1] not in "+-" or not name[1:].isidentifier():
                raise ValueError(f"{name!r} is not +SOURCE or -SOURCE (sets are split by ';', 'default' is a set)")
        sets.append(sources)
    return tuple(dict.fromkeys(sets))


_GRAPHS = ("as-is", "ort-basic", "ort-extended", "simplified")


def graphs(text: str) -> tuple[str, ...]:
    found = names(text)
    for name in found:
        kind, equals, opset = name.partition("=")
        if name not in _GRAPHS and not (kind == "opset" and equals and opset.isascii() and opset.isdigit()):
            raise ValueError(f"{name!r} is none of {', '.join(_GRAPHS)}, opset=N; {nearest(name, _GRAPHS)}")
    return found


def switch(text: str) -> bool:
    if text.lower() not in ("on", "off", "true", "false"):
        raise ValueError("on or off is wanted")
    return text.lower() in ("on", "true")


def signed(text: str) -> tuple[str, ...]:
    found = names(text)
    for name in found:
        if name[:1] not in ("+", "-") or not name[1:].isidentifier():
            raise ValueError(f"{name!r} is not +NAME or -NAME")
    return found


def path(text: str) -> Path:
    # An unset variable of a script: the working directory is not what it means.
    if not text.strip():
        raise ValueError("a path is wanted")
    return Path(text)


def path_of_file(text: str) -> Path:
    if not path(text).name:
        raise ValueError("the path of a file is wanted")
    return Path(text)


def paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(name) for name in names(text))


def sizes(text: str) -> tuple[tuple[str, int], ...]:
    pairs = dict(part.partition("=")[::2] for part in names(text))
    for name, limit in pairs.items():
        if not name.isidentifier() or not limit:
            raise ValueError("POOL=SIZE is wanted, e.g. TACTIC_DRAM=1GB")
    return tuple(sorted((name, size(limit)) for name, limit in pairs.items()))


def io_formats(text: str) -> tuple[str, ...]:
    """``x=CHW16,y=HALF:LINEAR``, normalised: TENSOR=[DTYPE:]LAYOUT, names in capitals."""
    found = {}
    for part in names(text):
        # A tensor's name may hold anything, also an equals sign: the last one counts.
        tensor, equals, wanted = part.rpartition("=")
        words = wanted.upper().split(":")
        if not equals or not tensor or not all(words) or len(words) > 2:
            raise ValueError(f"{part!r} is not TENSOR=LAYOUT or TENSOR=DTYPE:LAYOUT, e.g. x=HALF:CHW16")
        if tensor in found:
            raise ValueError(f"tensor {tensor!r} is given twice")
        found[tensor] = f"{tensor}={':'.join(words)}"
    return tuple(found.values())


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            close = nearest(text, allowed)
            raise ValueError(f"one of {', '.join(allowed)} is wanted{f'; {close}' if close.endswith('?') else ''}")
        return text

    return parse


def number(low: float, high: float = float("inf"), kind: type = float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise ValueError(f"a {'whole ' if kind is int else ''}number is wanted") from error
        if not low <= value <= high:
            wanted = f"of {low:g} or more" if high == float("inf") else f"from {low:g} to {high:g}"
            raise ValueError(f"a number {wanted} is wanted")
        return value

    return parse


def shape_points(text: str) -> str | int:
    """``opt``, ``corners``, ``all``, or a number of random points."""
    if text in ("opt", "corners", "all"):
        return text
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 10_000:
        return int(text)
    raise ValueError("one of opt, corners, all, or a number of random points from 1 to 10000 is wanted")


def ratio(text: str) -> float:
    """``5%`` or ``0.05``. A bare number from 1 on is refused: who writes 5 means 5 %, and 500 % would never be red."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 100:
        raise ValueError("a share such as 5% or 0.05 is wanted")
    if value >= 1 and not text.endswith("%"):
        raise ValueError(f"that is {value * 100:g} %; {value:g}% or {value / 100:g} is wanted")
    return value


def size(text: str) -> int:
    """``512MB``, ``20GB`` or plain bytes; decimal units."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    unit = next((u for u in units if text.upper().endswith(u)), "")
    try:
        size = int(float(text[: -len(unit)]) * units[unit]) if unit else int(text)
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        raise ValueError(f"a size such as 512MB, 20GB or a number of bytes is wanted; units are {', '.join(units)}")
    return size
