"""Models that are known without being read, and typed models without being made; and when that must not be."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from project import MANIFEST, write_model
from ticks import wait_for_tick

from pytest_trt.artifacts import facts, onnx_files
from pytest_trt.artifacts.directory import DirectoryStore
from pytest_trt.artifacts.facts import recall
from pytest_trt.artifacts.memory import MemoryStore
from pytest_trt.artifacts.onnx_files import obtain_file
from pytest_trt.artifacts.store import NullStore, ReadOnlyStore
from pytest_trt.errors import ModelError, StaleModelError, UnsafeModelError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec import loading
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import casts, quantize
from pytest_trt.spec.remembered import RememberedModel, outside

LATER_NS = 10 * 10**9


class Reads:
    """Where and how often a model file was really read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: list[Path] = []
        self._real = loading.load_proto
        monkeypatch.setattr(loading, "load_proto", self._load)

    def _load(self, path: Path, external: list[str] | None = None) -> onnx.ModelProto:
        self.files.append(path)
        return self._real(path, external)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch):
    """Files were written long ago, on a disk that keeps change times."""
    monkeypatch.setattr(onnx_files, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + LATER_NS))
    monkeypatch.setattr(onnx_files, "keeps_change_times", lambda folder: True)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny") / "model.onnx"


def externalize(path: Path) -> Path:
    """Put the weights of the model beside it; return their file."""
    proto = onnx.load(path)
    (path.parent / "weights").mkdir()
    onnx.save_model(proto, path, save_as_external_data=True, location="weights/w.bin", size_threshold=0)
    return path.parent / "weights" / "w.bin"


def flip(path: Path) -> None:
    """Another last byte, the same size, the same modification time."""
    found = path.stat()
    wait_for_tick(path.parent)
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


# Files


@pytest.mark.parametrize("make", [MemoryStore, None], ids=["memory", "directory"])
def test_a_file_is_read_once(path: Path, tmp_path: Path, reads: Reads, make: Callable[[], MemoryStore] | None):
    store = make() if make else DirectoryStore(tmp_path / "cache")
    first, again = (obtain_file(store, path, "tiny") for _ in range(2))
    assert reads.files == [path]
    assert isinstance(again, RememberedModel)
    assert outside(again) == outside(first)
    assert (again.name, again.path, again.has_graph, again.profiles) == ("tiny", path, True, ())
    assert again.inputs[0].shape == ("N", 4)


def test_the_graph_is_there_when_it_is_asked_for(path: Path, reads: Reads):
    store = MemoryStore()
    first, again = (obtain_file(store, path, "tiny") for _ in range(2))
    assert again.proto == first.proto
    assert again.serialized() == first.serialized()
    assert len(reads.files) == 2, "read once more, and kept"


@pytest.mark.parametrize("kind", ["inside", "external"])
def test_a_file_that_was_changed_is_read_again(path: Path, reads: Reads, kind: str):
    changed = externalize(path) if kind == "external" else path
    store = MemoryStore()
    first = obtain_file(store, path, "tiny")
    assert obtain_file(store, path, "tiny").fingerprint == first.fingerprint
    assert len(reads.files) == 1
    if kind == "external":
        flip(changed)
    else:
        before = path.stat()
        wait_for_tick(path.parent)
        path.write_bytes(path.read_bytes().replace(b"hidden", b"hiddex"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
    found = obtain_file(store, path, "tiny")
    assert len(reads.files) == 2
    assert found.fingerprint == Model.load(path).fingerprint != first.fingerprint


def test_external_data_that_is_gone_is_an_error(path: Path):
    data = externalize(path)
    store = MemoryStore()
    obtain_file(store, path, "tiny")
    data.unlink()
    with pytest.raises(ModelError, match="missing"):
        obtain_file(store, path, "tiny")


def test_a_file_that_was_just_written_is_not_remembered(path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_files, "time", time)
    store = MemoryStore()
    for _ in range(2):
        obtain_file(store, path, "tiny")
    assert len(reads.files) == 2
    assert not list(store.entries())


def test_external_data_that_was_just_written_is_not_remembered(
    path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
):
    data = externalize(path)
    monkeypatch.setattr(onnx_files, "time", time)
    monkeypatch.setattr("pytest_trt.artifacts.file_state.SETTLED_NS", 0)
    store = MemoryStore()
    wait_for_tick(data.parent)
    real = loading.load_proto

    def load(path: Path, external: list[str] | None = None) -> onnx.ModelProto:
        wait_for_tick(data.parent)
        os.utime(data)  # somebody writes while we read
        return real(path, external)

    monkeypatch.setattr(loading, "load_proto", load)
    obtain_file(store, path, "tiny")
    assert not list(store.entries())


def test_where_change_times_say_nothing_files_are_read(path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnx_files, "keeps_change_times", lambda folder: False)
    store = MemoryStore()
    for _ in range(2):
        obtain_file(store, path, "tiny")
    assert len(reads.files) == 2


def test_a_file_that_is_put_in_its_place_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    write_model(path.parent, seed=1)
    other = path.rename(path.with_name("other.onnx"))
    write_model(path.parent, seed=2)
    mine = path.rename(path.with_name("mine.onnx"))
    path.symlink_to(mine)
    real = loading.load_proto

    def load(path: Path, external: list[str] | None = None) -> onnx.ModelProto:
        path.unlink()
        path.symlink_to(other)
        return real(path, external)

    monkeypatch.setattr(loading, "load_proto", load)
    store = MemoryStore()
    obtain_file(store, path, "tiny")
    monkeypatch.setattr(loading, "load_proto", real)
    path.unlink()
    path.symlink_to(mine)
    assert obtain_file(store, path, "tiny").fingerprint == Model.load(mine).fingerprint


@pytest.mark.parametrize("what", ["code", "onnx"])
def test_other_code_reads_again(path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch, what: str):
    store = MemoryStore()
    obtain_file(store, path, "tiny")
    if what == "code":
        monkeypatch.setattr(facts, "_code", lambda: "0" * 64)
    else:
        monkeypatch.setattr(facts, "_libraries", lambda: (("onnx", "0.1"),))
    obtain_file(store, path, "tiny")
    assert len(reads.files) == 2


def test_code_that_cannot_be_told_remembers_nothing(path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(facts, "_code", lambda: None)
    store = MemoryStore()
    for _ in range(2):
        obtain_file(store, path, "tiny")
        assert recall(store, "a fact", {}, lambda: [1]) == [1]
    assert len(reads.files) == 2
    assert not list(store.entries())


def test_every_source_below_spec_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "spec" / "precision").mkdir(parents=True)
    init, recipe = tmp_path / "spec" / "__init__.py", tmp_path / "spec" / "precision" / "casts.py"
    init.touch()
    recipe.write_text("low = 16\n")
    monkeypatch.setattr(facts.pytest_trt.spec, "__file__", str(init))
    seen = []
    for text in ("low = 16\n", "low = 8\n", "low = 16\n"):
        recipe.write_text(text)
        facts._code.cache_clear()
        seen.append(facts._code())
    facts._code.cache_clear()
    assert seen[0] == seen[2] != seen[1]


def test_a_link_out_of_the_folder_is_refused_although_its_target_is_known(path: Path, tmp_path: Path):
    store = MemoryStore()
    obtain_file(store, path, "tiny")
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / "model.onnx"
    link.symlink_to(path)
    with pytest.raises(UnsafeModelError, match="outside its folder"):
        obtain_file(store, link, "tiny")


def test_a_file_that_changes_after_it_was_looked_up_stops_the_run(path: Path):
    store = MemoryStore()
    obtain_file(store, path, "tiny")
    known = obtain_file(store, path, "tiny")
    write_model(path.parent, seed=1)
    with pytest.raises(StaleModelError, match="run again"):
        _ = known.proto


@pytest.mark.parametrize("store", [NullStore(), ReadOnlyStore(MemoryStore())], ids=["off", "ro"])
def test_a_store_that_keeps_nothing_reads_each_time(path: Path, reads: Reads, store: NullStore | ReadOnlyStore):
    for _ in range(2):
        assert obtain_file(store, path, "tiny").inputs
    assert len(reads.files) == 2


def test_a_broken_file_is_an_error_each_time(path: Path):
    path.write_bytes(b"\x08")
    store = MemoryStore()
    for _ in range(2):
        with pytest.raises(ModelError, match=r"holds no graph|no readable ONNX"):
            obtain_file(store, path, "tiny")


# Typed models

CASTS_LEFT_OUT = '[precision.fp16]\nexclude_nodes = ["out"]\n'


class World:
    """Labs over one small model and one cache, and how often a recipe ran in them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.recipes = folder, 0
        write_model(folder / "tiny")
        for module, names in ((casts, ("Fp16Recipe", "Fp32Recipe")), (quantize, ("Int8Recipe",))):
            for name in names:
                self._count(monkeypatch, getattr(module, name))

    def _count(self, monkeypatch: pytest.MonkeyPatch, recipe: type) -> None:
        real = recipe.call

        def call(recipe: object, *args: object):
            self.recipes += 1
            return real(recipe, *args)

        monkeypatch.setattr(recipe, "call", call)

    def lab(self, precision: str = "fp16", **settings: object) -> Lab:
        asked = {"backend": ("onnxruntime-cpu",), "precision": (precision,), "profile": ("b8",), **settings}
        return Lab(Settings(cache_dir=self.folder / "cache", **asked), self.folder)

    def run(self, precision: str = "fp16", **settings: object):
        """The record of a checked case, and how often a recipe ran for it."""
        before = self.recipes
        with self.lab(precision, **settings) as lab:
            (case,) = lab.cases(lab.add("tiny"))
            record = lab.record(case)
            lab.check(case, record)
        return record, self.recipes - before


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_second_run_neither_reads_nor_types_the_model(world: World, reads: Reads, precision: str):
    (first, ran), (second, ran_again) = world.run(precision), world.run(precision)
    assert (ran, ran_again, len(reads.files)) == (1, 0, 1)
    assert (first.engine["fresh"], second.engine["fresh"]) == (True, False)
    assert second.precision == first.precision
    assert second.accuracy["outputs"] == first.accuracy["outputs"]
    assert second.engine["plan"] == first.engine["plan"]


def test_an_engine_that_is_gone_is_built_from_the_model_made_again(world: World):
    first, _ = world.run()
    lab = world.lab()
    for entry in list(lab.store.entries()):
        if entry.kind == "engine":
            lab.store.remove(entry.digest)
    second, ran = world.run()
    assert (second.engine["fresh"], ran) == (True, 1)
    assert second.engine["digest"] == first.engine["digest"]


def test_other_options_of_a_recipe_make_it_run(world: World):
    first, _ = world.run()
    (world.folder / "tiny" / "trt.toml").write_text(MANIFEST + CASTS_LEFT_OUT)
    second, ran = world.run()
    assert ran == 1
    assert second.engine["digest"] != first.engine["digest"]


def test_other_ranges_make_a_recipe_run(world: World):
    world.run("int8")
    np.savez(world.folder / "tiny" / "inputs.npz", x=np.linspace(-3, 3, 64, dtype=np.float32).reshape(16, 4))
    assert world.run("int8")[1] == 1


def test_other_code_makes_a_recipe_run(world: World, monkeypatch: pytest.MonkeyPatch):
    world.run()
    monkeypatch.setattr(facts, "_code", lambda: "0" * 64)
    record, ran = world.run()
    assert (ran, record.engine["fresh"]) == (1, False), "it makes the same model, whose engine is there"


def test_without_a_cache_every_run_types(world: World):
    assert [world.run(cache="off")[1] for _ in range(2)] == [1, 1]


def test_a_fact_that_is_wrong_costs_one_more_lookup(world: World):
    """As where a recipe gives something else on another machine: engine and fact get the real fingerprint."""
    first, _ = world.run()
    store = world.lab().store
    for entry in list(store.entries()):
        if entry.kind == "engine":
            store.remove(entry.digest)
        if entry.kind == "fact" and entry.ingredients["fact"] == "typed fp16":
            key = facts.fact_key("typed fp16", {k: v for k, v in entry.ingredients.items() if k not in ADDED})
            known = facts.read_fact(store.get(key).files)
            store.put(key, facts.as_payload({**known, "fingerprint": "0" * 64}), replace=True)
    second, _ = world.run()
    assert (second.engine["fresh"], second.engine["digest"]) == (True, first.engine["digest"])
    third, ran = world.run()
    assert (third.engine["fresh"], third.engine["digest"], ran) == (False, first.engine["digest"], 0)


ADDED = ("fact", "code", "made_with")


def test_notes_are_the_same_when_they_come_from_the_store(world: World):
    with world.lab() as lab:
        (case,) = lab.cases(lab.add("tiny"))
        made = lab.typed_outline(case)[1]
    with world.lab() as lab:
        (case,) = lab.cases(lab.add("tiny"))
        model, known = lab.typed_outline(case)
        assert isinstance(model, RememberedModel)
        assert known == made == json.loads(json.dumps(lab.typed_model(case)[1].notes))
