"""Facts: the small results of slow, pure functions of a model, kept with all that they depend on.

Besides what is given, a fact depends on the code that made it and on the libraries that this code uses: the digest of
all sources below ``spec`` and the versions of these libraries are in its key.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest_trt.spec
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Payload, Store
from pytest_trt.environment import version_of
from pytest_trt.errors import ArtifactError
from pytest_trt.spec.model import Model
from pytest_trt.spec.remembered import RememberedModel, outside

__all__ = ["as_payload", "fact_key", "read_fact", "recall", "recall_model"]

_FILE = "fact.json"
_LIBRARIES = ("numpy", "onnx", "protobuf", "ml_dtypes")


def fact_key(fact: str, ingredients: Mapping[str, Any]) -> Key | None:
    """The key of *fact*; None where the code that makes it cannot be told from another version of it."""
    code = _code()
    if code is None:
        return None
    return Key.make("fact", {"fact": fact, **ingredients, "code": code, "made_with": dict(_libraries())})


def as_payload(value: Any) -> dict[str, bytes]:
    return {_FILE: json.dumps(value, sort_keys=True).encode()}


def read_fact(files: Payload) -> Any:
    return json.loads(files[_FILE])


def recall(store: Store, fact: str, ingredients: Mapping[str, Any], make: Callable[[], Any], *, label: str = "") -> Any:
    """Return what *make* gives, as JSON has it, from the store where it is there. *make*'s errors go through."""
    key = fact_key(fact, ingredients)
    if key is None:
        return read_fact(as_payload(make()))
    return read_fact(store.get_or_build(key, lambda: as_payload(make()), label=label).files)


def recall_model(
    store: Store,
    fact: str,
    ingredients: Mapping[str, Any],
    make: Callable[[], tuple[Model, Mapping[str, Any]]],
    name: str,
) -> tuple[Model, dict[str, Any]]:
    """Return the model that *make* gives, and the notes (JSON) beside it.

    A model that is remembered is not made before its graph is asked for. Should it then be another one, which only an
    impure *make* can lead to, the store is corrected and StaleModelError raised: the next one to ask gets it right.
    """
    made: list[Model] = []

    def facts() -> dict[str, Any]:
        model, notes = make()
        made.append(model)
        return {**outside(model), "notes": dict(notes)}

    found = recall(store, fact, ingredients, facts, label=f"facts of {name}: {fact}")
    if made:
        return made[0], found["notes"]

    def again() -> Model:
        facts_now = facts()
        key = fact_key(fact, ingredients)
        if facts_now["fingerprint"] != found["fingerprint"] and key is not None:
            with contextlib.suppress(ArtifactError):  # a full disk: the error that follows is the one that matters
                store.put(key, as_payload(facts_now), label=f"facts of {name}: {fact}", replace=True)
        return made.pop()

    return RememberedModel(name, found, again), found["notes"]


@functools.lru_cache(maxsize=1)
def _code() -> str | None:
    """The digest of all sources below ``spec``; None where they are not files, as in a zip archive."""
    folder = Path(pytest_trt.spec.__file__ or "").parent
    digest, count = hashlib.sha256(), 0
    try:
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode())
            digest.update(content)
            count += 1
    except OSError:
        return None
    return digest.hexdigest() if count else None


@functools.lru_cache(maxsize=1)
def _libraries() -> tuple[tuple[str, str], ...]:
    python = ("python", ".".join(platform.python_version_tuple()[:2]))
    return (
        python,
        ("machine", platform.machine()),
        *((name, version_of(name) or "missing") for name in _LIBRARIES),
    )
