"""Request -> engine: look it up, or build it once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.build_times import estimate, with_eta
from pytest_trt.artifacts.calibration_cache import load_calibration_cache, save_calibration_cache
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.store import Entry, Store
from pytest_trt.artifacts.timing_cache import load_timing_cache, save_timing_cache
from pytest_trt.backends import Backend, BuildRequest, Built, Progress, silent
from pytest_trt.backends.isolation import build as build_plan
from pytest_trt.errors import ArtifactError

if TYPE_CHECKING:
    from pytest_trt.backends import Plan

__all__ = ["StoredEngine", "engine_key", "obtain_engine", "stored_engine"]

_LOG_NAME = "build.log"


@dataclass(frozen=True)
class StoredEngine:
    """A plan with its facts. ``fresh``: built by this call; ``digest``: its place in the cache; ``log``: what the
    builder said when it was built, one message a line."""

    plan: Plan
    facts: dict[str, Any]
    fresh: bool
    digest: str
    log: str = ""
    sha256: str = ""  # of the plan, where it is known already

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which does not share the mapped file that the plan may be."""
        return {**self.__dict__, "plan": bytes(self.plan)}

    @cached_property
    def plan_digest(self) -> str:
        """The first 16 digits of the plan's own SHA-256: two builds of one key can give two plans."""
        return (self.sha256 or hashlib.sha256(self.plan).hexdigest())[:16]


def engine_key(backend: Backend, request: BuildRequest) -> Key:
    """All that can change the plan, by name. The timing cache is left out: it changes how long a build takes
    and which of equally valid tactics wins, and it differs after every build."""
    precision, calibration = request.precision, request.calibration
    ingredients: dict[str, Any] = {
        "backend": backend.name,
        "identity": backend.identity(),
        "typed_model": request.model.fingerprint,
        "precision": {
            "name": precision.name,
            "flags_on": list(precision.flags_on),
            "flags_off": list(precision.flags_off),
        },
        "profiles": {str(i): profile.describe() for i, profile in enumerate(request.held_profiles)},
        "options": request.options.describe(),
    }
    if calibration is not None:
        ingredients["calibration"] = {"algorithm": calibration.algorithm, "fingerprint": calibration.fingerprint}
    if request.debug_tensors:
        ingredients["debug_tensors"] = list(request.debug_tensors)
    if request.tactic_lock:
        ingredients["tactic_lock"] = {key: list(entry) for key, entry in request.tactic_lock.items()}
    return Key.make("engine", ingredients)


def obtain_engine(
    store: Store,
    backend: Backend,
    request: BuildRequest,
    *,
    label: str,
    progress: Progress = silent,
    exclusive: Callable[[], AbstractContextManager[object]] = nullcontext,
    timing_cache: bool = True,
    isolate: bool = False,
    build_timeout_s: float | None = None,
) -> StoredEngine:
    """Return the engine for *request*. *exclusive* is held while building: tactic timing is a measurement too.

    With *isolate* or *build_timeout_s* it is built in a process of its own. Raises BuildError.
    """
    key = engine_key(backend, request)

    def build() -> dict[str, bytes]:
        _ = request.model.proto  # a model that is only remembered is made now, before others wait for the device
        with exclusive():
            timings = load_timing_cache(store, backend) if timing_cache else None
            say = with_eta(progress, label, estimate(store, key, label))
            wanted = _with_calibration_cache(store, backend, replace(request, timing_cache=timings))
            built = build_plan(backend, wanted, say, isolate=isolate, timeout_s=build_timeout_s)
            _keep(store, backend, wanted, built, progress, timings=timing_cache)
        return _payload(built)

    return _read(store.get_or_build(key, build, label=label))


def stored_engine(store: Store, digest: str) -> StoredEngine | None:
    """The engine whose entry's digest begins with *digest*, or None. Nothing is built."""
    for info in store.entries():
        if info.kind == "engine" and info.digest.startswith(digest):
            key = Key.make("engine", info.ingredients)
            entry = store.get(key) if key.digest == info.digest else None  # another digest: keys of another version
            return None if entry is None else _read(entry)
    return None


def _read(entry: Entry) -> StoredEngine:
    plans = [name for name in entry.files if name.startswith("engine")]
    if len(plans) != 1:
        raise ArtifactError(
            f"cache entry {entry.key.short} holds {sorted(entry.files)}, not one engine", hint="pytest-trt cache verify"
        )
    return StoredEngine(
        plan=entry.view(plans[0]),
        facts=json.loads(entry.files["facts.json"]),
        fresh=entry.fresh,
        digest=entry.key.digest,
        log=entry.files.get(_LOG_NAME, b"").decode("utf-8", "replace"),
        sha256=entry.digests.get(plans[0], ""),
    )


def _with_calibration_cache(store: Store, backend: Backend, request: BuildRequest) -> BuildRequest:
    if request.calibration is None:
        return request
    cache = load_calibration_cache(store, backend, request)
    return replace(request, calibration=replace(request.calibration, cache=cache))


def _keep(
    store: Store, backend: Backend, request: BuildRequest, built: Built, progress: Progress, *, timings: bool
) -> None:
    """Keep what the next build saves time with. Minutes of building must not be lost because this fails."""
    try:
        if timings and built.timing_cache is not None:
            save_timing_cache(store, backend, built.timing_cache, request.timing_cache)
        if built.calibration_cache is not None:
            save_calibration_cache(store, backend, request, built.calibration_cache)
    except ArtifactError as error:
        progress(f"what would speed up the next build is not kept: {error.message}")


def _payload(built: Built) -> dict[str, bytes]:
    payload = {
        f"engine{built.suffix}": built.plan,
        "facts.json": json.dumps(built.facts, indent=1, sort_keys=True).encode(),
    }
    if built.log:
        payload[_LOG_NAME] = built.log.encode("utf-8", "replace")
    return payload
