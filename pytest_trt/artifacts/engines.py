"""Request -> engine: look it up, or build it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Store
from pytest_trt.artifacts.timing_cache import load_timing_cache, save_timing_cache
from pytest_trt.backends import Backend, BuildRequest, Built, Progress, silent
from pytest_trt.errors import ArtifactError

__all__ = ["StoredEngine", "engine_key", "obtain_engine"]


@dataclass(frozen=True)
class StoredEngine:
    """A plan with its facts. ``fresh``: built by this call; ``digest``: its place in the cache."""

    plan: bytes
    facts: dict[str, Any]
    fresh: bool
    digest: str

    @property
    def plan_digest(self) -> str:
        """The first 16 digits of the plan's own SHA-256: two builds of one key can give two plans."""
        return hashlib.sha256(self.plan).hexdigest()[:16]


def engine_key(backend: Backend, request: BuildRequest) -> Key:
    """All that can change the plan, by name. The timing cache is left out: it changes how long a build takes
    and which of equally valid tactics wins, and it differs after every build."""
    precision, options = request.precision, request.options
    return Key.make(
        "engine",
        {
            "backend": backend.name,
            "identity": backend.identity(),
            "typed_model": request.model.fingerprint,
            "precision": {
                "name": precision.name,
                "flags_on": list(precision.flags_on),
                "flags_off": list(precision.flags_off),
            },
            "profiles": [profile.describe() for profile in request.held_profiles],
            "options": options.describe(),
        },
    )


def obtain_engine(
    store: Store,
    backend: Backend,
    request: BuildRequest,
    *,
    label: str,
    progress: Progress = silent,
    exclusive: Callable[[], AbstractContextManager[object]] = nullcontext,
    timing_cache: bool = True,
) -> StoredEngine:
    """Return the engine for *request*. *exclusive* is held while building: tactic timing is a measurement too.

    Raises BuildError.
    """
    key = engine_key(backend, request)

    def build() -> dict[str, bytes]:
        with exclusive():
            timings = load_timing_cache(store, backend) if timing_cache else None
            built = backend.build(replace(request, timing_cache=timings), progress)
            if timing_cache and built.timing_cache is not None:
                try:
                    save_timing_cache(store, backend, built.timing_cache)
                except ArtifactError as error:
                    # Minutes of building must not be lost because their by-product cannot be kept.
                    progress(f"tactic timings are not kept: {error.message}")
        return _payload(built)

    entry = store.get_or_build(key, build, label=label)
    plans = [name for name in entry.files if name.startswith("engine")]
    if len(plans) != 1:
        raise ArtifactError(
            f"cache entry {key.digest[:12]} holds {sorted(entry.files)}, not one engine", hint="pytest-trt cache verify"
        )
    return StoredEngine(entry.files[plans[0]], json.loads(entry.files["facts.json"]), entry.fresh, key.digest)


def _payload(built: Built) -> dict[str, bytes]:
    return {
        f"engine{built.suffix}": built.plan,
        "facts.json": json.dumps(built.facts, indent=1, sort_keys=True).encode(),
    }
