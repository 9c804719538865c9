"""Keys: everything that an artifact depends on, written down and digested.

A digest alone says *that* two builds differ. The ingredients lie beside each entry, so that ``explain``
can say *where*.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_trt.errors import ArtifactError, nearest

__all__ = ["ABSENT", "KEY_SCHEMA", "KINDS", "Absent", "Difference", "Key", "canonical", "explain", "leaves"]

# Raise it whenever the meaning of an ingredient or the digest itself changes: no older entry is found after that.
KEY_SCHEMA: Final = 1
KINDS: Final = ("calibration", "engine", "fact", "model", "reference", "timing-cache")
# Ingredients are flat in practice; a value this deep contains itself.
MAX_DEPTH: Final = 50


@dataclass(frozen=True)
class Key:
    """The identity of one artifact. Made by ``Key.make`` only.

    ``digest`` is a SHA-256 in 64 hexadecimal digits. ``ingredients`` are plain JSON values (tuples have become
    lists); two keys are equal when their digests are.
    """

    kind: str
    digest: str
    ingredients: Mapping[str, Any] = field(compare=False, repr=False)

    @classmethod
    def make(cls, kind: str, ingredients: Mapping[str, Any]) -> Key:
        """Digest *ingredients*, in whatever order they come.

        Values are None, bool, int, float, str, and lists, tuples and string-keyed mappings of these. Raises
        ArtifactError for an unknown kind and for any other value: something that cannot be written down cannot
        be told apart, and leaving it out would let two different builds share one entry. Subclasses (enum
        members, NumPy scalars) are refused as well, since their JSON form drops what they are.
        """
        if kind not in KINDS:
            raise ArtifactError(f"unknown kind of artifact {kind!r}", hint=nearest(kind, KINDS))
        plain = _plain_mapping(ingredients, "", 0)
        digest = hashlib.sha256()
        _record(digest, "key-schema", canonical(KEY_SCHEMA))
        _record(digest, "kind", canonical(kind))
        for label in sorted(plain):
            _record(digest, label, canonical(plain[label]))
        return cls(kind, digest.hexdigest(), plain)

    @property
    def short(self) -> str:
        """The first 12 digits: enough to name an entry in a message."""
        return self.digest[:12]

    def __str__(self) -> str:
        return f"{self.kind} {self.short}"


def canonical(value: Any) -> str:
    """The one JSON text of *value*; ``1``, ``1.0``, ``"1"`` and ``true`` stay four different texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _record(digest: hashlib._Hash, label: str, payload: str) -> None:
    # With both lengths in front, no label can run into its payload and no record into the next.
    for text in (label, payload):
        data = text.encode("utf-8")
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise _refused(where, f"it is nested deeper than {MAX_DEPTH} levels", "does it contain itself?")
    if value is None or type(value) is bool:
        return value
    if type(value) is int:
        if value.bit_length() > 1024:
            raise _refused(where, "it is an integer of more than 1024 bits", "give its digest instead")
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise _refused(where, f"{value} has no JSON form and NaN is not even equal to itself", "say it in words")
        return value
    if type(value) is str:
        return _text(value, where)
    if isinstance(value, Mapping):
        return _plain_mapping(value, where, depth)
    if type(value) in (list, tuple):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise _refused(
        where,
        f"a value of type {type(value).__module__}.{type(value).__qualname__} has no exact JSON form",
        "convert it: .name for an enum, float() or .tolist() for NumPy, str() for a path, a sha256 for bytes",
    )


def _plain_mapping(values: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    plain = {}
    for label, value in values.items():
        if type(label) is not str:
            raise _refused(where, f"its label {label!r} is not a string", "JSON cannot tell 1 from '1' there: use str")
        place = f"{where}.{label}" if where else label
        plain[_text(label, place)] = _plain(value, place, depth + 1)
    return plain


def _text(text: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        # Two lone surrogates and the one character that they spell share a JSON text.
        raise _refused(repr(where), "it is not valid Unicode", "decode it with errors='backslashreplace'") from error
    return text


def _refused(where: str, why: str, hint: str) -> ArtifactError:
    return ArtifactError(f"key ingredient {where or '(top level)'} cannot be part of a key: {why}", hint=hint)


class Absent:
    """The side of a Difference on which a label is not there at all (None is a value)."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


@dataclass(frozen=True)
class Difference:
    """One leaf that two sets of ingredients do not share. ``old`` or ``new`` is ABSENT where it is missing."""

    label: str
    old: Any
    new: Any

    def __str__(self) -> str:
        old, new = (repr(side) if isinstance(side, Absent) else canonical(side) for side in (self.old, self.new))
        return f"{self.label}: {old} → {new}"


def explain(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Compare two sets of ingredients leaf by leaf; nested labels are joined by dots. Lists are leaves."""
    before, after = dict(leaves(old)), dict(leaves(new))
    differences = []
    for path in sorted({*before, *after}):
        left, right = before.get(path, ABSENT), after.get(path, ABSENT)
        # Python's == holds 1, 1.0 and True for the same; a key does not.
        if isinstance(left, Absent) or isinstance(right, Absent) or canonical(left) != canonical(right):
            differences.append(Difference(".".join(path), left, right))
    return differences


def leaves(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Yield each leaf of nested mappings with its path; an empty mapping is a leaf."""
    for label, value in values.items():
        path = (*prefix, label)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path)
        else:
            yield path, value
