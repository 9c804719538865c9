"""Bundles of failing cases: what lies in them, that they fail by themselves, and that commands go on from them."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import model, node, weights
from onnx import numpy_helper
from planted import write_chain

from pytest_trt.backends.fake import FakeBackend
from pytest_trt.cli import main
from pytest_trt.diagnosis.observe import values
from pytest_trt.errors import AccuracyFailure, UsageError
from pytest_trt.lab import Lab
from pytest_trt.settings import Settings
from pytest_trt.spec.model import Model

Run = Callable[..., pytest.RunResult]
DEPTH, PLANTED = 6, 3
ALONE = """
import runpy, sys
sys.modules["pytest_trt"] = sys.modules["onnx"] = None  # neither can be imported
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ARGUMENTS = ("models/chain", "--precision=int8", "--backend=onnxruntime-cpu")


def plant_scale(folder: Path, layer: int, factor: float) -> Path:
    """A chain whose Q/DQ pair before product *layer* has a scale that is *factor* times off."""
    write_chain(folder, DEPTH, width=32, rows=16)
    with np.load(folder / "inputs.npz") as archive:
        feeds = [{"x": archive["x"]}]
    names = ["x", *(f"r{i}" for i in range(DEPTH - 1))]
    (row,) = values(Model.load(folder / "model.onnx"), names, feeds)
    limits = {name: float(np.abs(row[name]).max()) for name in names}
    limits[names[layer]] *= factor
    (folder / "ranges.json").write_text(json.dumps({name: [-t, t] for name, t in limits.items()}))
    manifest = folder / "trt.toml"
    manifest.write_text(manifest.read_text().replace('calibration = "minmax"', 'ranges = "ranges.json"'))
    return folder


@pytest.fixture
def planted(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    shutil.rmtree(project / "models" / "tiny")
    return plant_scale(project / "models" / "chain", PLANTED, 0.1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the planted fault, as a failing check leaves it."""
    root = tmp_path_factory.mktemp("written")
    folder = plant_scale(root / "chain", PLANTED, 0.1)
    given = {"precision": ("int8",), "backend": ("onnxruntime-cpu",)}
    with Lab(Settings(cache_dir=root / "cache", bundle=root / "bundles", **given), root) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(AccuracyFailure, match="cosine"):
            lab.check(case, lab.record(case))
    (found,) = (root / "bundles").iterdir()
    return found


@pytest.fixture
def bundle(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, far from where it was written."""
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(tmp_path / "cache"))
    return Path(shutil.copytree(written, tmp_path / written.name))


def reproduce(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the script without anything of this environment but the libraries that it names."""
    command = [sys.executable, "-I", "-c", ALONE, str((folder / "reproduce.py").absolute()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={}, check=False)
    return done.returncode, done.stdout + done.stderr


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "case.json").read_text())
    return found


def test_a_bundle_has_all_that_shows_the_failure(bundle: Path) -> None:
    pytest.importorskip("matplotlib")
    names = {file.relative_to(bundle).as_posix() for file in bundle.rglob("*") if file.is_file()}
    whole = {
        *("model.onnx", "typed.onnx", "inputs.npz", "expected.npz", "actual.npz", "ranges.json", "trt.toml"),
        *("case.json", "explanation.txt", "commands.txt", "reproduce.py"),
    }
    pictures = {"error_histogram.svg", "error_curve.svg", "layers.json"}
    assert names == whole | pictures | {f"reduced/{name}" for name in whole}

    found = about(bundle)
    assert found["case"]["model"] == "chain"
    assert found["tolerance"][""]["cosine"] == 0.98
    assert found["versions"]["onnxruntime"]
    assert found["environment"]["backend"] == "onnxruntime-cpu"
    assert found["explanation"]["explanation"]["culprit"] == "conversion"
    for name, digest in found["digests"].items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest
    assert "culprit      conversion" in (bundle / "explanation.txt").read_text()
    commands = (bundle / "commands.txt").read_text()
    assert "trtexec --onnx=typed.onnx" in commands
    assert "polygraphy convert typed.onnx" in commands
    layers = json.loads((bundle / "layers.json").read_text())
    assert next(iter(layers)) == "m0"
    assert layers["m3"] > 10 * layers["m2"]
    assert "<svg" in (bundle / "error_curve.svg").read_text()


@pytest.mark.parametrize("part", [".", "reduced"])
def test_the_script_fails_until_the_fault_is_mended(bundle: Path, part: str) -> None:
    folder = bundle / part
    code, said = reproduce(folder)
    assert (code, "the failure shows" in said) == (1, True), said

    # Mended: the planted scale, in the model that is run.
    proto = onnx.load(folder / "typed.onnx")
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == f"r{PLANTED - 1}")
    scale = next(t for t in proto.graph.initializer if t.name == node.input[1])
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(10), scale.name))
    onnx.save(proto, folder / "typed.onnx")

    code, said = reproduce(folder)
    assert (code, "the failure does not show" in said) == (0, True), said


def test_the_float32_model_in_its_place_is_close(bundle: Path) -> None:
    assert reproduce(bundle, str(bundle / "model.onnx"))[0] == 0


def not_a_model(file: Path) -> str:
    file.write_bytes(b"no model")
    return "cannot load other.onnx"


def of_other_inputs(file: Path) -> str:
    onnx.save(model([node("Neg", ["z"], ["y"])], {"z": [2]}, {"y": [2]}), file)
    return "cannot run other.onnx"


def of_an_unknown_operator(file: Path) -> str:
    onnx.save(model([node("Neg", ["x"], ["y"], domain="none.such")], {"x": ["N", 32]}, {"y": ["N", 32]}), file)
    return "cannot load other.onnx"


def nothing(file: Path) -> str:
    return f"there is no file {file}"


@pytest.mark.parametrize("other", [not_a_model, of_other_inputs, of_an_unknown_operator, nothing])
def test_another_model_that_cannot_run_is_told_in_a_sentence(bundle: Path, other: Callable[[Path], str]) -> None:
    why = other(bundle / "other.onnx")

    code, said = reproduce(bundle, str(bundle / "other.onnx"))

    *_, last = said.splitlines()
    assert (code, "Traceback" in said) == (2, False), said
    assert last.startswith("cannot run here: ")
    assert why in last
    assert "ONNXRuntimeError" not in last
    assert ("; give a model that takes x float32 [16, 32]" in last) == (other is not nothing)


@pytest.mark.parametrize("library", ["onnxruntime", "numpy"])
def test_without_a_library_it_says_which_one_to_install(bundle: Path, library: str) -> None:
    alone = ALONE.replace('["onnx"]', f'["{library}"]')
    command = [sys.executable, "-I", "-c", alone, str(bundle / "reproduce.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)

    version = f" {about(bundle)['versions'][library]}" if library == "onnxruntime" else ""
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.splitlines()[-1].startswith("cannot run here: import of ")
    assert done.stdout.endswith(f"; install {library}{version}\n")


def test_a_bug_keeps_its_traceback(bundle: Path) -> None:
    script = bundle / "reproduce.py"
    script.write_text(script.read_text().replace("RUNNERS = {", "run_onnxruntime = len\nRUNNERS = {"))

    code, said = reproduce(bundle)
    assert (code, "Traceback" in said, "TypeError" in said) == (2, True, True)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["inputs.npz", "expected.npz", "case.json", "typed.onnx"])
@pytest.mark.parametrize("harm", [Path.unlink, cut_short, flip_a_bit])
def test_a_damaged_bundle_says_which_file(bundle: Path, name: str, harm: Callable[[Path], None]) -> None:
    if (name, harm) == ("case.json", flip_a_bit):
        (bundle / name).write_text("{}")
    else:
        harm(bundle / name)

    code, said = reproduce(bundle)
    if name == "typed.onnx" and harm is not Path.unlink:  # whatever comes of it, it is not what was written
        assert f"{name} is not as it was written" in said
    else:
        assert (code, "Traceback" in said) == (2, False), said
        assert f"cannot run here: {name} cannot be read" in said or f"there is no file {bundle / name}" in said


def test_other_inputs_than_those_that_were_written_are_told(bundle: Path) -> None:
    with np.load(bundle / "inputs.npz") as archive:
        np.savez(bundle / "inputs.npz", **{name: archive[name] * 0 for name in archive.files})

    code, said = reproduce(bundle)
    assert (code, "inputs.npz is not as it was written" in said) == (1, True), said
    assert "is not as it was written" not in reproduce(bundle / "reduced")[1]


def test_the_model_is_reduced_to_the_planted_node(bundle: Path) -> None:
    found = about(bundle)["reduction"]

    assert found["nodes"] == [f"matmul_{PLANTED}"]
    assert (found["of"], found["minimal"]) == (3 * DEPTH, True)
    model = Model.load(bundle / "reduced" / "model.onnx")
    assert [node.name for node in model.proto.graph.node] == [f"matmul_{PLANTED}"]
    assert [spec.name for spec in model.inputs] == [f"r{PLANTED - 1}"]
    # Real activations: those of the whole model.
    (row,) = values(Model.load(bundle / "model.onnx"), [f"r{PLANTED - 1}"], [dict(np.load(bundle / "inputs.npz"))])
    np.testing.assert_array_equal(np.load(bundle / "reduced" / "inputs.npz")[f"r{PLANTED - 1}"], row[f"r{PLANTED - 1}"])


@pytest.mark.parametrize("part", [".", "reduced"])
def test_compare_fails_in_the_same_way(bundle: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    title = about(bundle / part)["title"]

    assert main(["compare", str(bundle / part), "--backend=onnxruntime-cpu"]) == 1
    out = capsys.readouterr().out
    assert title.partition("]")[2].partition(": ")[2] in out.splitlines()[0]


@pytest.mark.parametrize("part", [".", "reduced"])
def test_bisect_names_the_node(bundle: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", str(bundle / part), "--backend=onnxruntime-cpu", "--json"]) == 1

    (row,) = json.loads(capsys.readouterr().out)
    assert row["explanation"]["culprit"] == "conversion"
    assert row["culprits"]["exclude_nodes"] == [f"matmul_{PLANTED}"]


def test_the_same_failure_is_written_once(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *ARGUMENTS, "--explain=off", "--bundle=bundles"]) == 1
    (bundle,) = Path("bundles").iterdir()
    (bundle / "mine.txt").write_text("kept")

    assert main(["compare", *ARGUMENTS, "--bundle=bundles"]) == 1
    assert f"bundle       {bundle}, written before: the same failure" in capsys.readouterr().out
    assert list(Path("bundles").iterdir()) == [bundle]
    assert (bundle / "mine.txt").read_text() == "kept"


def test_bisect_writes_one_too(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", *ARGUMENTS, "--bundle=bundles"]) == 1

    out = capsys.readouterr().out
    (folder,) = Path("bundles").iterdir()
    assert f"bundle       {folder}" in out
    assert f"reduced      1 of 18 nodes still fails: matmul_{PLANTED}; 1 evaluation" in out


def test_a_hidden_overflow_is_named_and_is_what_the_piece_shows(tmp_path: Path) -> None:
    """x / inf is 0: nothing of the infinity is left in the output. Every node loses more than the tolerance allows."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="mm"),
        node("Mul", ["a", "a"], ["sq"], name="square"),
        node("Div", ["a", "sq"], ["y"], name="div"),
    ]
    folder = tmp_path / "net"
    folder.mkdir()
    values = {"w": weights(1, 16, 16, scale=300.0)}
    onnx.save(model(nodes, {"x": ["N", 16]}, {"y": ["N", 16]}, values), folder / "model.onnx")
    given = {"cache_dir": tmp_path / "cache", "bundle": tmp_path / "bundles", "tolerance": "rtol=1e-6,atol=0"}
    with Lab(Settings(precision=("fp16",), backend=("onnxruntime-cpu",), **given), tmp_path) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(AccuracyFailure) as failure:
            lab.check(case, lab.record(case))

    assert "first NaN/inf  square (Mul) makes 'sq': " in str(failure.value)
    (written,) = (tmp_path / "bundles").iterdir()
    assert about(written)["reduction"]["nodes"] == ["square"]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", "rtol=1e-7,atol=0"), ("int8", "cosine=0.9999999")])
def test_outputs_whose_shape_depends_on_values_are_bundled_one_by_one(
    tmp_path: Path, precision: str, tolerance: str
) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="mm"),
        node("Greater", ["a", "zero"], ["c"], name="positive"),
        node("Compress", ["a", "c"], ["y"], name="compress", axis=0),
    ]
    folder = tmp_path / "net"
    folder.mkdir()
    values = {"w": weights(1, 16, 64), "zero": np.float32(0)}
    onnx.save(model(nodes, {"x": [16]}, {"y": [None]}, values), folder / "model.onnx")
    given = {"cache_dir": tmp_path / "cache", "bundle": tmp_path / "bundles", "tolerance": tolerance}
    with Lab(Settings(precision=(precision,), backend=("onnxruntime-cpu",), **given), tmp_path) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(
            AccuracyFailure, match=r"the outputs of the 4 samples differ in shape: sample \d alone is here"
        ):
            lab.check(case, lab.record(case))

    (written,) = (tmp_path / "bundles").iterdir()
    assert about(written)["samples"] == 1
    assert reproduce(written)[0] == 1
    assert main(["compare", str(written), f"--cache-dir={tmp_path / 'cache'}", "--backend=onnxruntime-cpu"]) == 1


def test_a_model_without_a_recipe_has_no_error_curve_and_says_so_once(tmp_path: Path) -> None:
    folder = write_chain(tmp_path / "chain", 2, width=8, rows=4)
    np.savez(folder / "outputs.npz", y=np.zeros((4, 8), np.float32))
    (folder / "trt.toml").write_text(
        '[inputs]\nfile = "inputs.npz"\nexpected = "outputs.npz"\n[profiles.b]\nx = [4, 8]\n'
    )
    given = {"cache_dir": tmp_path / "cache", "bundle": tmp_path / "bundles"}
    with Lab(Settings(precision=("fp32",), backend=("onnxruntime-cpu",), **given), tmp_path) as lab:
        (case,) = lab.cases(lab.add(folder))
        with pytest.raises(AccuracyFailure) as failure:
            lab.check(case, lab.record(case))

    assert str(failure.value).count("no error curve: no inner tensor differs") == 1
    assert str(failure.value).count("no error curve") == 1


def test_what_is_close_leaves_no_folder(planted: Path) -> None:
    assert main(["compare", *ARGUMENTS, "--tolerance=cosine=0.1,snr_db=-9", "--bundle=bundles"]) == 0
    assert main(["compare", *ARGUMENTS[:1], "--precision=fp32", ARGUMENTS[2], "--bundle=bundles"]) == 0
    assert not Path("bundles").exists()


@pytest.mark.parametrize("first", ["fusion=0.5,at=0", "fusion=0.5,at=1"])
def test_another_engine_is_another_failure(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Another fault, or another version of the library that builds: neither is what was written before."""
    asked = ("compare", "models/chain", "--precision=fp32", "--backend=fake", "--bundle=bundles", "--explain=off")
    written = []
    for fault, version in ((first, "1"), ("fusion=0.5,at=2", "1"), (first, "2"), (first, "1")):
        monkeypatch.setattr(FakeBackend, "identity", lambda self, version=version: {"fake": version})
        assert main([*asked, f"--fake={fault}"]) == 1
        written.append("written before: the same failure" in capsys.readouterr().out)

    assert written == [False, False, False, True]
    assert len(list(Path("bundles").iterdir())) == 3


@pytest.mark.parametrize("command", ["compare", "bisect"])
def test_large_models_are_left_out_aloud(planted: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert main([command, *ARGUMENTS, "--bundle=bundles", "--bundle-size=30kB"]) == 1

    out = capsys.readouterr().out
    (folder,) = Path("bundles").iterdir()
    assert "are more than --bundle-size=0.03MB" in out
    assert not (folder / "model.onnx").exists()
    assert (folder / "reduced" / "typed.onnx").exists()  # that one is small
    assert reproduce(folder)[0] == 2
    assert reproduce(folder / "reduced")[0] == 1


def test_a_folder_that_cannot_be_written_does_not_hide_the_failure(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bundles").write_text("a file")

    assert main(["compare", *ARGUMENTS, "--bundle=bundles"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED chain[int8")
    assert "no bundle    --bundle: " in out


@pytest.mark.parametrize("broken", ["bundling.bundle_failure", "explaining._explained", "explaining._subject"])
def test_a_bug_in_the_diagnosis_does_not_hide_the_failure(
    planted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def stumble(*given: Any, **named: Any) -> None:
        raise KeyError("gone")

    module, name = broken.split(".")
    # By its module: pytester makes this package forget what an inner run was the first to import.
    monkeypatch.setattr(importlib.import_module(f"pytest_trt.lab.{module}"), name, stumble)

    assert main(["compare", *ARGUMENTS, "--bundle=bundles"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAILED chain[int8")
    assert "KeyError: 'gone', at test_bundles.py:" in out
    assert ("where the error enters" in out) == broken.startswith("bundling")


@pytest.mark.parametrize("command", [("compare", "--explain-seconds=40"), ("bisect", "--seconds=40")])
def test_a_reduction_leaves_time_for_the_curve(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, str]
) -> None:
    pytest.importorskip("matplotlib")
    given = []

    def endless(*_: Any, seconds: float, **__: Any) -> None:
        given.append(seconds)
        raise UsageError("a limit was reached")

    monkeypatch.setattr("pytest_trt.diagnosis.reducing.reduce_case", endless)

    assert main([command[0], *ARGUMENTS, command[1], "--bundle=bundles"]) == 1
    assert 0 < given[0] <= 30
    assert "not reduced: a limit was reached" in capsys.readouterr().out
    (folder,) = Path("bundles").iterdir()
    assert (folder / "error_curve.svg").exists()


def test_a_long_name_is_cut_in_the_folder(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = planted / "trt.toml"
    manifest.write_text(f'[model]\npath = "model.onnx"\nname = "{"n" * 300}"\n{manifest.read_text()}')

    for _ in range(2):  # with the folder above it there as well
        assert main(["compare", *ARGUMENTS, "--bundle=bundles"]) == 1
    (folder,) = Path("bundles").iterdir()
    assert len(folder.name) < 200
    assert "written before" in capsys.readouterr().out
    assert main(["compare", str(folder), "--backend=onnxruntime-cpu", "--explain=off"]) == 1
    assert "FAILED nnn" in capsys.readouterr().out


def test_pytest_leaves_a_bundle_and_says_where(run: Run, planted: Path) -> None:
    result = run(
        "models",
        *("--trt-precision=int8", "--trt-latency=off", "--trt-bundle=bundles", "--trt-report=report.json"),
        backend="onnxruntime-cpu",
    )

    result.assert_outcomes(failed=1, passed=1)
    (folder,) = Path("bundles").iterdir()
    result.stdout.fnmatch_lines([f"bundle       bundles/{folder.name}", "  reduced      1 of 18 nodes still fail*"])
    (record,) = json.loads(Path("report.json").read_text())["records"]
    assert Path(record["accuracy"]["bundle"]).name == folder.name


def test_bundles_are_collected_where_they_are_named(run: Run, bundle: Path, planted: Path) -> None:
    there = planted.parent / bundle.name
    shutil.copytree(bundle, there)

    run("models", "--trt-latency=off", "--trt-explain=off", backend="onnxruntime-cpu").assert_outcomes(passed=2)
    for named in (there, there / "reduced", there / "trt.toml"):
        asked = (named, "--trt-latency=off", "--trt-explain=off")
        run(*map(str, asked), backend="onnxruntime-cpu").assert_outcomes(passed=1, failed=1)


def test_without_an_explanation_there_is_still_a_bundle(planted: Path) -> None:
    assert main(["compare", *ARGUMENTS, "--explain=off", "--bundle=bundles"]) == 1

    (folder,) = Path("bundles").iterdir()
    assert about(folder)["explanation"] is None
    assert not (folder / "reduced").exists()
    assert reproduce(folder)[0] == 1


# --- engines ---


@pytest.fixture
def lab(project: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(**settings: Any) -> Lab:
        given = {"cache_dir": project / "cache", "bundle": Path("bundles"), "backend": ("fake",), **settings}
        made.append(Lab(Settings(**given), project))
        return made[-1]

    yield make
    for one in made:
        one.close()


def misfuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An engine that computes one node wrongly, in whichever graph the node is."""
    from pytest_trt.backends.fake import FakeBackend

    def misfused(self: FakeBackend, model: Model) -> Model:
        names = [node.name for node in model.proto.graph.node]
        self.faults["at"] = names.index(name) if name in names else 0
        return original(self, model) if name in names else model

    original = FakeBackend._misfused
    monkeypatch.setattr(FakeBackend, "_misfused", misfused)


@pytest.mark.parametrize("searched", [True, False])
def test_an_engine_is_reduced_by_its_own_backend(
    lab: Callable[..., Lab], project: Path, monkeypatch: pytest.MonkeyPatch, searched: bool
) -> None:
    write_chain(project / "models" / "chain", DEPTH, width=32, rows=16)
    misfuse(monkeypatch, "mul_3")
    subject = lab(fake="fusion=0.5")
    (case,) = subject.cases(subject.add("models/chain"))
    if searched:
        lines = subject.bundle(case, subject.bisect(case))
    else:
        with pytest.raises(AccuracyFailure, match="not close") as caught:
            subject.check(case, subject.record(case))
        lines = str(caught.value).splitlines()

    assert any(line.startswith("  reduced      1 of 18 nodes still fails: mul_3;") for line in lines), lines
    (folder,) = (project / "bundles").iterdir()
    code, said = reproduce(folder)
    why = "the backend fake runs in pytest-trt only: commands.txt, beside this script, has the line"
    assert (code, why in said) == (2, True)
    assert main(["compare", str(folder / "reduced"), "--backend=fake", "--fake=fusion=0.5"]) == 1


def test_a_piece_may_hold_the_infinities_that_the_whole_model_never_shows(
    lab: Callable[..., Lab], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project / "models" / "masked"
    folder.mkdir()
    nodes = [
        node("Relu", ["x"], ["r"], name="relu"),
        node("Log", ["r"], ["l"], name="log"),
        node("Exp", ["l"], ["y"], name="exp"),
    ]
    onnx.save(model(nodes, {"x": [16, 32]}, {"y": [16, 32]}), folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=weights(3, 16, 32))
    (folder / "trt.toml").write_text('[inputs]\nfile = "inputs.npz"\n')
    misfuse(monkeypatch, "log")
    subject = lab(fake="fusion=0.5")
    (case,) = subject.cases(subject.add("models/masked"))

    subject.bundle(case, subject.bisect(case))

    (folder,) = (project / "bundles").iterdir()
    reduced = folder / "reduced"
    assert [one.op_type for one in onnx.load(reduced / "model.onnx").graph.node] == ["Log"]
    assert np.isneginf(np.load(reduced / "expected.npz")["l"]).any()
    assert main(["compare", str(reduced), "--backend=fake"]) == 0
    assert main(["compare", str(reduced), "--backend=fake", "--fake=fusion=0.5"]) == 1


def test_samples_that_fail_only_together_are_all_stored(
    lab: Callable[..., Lab], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_trt.backends.fake import FakeSession

    compute = FakeSession.run
    first = np.load(project / "models" / "tiny" / "inputs.npz")["x"][:8]

    def right_on_the_first(self: FakeSession, feeds: Any) -> Any:
        factor = 1 if np.array_equal(feeds["x"], first) else 2
        return {name: array * factor for name, array in compute(self, feeds).items()}

    monkeypatch.setattr(FakeSession, "run", right_on_the_first)
    monkeypatch.setattr("pytest_trt.lab.explaining._SAMPLES", 1)
    subject = lab(profile=("b8",), shapes="opt")
    (case,) = subject.cases(subject.add("models/tiny"))
    with pytest.raises(AccuracyFailure) as caught:
        subject.check(case, subject.record(case))

    assert "close with 1 sample alone: all 2 are here" in str(caught.value)
    (folder,) = (project / "bundles").iterdir()
    assert about(folder)["samples"] == 2
    assert np.load(folder / "actual.npz")["y"].shape == (2, 8, 3)


def test_stored_outputs_go_along(lab: Callable[..., Lab], project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model itself is not what is expected: nothing that could be computed anew would say so."""
    folder = project / "models" / "tiny"
    manifest = folder / "trt.toml"
    manifest.write_text(manifest.read_text().replace("[inputs]", '[inputs]\nexpected = "expected.npz"'))
    np.savez(folder / "expected.npz", y=np.full((16, 3), 7, np.float32))
    subject = lab(profile=("b8",), backend=("onnxruntime-cpu",))
    (case,) = subject.cases(subject.add("models/tiny"))
    lines = subject.bundle(case, subject.bisect(case))

    assert "  note         not reduced: the culprit is reference, no piece of the graph" in lines
    (bundle,) = (project / "bundles").iterdir()
    assert (np.load(bundle / "expected.npz")["y"] == 7).all()
    assert reproduce(bundle)[0] == 1
    assert main(["compare", str(bundle), "--backend=onnxruntime-cpu"]) == 1
    assert "culprit      reference" in capsys.readouterr().out


def test_what_no_piece_can_show_is_not_reduced(lab: Callable[..., Lab], project: Path) -> None:
    subject = lab(fake="unstable=400000", profile=("b8",))
    (case,) = subject.cases(subject.add("models/tiny"))
    lines = subject.bundle(case, subject.bisect(case))

    assert "  note         not reduced: the culprit is run-to-run, no piece of the graph" in lines
    (folder,) = (project / "bundles").iterdir()
    assert not (folder / "reduced").exists()
