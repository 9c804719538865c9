"""Commands of trtexec and Polygraphy for a request: exact lines, and nothing of a request lost in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from networks import FLOAT, INT64, model, node

from pytest_trt.backends import BuildOptions, BuildRequest, Calibration
from pytest_trt.backends.tensorrt.command_lines import CommandLine, polygraphy_command, trtexec_command
from pytest_trt.spec.model import Model
from pytest_trt.spec.precision import Precision, get_precision
from pytest_trt.spec.shapes import Profile

V8, V10, V10_16, V11 = (8, 6, 0), (10, 0, 1), (10, 16, 1), (11, 4, 0)
VERSIONS = (V8, V10, V10_16, V11)
TOOLS = {"trtexec": trtexec_command, "polygraphy": polygraphy_command}

B8 = Profile.parse("b8", "x=1x4:8x4:16x4")
B32 = Profile.parse("b32", "x=1x4:32x4:64x4")

TIMING = ("--useCudaGraph", "--useSpinWait", "--noDataTransfers")
SHAPES = ("--minShapes=x:1x4", "--optShapes=x:8x4", "--maxShapes=x:16x4")


def network(rows: int | str = "N", name: str = "x") -> Model:
    """Inputs x float32 [rows, 4] and i int64 [2]; outputs y float32 and j int64."""
    nodes = [node("Relu", [name], ["y"], name="relu"), node("Identity", ["i"], ["j"], name="same")]
    proto = model(nodes, {name: (FLOAT, [rows, 4]), "i": (INT64, [2])}, {"y": [rows, 4], "j": (INT64, [2])})
    return Model.from_proto(proto, "net")


def request(precision: str = "fp32", **options: Any) -> BuildRequest:
    return BuildRequest(network(), get_precision(precision), B8, BuildOptions(**options))


def trtexec(asked: BuildRequest, version: tuple[int, ...], **files: Any) -> CommandLine:
    return trtexec_command(asked, version, onnx="m.onnx", plan="m.plan", **files)


def polygraphy(asked: BuildRequest, version: tuple[int, ...], **files: Any) -> CommandLine:
    return polygraphy_command(asked, version, onnx="m.onnx", plan="m.plan", **files)


def tail(line: CommandLine) -> tuple[str, ...]:
    """The words after files and shapes of a trtexec line."""
    start = ("trtexec", "--onnx=m.onnx", "--saveEngine=m.plan", *SHAPES)
    assert line.words[: len(start)] == start
    return line.words[len(start) :]


@pytest.mark.parametrize(
    ("precision", "version", "words"),
    [
        ("fp32", V8, ("--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)),
        ("fp32", V11, ("--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed")),
        ("tf32", V8, ("--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)),
        ("tf32", V11, ("--avgTiming=1", "--profilingVerbosity=detailed")),
        ("fp16", V8, ("--fp16", "--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)),
        ("fp16", V10, ("--stronglyTyped", "--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)),
        ("int8", V8, ("--int8", "--fp16", "--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)),
        ("int8", V10_16, ("--stronglyTyped", "--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)),
        ("int8", V11, ("--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed")),
    ],
)
def test_trtexec_says_a_precision_in_the_words_of_its_release(precision, version, words):
    line = trtexec(request(precision), version)

    assert tail(line) == words
    assert line.notes == ()


def test_a_trtexec_line_with_many_options():
    asked = request(
        "fp16",
        typing="weak",
        workspace=3 << 29,
        memory_pools=(("TACTIC_SHARED_MEMORY", 49152),),
        opt_level=5,
        tactics=("+EDGE_MASK_CONVOLUTIONS", "-JIT_CONVOLUTIONS"),
        sparsity=True,
        max_aux_streams=0,
        tiling="moderate",
        max_tactics=7,
        avg_timing=4,
        refit="on",
        hardware_compatibility="ampere-plus",
        version_compatibility="exclude-lean",
        lean_runtime=Path("lean.so"),
        plugins=(Path("a.so"), Path("b.so")),
        io_formats=("x=HALF:CHW16",),
        builder_flags=("+MONITOR_MEMORY",),
        timing_cache_miss="error",
    )
    line = trtexec(asked, V10_16, timing_cache="t.cache")

    assert line.notes == ()
    assert tail(line) == (
        "--fp16", "--noTF32", "--sparsity=enable", "--memPoolSize=workspace:1536,tacticSharedMem:48K",
        "--builderOptimizationLevel=5", "--tacticSources=+EDGE_MASK_CONVOLUTIONS,-JIT_CONVOLUTIONS",
        "--tilingOptimizationLevel=2", "--maxTactics=7", "--avgTiming=4", "--maxAuxStreams=0", "--refit",
        "--hardwareCompatibilityLevel=ampere+", "--versionCompatible", "--excludeLeanRuntime", "--leanDLLPath=lean.so",
        "--dynamicPlugins=a.so", "--dynamicPlugins=b.so", "--inputIOFormats=fp16:chw16,int64:chw",
        "--timingCacheFile=t.cache", "--errorOnTimingCacheMiss", "--monitorMemory", "--profilingVerbosity=detailed",
        *TIMING,
    )  # fmt: skip


def test_what_an_old_trtexec_cannot_say_is_noted():
    asked = request(
        "bf16", max_tactics=7, tiling="full", builder_flags=("+MONITOR_MEMORY", "-REJECT_EMPTY_ALGORITHMS"), dla=0
    )
    line = trtexec(asked, V8)

    assert tail(line) == ("--noTF32", "--avgTiming=1", "--profilingVerbosity=detailed", *TIMING)
    assert line.notes == (
        "trtexec 8.6 has no flag for BF16",
        "trtexec 8.6 has no flag for tiling",
        "trtexec 8.6 has no flag for max_tactics",
        "trtexec 8.6 has no flag for builder_flags +MONITOR_MEMORY",
        "trtexec 8.6 has no flag for builder_flags -REJECT_EMPTY_ALGORITHMS",
        "dla: engines for DLA are not built here; trtexec does it with --useDLACore",
    )


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_a_major_version_alone_is_its_first_release(precision, tool):
    for major, release in (((8,), V8), ((10,), V10), ((11,), (11, 0))):
        short, full = (TOOLS[tool](request(precision), v, onnx="m.onnx", plan="m.plan") for v in (major, release))
        assert short == full


# A value of each option that no release takes for its default.
VALUES: dict[str, Any] = {
    "workspace": 1 << 30,
    "memory_pools": (("TACTIC_DRAM", 1 << 30),),
    "opt_level": 3,
    "tactics": ("-JIT_CONVOLUTIONS",),
    "sparsity": True,
    "max_aux_streams": 0,
    "tiling": "full",
    "max_tactics": 7,
    "avg_timing": 4,
    "refit": "individual",
    "strip_plan": True,
    "weight_streaming": True,
    "hardware_compatibility": "same-capability",
    "version_compatibility": "exclude-lean",
    "lean_runtime": Path("lean.so"),
    "plugins": (Path("a.so"),),
    "io_formats": ("x=CHW16",),
    "builder_flags": ("+STRICT_NANS",),
    "timing_cache_miss": "error",
    "editable_timing_cache": True,
    "dla": 0,
}


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: ".".join(map(str, v)))
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", BuildOptions.names())
def test_each_option_is_in_the_words_or_in_the_notes(name, tool, version):
    plain = request()
    if name == "typing":
        asked = request(typing="weak" if version >= (10,) else "strong")
    elif name == "profiles_per_engine":
        asked = replace(request(profiles_per_engine="all"), profiles=(B8, B32))
    else:
        asked = request(**{name: VALUES[name]})
    before, after = (TOOLS[tool](a, version, onnx="m.onnx", plan="m.plan") for a in (plain, asked))

    assert set(after.words) | set(after.notes) != set(before.words) | set(before.notes)


@pytest.mark.parametrize("tool", TOOLS)
def test_options_at_their_defaults_add_nothing(tool):
    asked = request(
        sparsity=False, refit="off", strip_plan=False, weight_streaming=False, version_compatibility="off",
        timing_cache_miss="build", editable_timing_cache=False, tiling="none", hardware_compatibility="none",
    )  # fmt: skip
    for version in VERSIONS:
        before, after = (TOOLS[tool](a, version, onnx="m.onnx", plan="m.plan") for a in (request(), asked))
        extra = {"--sparsity=disable", "--hardwareCompatibilityLevel=none", "--tilingOptimizationLevel=0"}
        extra |= {"--hardware-compatibility-level", "--tiling-optimization-level", "none"}

        assert set(after.words) - set(before.words) <= extra
        assert after.notes == before.notes == ()


@pytest.mark.parametrize("index", [0, 1])
def test_each_profile_is_followed_by_its_shapes(index):
    asked = replace(request(), profile=(B8, B32)[index], profiles=(B8, B32))
    words = trtexec(asked, V10).words

    assert words[3:12] == (
        "--profile=0", *SHAPES,
        "--profile=1", "--minShapes=x:1x4", "--optShapes=x:32x4", "--maxShapes=x:64x4", f"--useProfile={index}",
    )  # fmt: skip


def test_trtexec_8_has_one_profile_and_says_which():
    line = trtexec(replace(request(), profile=B32, profiles=(B8, B32)), V8)

    assert line.words[3:6] == ("--minShapes=x:1x4", "--optShapes=x:32x4", "--maxShapes=x:64x4")
    assert line.notes == ("trtexec 8.6 builds one profile; this line has 'b32' alone",)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_static_model_takes_no_shapes(tool):
    asked = replace(request(), model=network(rows=8), profiles=(B8, B32))
    for version in VERSIONS:
        line = TOOLS[tool](asked, version, onnx="m.onnx", plan="m.plan")

        assert not [word for word in line.words if "hapes" in word or "rofile=" in word]


@pytest.mark.parametrize("name", ["a,b", "it's", "a*"])
def test_an_input_that_trtexec_cannot_name_is_noted(name):
    asked = BuildRequest(network(name=name), get_precision("fp32"), Profile.fixed("p", {name: (1, 4)}))
    line = trtexec(asked, V10)

    assert not [word for word in line.words if "hapes" in word]
    assert line.notes == (f"trtexec cannot be told the shape of an input called {name!r}",)


@pytest.mark.parametrize(
    ("version", "pool"),
    [(V10, "tacticSharedMem:48"), (V10_16, "tacticSharedMem:48K"), (V11, "tacticSharedMem:48K"), (V8, None)],
)
def test_shared_memory_is_in_the_unit_of_the_release(version, pool):
    line = trtexec(request(memory_pools=(("TACTIC_SHARED_MEMORY", 48 << 10),)), version)

    assert [word for word in line.words if "memPool" in word] == ([f"--memPoolSize={pool}"] if pool else [])
    assert line.notes == (() if pool else ("trtexec 8.6 has no flag for memory_pools TACTIC_SHARED_MEMORY",))


@pytest.mark.parametrize("version", VERSIONS)
def test_workspace_is_in_mebibytes_and_exact(version):
    for size, text in ((1 << 30, "1024"), (1 << 19, "0.5"), (1_000_000_001, "953.6743173599243")):
        assert f"--memPoolSize=workspace:{text}" in trtexec(request(workspace=size), version).words
        assert int(float(text) * 2**20) == size


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (V8, ["--inputIOFormats=fp32:chw4,int32:chw", "--outputIOFormats=fp32:chw,int32:chw"]),
        (V10, ["--inputIOFormats=fp32:chw4,int64:chw", "--outputIOFormats=fp32:chw,int64:chw"]),
        (V11, ["--inputIOFormats=chw4,chw", "--outputIOFormats=chw,chw"]),
    ],
)
def test_trtexec_wants_a_format_for_every_tensor_of_a_side(version, words):
    line = trtexec(request(io_formats=("x=CHW4", "j=LINEAR")), version)

    assert [word for word in line.words if "IOFormats" in word] == words
    assert line.notes == ()


def test_formats_that_trtexec_does_not_know_are_noted():
    asked = request(io_formats=("x=BF16:HWC16", "y=UINT8:LINEAR", "z=LINEAR"))

    assert not [word for word in trtexec(asked, V8).words if "IOFormats" in word]
    assert trtexec(asked, V8).notes == (
        "io_formats: the model has no input or output 'z'",
        "trtexec 8.6 has no flag for io_formats HWC16",
        "trtexec 8.6 has no flag for an input or output of type UINT8 ('y')",
    )
    assert trtexec(asked, V11).notes == (
        "io_formats: the model has no input or output 'z'",
        "io_formats: 'x' stays FLOAT, the type that the model gives it",
        "io_formats: 'y' stays FLOAT, the type that the model gives it",
    )


def test_a_plan_without_weights_is_built_and_not_timed():
    line = trtexec(request(strip_plan=True, refit="identical"), V10_16)

    assert tail(line)[-4:] == ("--avgTiming=1", "--stripWeights", "--profilingVerbosity=detailed", "--skipInference")
    assert line.notes == ("the plan has no weights: trtexec builds it and does not time it",)
    assert "--refit" in trtexec(request(strip_plan=True, refit="on"), V10_16).words
    assert trtexec(request(refit="identical"), V10_16).notes == ("trtexec 10.16 has no flag for refit=identical",)


def test_a_library_source_that_11_has_no_more_is_left_out():
    asked = request(tactics=("+CUBLAS", "-JIT_CONVOLUTIONS", "-CUDNN"))
    line, other = trtexec(asked, V11), polygraphy(asked, V11)

    assert "--tacticSources=-JIT_CONVOLUTIONS" in line.words
    assert other.words[-2:] == ("--tactic-sources", "edge_mask_convolutions")
    for tool, notes in (("trtexec 11.4", line.notes), ("polygraphy with TensorRT 11.4", other.notes)):
        assert notes == (f"{tool} has no flag for tactics +CUBLAS", f"{tool} has no flag for tactics -CUDNN")
    assert "--tactic-sources" not in polygraphy(request(tactics=("+CUBLAS",)), V11).words


@pytest.mark.parametrize("tool", TOOLS)
def test_an_error_on_a_timing_cache_miss_wants_the_timing_cache(tool):
    asked, files = request(timing_cache_miss="error"), {"onnx": "m.onnx", "plan": "m.plan"}
    (note,) = TOOLS[tool](asked, V10, **files).notes

    flag = {"trtexec": "--timingCacheFile=FILE", "polygraphy": "--load-timing-cache FILE"}[tool]
    assert note.startswith(f"timing_cache_miss=error: add {flag}")
    assert TOOLS[tool](asked, V10, **files, timing_cache="t.cache").notes == ()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_model_of_too_new_an_opset_is_noted(tool):
    def notes(opset: int, version: tuple[int, ...]) -> tuple[str, ...]:
        asked = request()
        asked.model.proto.opset_import[0].version = opset
        return TOOLS[tool](asked, version, onnx="m.onnx", plan="m.plan").notes

    assert notes(17, V8) == notes(19, V10) == notes(25, V11) == ()
    assert notes(19, V8)[0].startswith("the model uses opset 19; TensorRT 8.6 reads up to opset 17, and may leave out")
    assert "reads up to opset 25" in notes(26, V11)[0]


def test_implicit_calibration_brings_its_cache():
    asked = replace(request("fp32"), calibration=Calibration("entropy2", (), "f"))

    for version in (V8, V10_16):
        line = trtexec(asked, version, calibration_cache="c.cache")
        assert tail(line)[:3] == ("--int8", "--calib=c.cache", "--noTF32")
        assert line.notes == ()
    assert "--calib" in trtexec(asked, V8).notes[0]
    assert trtexec(asked, V11).notes == ("calibration: TensorRT 11 has none; quantize the model with Q/DQ instead",)
    other = replace(asked, calibration=Calibration("minmax", (), "f"))
    assert "entropy2" in trtexec(other, V8, calibration_cache="c.cache").notes[0]
    assert "IInt8MinMaxCalibrator" in polygraphy(other, V8, calibration_cache="c.cache").words


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_an_fp8_that_8_cannot_use_is_noted(tool):
    asked = request("fp8")
    notes = [tool(asked, version, onnx="m.onnx", plan="m.plan").notes for version in VERSIONS]

    assert notes == [("FP8: TensorRT 8.6 has a flag of this name, and cannot use it yet",), (), (), ()]


def test_types_without_a_flag_are_noted():
    asked = replace(request(typing="weak"), precision=Precision("fp4", "casts:Fp32Recipe", ("FP4", "INT4")))

    assert trtexec(asked, V10).notes == (
        "trtexec 10.0 has no flag for FP4",
        "trtexec 10.0 has no flag for INT4",
    )
    assert "--int4" in trtexec(asked, V10_16).words
    assert trtexec(asked, V11).notes == ("typing=weak: TensorRT 11 has strongly typed networks only",)


def test_a_line_is_quoted_for_a_shell():
    line = trtexec_command(request(), V11, onnx="my model.onnx", plan="m.plan")

    assert str(line).startswith("trtexec '--onnx=my model.onnx' --saveEngine=m.plan --minShapes=x:1x4")


@pytest.mark.parametrize(
    ("precision", "version", "words"),
    [
        ("fp32", V8, ()),
        ("tf32", V8, ("--tf32",)),
        ("fp16", V8, ("--fp16",)),
        ("int8", V8, ("--int8", "--fp16")),
        ("fp16", V10, ("--strongly-typed",)),
        ("tf32", V11, ("--strongly-typed", "--tf32")),
    ],
)
def test_polygraphy_turns_tf32_off_unless_it_is_asked(precision, version, words):
    line = polygraphy(request(precision), version)

    assert line.words == (
        "polygraphy", "convert", "m.onnx", "--convert-to", "trt", "-o", "m.plan", "--trt-min-shapes", "x:[1,4]",
        "--trt-opt-shapes", "x:[8,4]", "--trt-max-shapes", "x:[16,4]", *words,
    )  # fmt: skip
    assert line.notes == ()


def sources(version: tuple[int, ...], *tactics: str) -> list[str]:
    words = polygraphy(request(tactics=tactics), version).words
    return list(words[words.index("--tactic-sources") + 1 :])


def test_polygraphy_gets_the_tactic_sources_that_are_left():
    assert sources(V8, "-CUDNN") == ["cublas", "cublas_lt", "edge_mask_convolutions", "jit_convolutions"]
    assert sources(V10, "+CUDNN", "-JIT_CONVOLUTIONS") == ["edge_mask_convolutions", "cudnn"]
    assert sources(V11, "-JIT_CONVOLUTIONS", "-EDGE_MASK_CONVOLUTIONS") == []


def test_a_memory_pool_that_8_does_not_have_is_noted():
    line = polygraphy(request(memory_pools=(("TACTIC_SHARED_MEMORY", 5),)), V8)

    assert "--pool-limit" not in line.words
    assert line.notes == ("polygraphy with TensorRT 8.6 has no flag for memory_pools TACTIC_SHARED_MEMORY",)


def parsed(line: CommandLine) -> Any:
    """The tool that Polygraphy's own parser makes of a line; nothing is run."""
    convert = pytest.importorskip("polygraphy.tools.convert.convert").Convert()
    assert line.words[:2] == ("polygraphy", "convert")
    namespace = convert.setup_parser().parse_args(list(line.words[2:]))  # exits at a word that it does not know
    convert.parse(namespace)
    return convert


def test_polygraphy_reads_what_is_meant():
    arguments = pytest.importorskip("polygraphy.tools.args")
    asked = request(
        "fp16", typing="weak", workspace=3 << 29, memory_pools=(("TACTIC_DRAM", 5),), opt_level=5,
        tactics=("-JIT_CONVOLUTIONS",), sparsity=True, max_aux_streams=0, tiling="moderate", refit="on",
        hardware_compatibility="same-capability", version_compatibility="exclude-lean", plugins=(Path("a.so"),),
        io_formats=("x=HALF:CHW16", "y=CHW4"), builder_flags=("+DIRECT_IO", "+OBEY_PRECISION_CONSTRAINTS"),
        timing_cache_miss="error",
    )  # fmt: skip
    line = polygraphy(replace(asked, profiles=(B8, B32)), V10_16, timing_cache="t.cache")
    tool = parsed(line)
    config, net = (tool.arg_groups[group] for group in (arguments.TrtConfigArgs, arguments.TrtLoadNetworkArgs))

    assert line.notes == ()
    assert [{k: [tuple(s) for s in v] for k, v in p.items()} for p in config.profile_dicts] == [
        {"x": [(1, 4), (8, 4), (16, 4)]},
        {"x": [(1, 4), (32, 4), (64, 4)]},
    ]
    assert (config.fp16, config.int8, config.tf32, config.sparse_weights) == (True, None, None, True)
    assert {str(k): v for k, v in config.memory_pool_limits.items()} == {
        "trt.MemoryPoolType.WORKSPACE": 3 << 29,
        "trt.MemoryPoolType.TACTIC_DRAM": 5,
    }
    assert [str(s) for s in config.tactic_sources] == ["trt.TacticSource.EDGE_MASK_CONVOLUTIONS"]
    assert (config.builder_optimization_level, config.max_aux_streams, config.refittable) == (5, 0, True)
    assert str(config.tiling_optimization_level) == "trt.TilingOptimizationLevel.MODERATE"
    assert str(config.hardware_compatibility_level) == "trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"
    assert (config.version_compatible, config.exclude_lean_runtime, config.direct_io) == (True, True, True)
    assert (config.precision_constraints, config.error_on_timing_cache_miss) == ("obey", True)
    assert config.load_timing_cache == "t.cache"
    assert {k: [str(f) for f in v] for k, v in net.tensor_formats.items()} == {
        "x": ["trt.TensorFormat.CHW16"],
        "y": ["trt.TensorFormat.CHW4"],
    }
    assert {k: str(v) for k, v in net.tensor_datatypes.items()} == {"x": "trt.float16"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", sorted(VALUES))
def test_polygraphy_knows_every_word(name, version):
    parsed(polygraphy(request(**{name: VALUES[name]}), version, timing_cache="t.cache"))


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_polygraphy_knows_the_words_of_each_precision(precision):
    for version in VERSIONS:
        calibrated = replace(request(precision), calibration=Calibration("legacy", (), "f"))
        for asked in (request(precision), request(precision, typing="weak"), calibrated):
            parsed(polygraphy(asked, version, calibration_cache="c.cache"))
