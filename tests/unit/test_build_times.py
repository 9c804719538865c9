"""How long a build will take, told from the builds before it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from networks import conv_net

from pytest_trt.artifacts import build_times, store
from pytest_trt.artifacts.build_times import Estimate, estimate, with_eta
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.engines import engine_key, obtain_engine
from pytest_trt.artifacts.key import Key
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.artifacts.store import Meta, NullStore, ReadOnlyStore, Store
from pytest_trt.backends import BuildRequest, Built, Progress, silent
from pytest_trt.backends.fake import FakeBackend
from pytest_trt.errors import ArtifactError
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import get_precision
from pytest_trt.spec.shapes import Profile

LABEL = "net-fp32-b2-fake"


def key_of(model: str = "a", backend: str = "fake", **more: Any) -> Key:
    return Key.make("engine", {"backend": backend, "typed_model": model, **more})


def keep(place: Store, key: Key, seconds: object, label: str = LABEL) -> None:
    place.put(key, {"engine.plan": b"plan", "facts.json": json.dumps({"build_seconds": seconds}).encode()}, label=label)


@pytest.fixture(params=["memory", "directory", "read only"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """A store to write to, and the one to ask."""
    place = MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "cache")
    return place, ReadOnlyStore(place) if request.param == "read only" else place


def test_it_is_what_the_case_took_last(kept: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch):
    written, asked = kept
    for day, seconds in ((2, 20.0), (3, 30.0), (1, 10.0)):
        made = f"2024-01-0{day}T00:00:00+00:00"
        monkeypatch.setattr(store.Meta, "now", lambda files, label, made=made: Meta(made, len(files), label))
        keep(written, key_of(f"weights {day}"), seconds)
    keep(written, key_of("c"), 99.0, label="other")

    assert estimate(asked, key_of("new weights"), LABEL) == Estimate(30.0, "last time")


def test_a_case_that_was_never_built_takes_what_its_model_took(kept: tuple[Store, Store]):
    written, asked = kept
    keep(written, key_of(profile=1, level=1), 40.0, "other")
    keep(written, key_of(profile=2, level=3), 50.0, "other")
    keep(written, key_of("another model", profile=2, level=1), 60.0, "other")

    assert estimate(asked, key_of(profile=2, level=4), LABEL) == Estimate(50.0, "with other shapes or options")


@pytest.mark.parametrize(
    ("key", "label"),
    [(key_of(backend="tensorrt"), LABEL), (key_of("another model"), "other"), (key_of("another model"), "")],
    ids=["other backend", "other case and model", "no label"],
)
def test_what_is_not_alike_is_not_asked(kept: tuple[Store, Store], key: Key, label: str):
    written, asked = kept
    keep(written, key_of(), 40.0, label if label == "" else LABEL)

    assert estimate(asked, key, label) is None


@pytest.mark.parametrize("seconds", [0.4, 0, -3, None, "17", [17], float("inf"), float("nan")])
def test_what_is_no_time_or_not_worth_a_word_is_not_said(kept: tuple[Store, Store], seconds: object):
    written, asked = kept
    keep(written, key_of(), seconds)

    assert estimate(asked, key_of("new weights"), LABEL) is None


@pytest.mark.parametrize("facts", [b"", b"[17]", b"{", b"\xff", None])
def test_facts_that_cannot_be_read_cost_no_build(tmp_path: Path, facts: bytes | None):
    place = DirectoryStore(tmp_path)
    keep(place, key_of(), 40.0)
    (entry,) = place.entries()
    assert entry.path is not None
    if facts is None:
        (entry.path / "facts.json").unlink()
    else:
        (entry.path / "facts.json").write_bytes(facts)

    assert estimate(place, key_of("new weights"), LABEL) is None


def test_a_store_that_cannot_be_listed_costs_no_build():
    class Unreadable(MemoryStore):
        def entries(self) -> Any:
            raise ArtifactError("permission denied")

    assert estimate(Unreadable(), key_of(), LABEL) is None
    assert estimate(NullStore(), key_of(), LABEL) is None


def test_no_plan_is_read(tmp_path: Path):
    place = DirectoryStore(tmp_path)
    keep(place, key_of(), 40.0)
    (entry,) = place.entries()
    assert entry.path is not None
    (entry.path / "engine.plan").unlink()

    assert estimate(place, key_of("new weights"), LABEL) == Estimate(40.0, "last time")


def test_lines_say_how_far_a_build_is(monkeypatch: pytest.MonkeyPatch):
    now, said = [100.0], []
    monkeypatch.setattr(build_times, "time", SimpleNamespace(monotonic=lambda: now[0]))

    say = with_eta(said.append, "net", Estimate(17.4, "last time"))
    now[0] = 108.2
    say("timing tactics")

    assert said == ["building net (last time 17 s)", "timing tactics … 8 of about 17 s"]


def test_without_an_estimate_nothing_is_added():
    said: list[str] = []

    with_eta(said.append, "net", None)("timing tactics")

    assert said == ["timing tactics"]


class SlowBackend(FakeBackend):
    """Says that it took 17 s."""

    def build(self, request: BuildRequest, progress: Progress = silent) -> Built:
        built = super().build(request, progress)
        return replace(built, facts={**built.facts, "build_seconds": 17.0})


def test_a_build_is_announced_from_the_second_time_on():
    place, backend, said = MemoryStore(), SlowBackend(), []
    model = Model.from_proto(conv_net(), "net")
    request = BuildRequest(model, get_precision("fp32"), Profile.parse("b1", "x=1x3x8x8"))
    other = replace(request, profile=Profile.parse("b1", "x=2x3x8x8"))

    for wanted in (request, request, other):
        obtain_engine(place, backend, wanted, label=LABEL, progress=said.append)

    assert said == [
        "fake: building net",
        f"building {LABEL} (last time 17 s)",
        "fake: building net … 0 of about 17 s",
    ]
    assert estimate(place, engine_key(backend, request), "other") == Estimate(17.0, "with other shapes or options")
