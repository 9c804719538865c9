"""Settings: what each option accepts, which source wins, and what is said about a value that is wrong."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_trt.errors import UsageError
from pytest_trt.settings import Option, Settings, as_text, as_words, options, unknown_variables

OPTIONS = {option.name: option for option in options()}

# Option -> three texts and their values; a zero wherever the option allows one.
VALUES: dict[str, list[tuple[str, Any]]] = {
    "precision": [("fp16,int8", ("fp16", "int8")), ("fp32", ("fp32",)), ("bf16", ("bf16",))],
    "tactics": [("+A", (("+A",),)), ("default", ((),)), ("-B", (("-B",),))],
    "seed": [("0", 0), ("7", 7), ("8", 8)],
    "samples": [("1", 1), ("2", 2), ("3", 3)],
    "threshold": [("3%", 0.03), ("0.2", 0.2), ("7%", 0.07)],
    "warmup": [("0", 0.0), ("1", 1.0), ("2.5", 2.5)],
    "opt_level": [("0", 0), ("3", 3), ("5", 5)],
    "workspace": [("0", 0), ("1GB", 10**9), ("5", 5)],
    "cache_size": [("0", 0), ("1KB", 1000), ("2MB", 2 * 10**6)],
    "cache": [("off", "off"), ("ro", "ro"), ("rw", "rw")],
    "cache_dir": [("a", Path("a")), ("b", Path("b")), ("c", Path("c"))],
    "inconclusive": [("fail", "fail"), ("warn", "warn"), ("fail", "fail")],
}


def resolve(
    cli: dict[str, Any] | None = None, env: dict[str, str] | None = None, ini: dict[str, str] | None = None
) -> Settings:
    return Settings.resolve(cli or {}, env or {}, ini or {})


@pytest.mark.parametrize("name", list(VALUES))
@pytest.mark.parametrize(
    "given_by", list(itertools.product([False, True], repeat=3)), ids=lambda g: "".join(map(str, map(int, g)))
)
def test_the_command_line_wins_over_the_environment_over_the_ini_file(name: str, given_by: tuple[bool, bool, bool]):
    option = OPTIONS[name]
    on_cli, in_env, in_ini = given_by
    (cli_text, cli), (env_text, env), (ini_text, ini) = VALUES[name]

    settings = Settings.resolve(
        {name: cli_text if on_cli else None},
        {option.variable: env_text} if in_env else {},
        {name: ini_text if in_ini else ""},
    )

    expected = cli if on_cli else env if in_env else ini if in_ini else option.default
    assert getattr(settings, name) == expected
    assert type(getattr(settings, name)) is type(expected)


def test_nothing_given_is_the_defaults():
    assert resolve() == Settings()
    assert {name: getattr(Settings(), name) for name in OPTIONS} == {n: o.default for n, o in OPTIONS.items()}


def test_a_zero_on_the_command_line_is_not_taken_for_nothing():
    settings = resolve({"warmup": "0", "opt_level": 0}, {"PYTEST_TRT_WARMUP": "3", "PYTEST_TRT_OPT_LEVEL": "5"})

    assert (settings.warmup, settings.opt_level) == (0.0, 0)


def test_an_empty_ini_key_is_not_given_but_an_empty_variable_is():
    assert resolve(ini={"precision": ""}).precision is None
    with pytest.raises(UsageError, match=r"^PYTEST_TRT_PRECISION: cannot use ''"):
        resolve(env={"PYTEST_TRT_PRECISION": ""}, ini={"precision": "fp32"})


@pytest.mark.parametrize(
    ("sources", "origin"),
    [
        ({"cli": {"opt_level": "9"}}, "--trt-opt-level"),
        ({"env": {"PYTEST_TRT_OPT_LEVEL": "9"}}, "PYTEST_TRT_OPT_LEVEL"),
        ({"ini": {"opt_level": "9"}}, "ini key trt_opt_level"),
    ],
)
def test_an_error_names_its_source_the_text_and_what_is_wanted(sources: dict[str, Any], origin: str):
    with pytest.raises(UsageError) as caught:
        resolve(**sources)

    assert str(caught.value) == f"{origin}: cannot use '9': a number from 0 to 5 is wanted"


def test_the_shell_has_its_own_flags():
    with pytest.raises(UsageError, match=r"^--seed: cannot use 'x'"):
        Settings.resolve({"seed": "x"}, {}, {}, flag=lambda option: option.short_flag)


def test_a_wrong_value_that_another_source_hides_is_not_read():
    assert resolve({"seed": "1"}, {"PYTEST_TRT_SEED": "x"}, {"seed": "y"}).seed == 1


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("precision", "", "at least one name"),
        ("precision", " , ,", "at least one name"),
        ("tactics", "EDGE", "'EDGE' is not +SOURCE or -SOURCE"),
        ("tactics", "+A,", "'' is not +SOURCE or -SOURCE"),
        ("tactics", "+A,+1", "'+1' is not +SOURCE or -SOURCE"),
        ("tactics", "+A;*B", "'*B' is not +SOURCE or -SOURCE"),
        ("cache", "wr", "one of off, ro, rw is wanted"),
        ("cache", "RW", "one of off, ro, rw is wanted"),
        ("cache_dir", "", "a path is wanted"),
        ("lean_runtime", " ", "a path is wanted"),
        ("report", "", "a path is wanted"),
        ("report", ".", "the path of a file is wanted"),
        ("markdown", "/", "the path of a file is wanted"),
        ("latency", "of", "did you mean 'off'?"),
        ("shapes", "corner", "one of opt, corners, all"),
        ("baseline", "stict", "did you mean 'strict'?"),
        ("inconclusive", "0", "'0': one of warn, fail is wanted"),
        ("update_baselines", "al", "did you mean 'all'?"),
        ("timing_cache", "true", "one of on, off is wanted"),
        ("warmup", "-0.1", "a number from 0 to 600 is wanted"),
        ("warmup", "601", "a number from 0 to 600 is wanted"),
        ("warmup", "nan", "a number from 0 to 600 is wanted"),
        ("warmup", "long", "a number is wanted"),
        ("duration", "0", "a number from 0.001 to 3600 is wanted"),
        ("opt_level", "6", "a number from 0 to 5 is wanted"),
        ("opt_level", "2.5", "a whole number is wanted"),
        ("samples", "0", "is wanted"),
        ("threshold", "0", "a share such as 5% or 0.05 is wanted"),
        ("threshold", "-5%", "a share such as 5% or 0.05 is wanted"),
        ("threshold", "nan", "a share such as 5% or 0.05 is wanted"),
        ("threshold", "inf", "a share such as 5% or 0.05 is wanted"),
        ("threshold", "5 percent", "a share such as 5% or 0.05 is wanted"),
        ("threshold", "3", "that is 300 %; 3% or 0.03 is wanted"),
        ("cache_size", "-1", "units are KB, MB, GB, B"),
        ("cache_size", "-1GB", "units are KB, MB, GB, B"),
        ("cache_size", "20GiB", "units are KB, MB, GB, B"),
        ("cache_size", "GB", "units are KB, MB, GB, B"),
        ("cache_size", "infGB", "units are KB, MB, GB, B"),
        ("cache_size", "nanGB", "units are KB, MB, GB, B"),
        ("graph", "opset=", "'opset=' is none of as-is, ort-basic, ort-extended, simplified, opset=N"),
        ("graph", "opset=²", "'opset=²' is none of"),
        ("graph", "opsett=17", "'opsett=17' is none of"),
        ("graph", "as-is,simplifed", "did you mean 'simplified'?"),
        ("shapes", "0", "a number of random points from 1 to 10000"),
        ("shapes", "10001", "a number of random points from 1 to 10000"),
        ("shapes", "²", "a number of random points from 1 to 10000"),
        ("sparsity", "yes", "on or off is wanted"),
        ("memory_pools", "TACTIC_DRAM", "POOL=SIZE is wanted"),
        ("memory_pools", "TACTIC_DRAM=", "POOL=SIZE is wanted"),
        ("memory_pools", "=1GB", "POOL=SIZE is wanted"),
        ("memory_pools", "TACTIC_DRAM=much", "units are KB, MB, GB, B"),
        ("builder_flags", "STRICT_NANS", "'STRICT_NANS' is not +NAME or -NAME"),
        ("builder_flags", "+STRICT_NANS,-", "'-' is not +NAME or -NAME"),
        ("io_formats", "x", "'x' is not TENSOR=LAYOUT or TENSOR=DTYPE:LAYOUT"),
        ("io_formats", "=CHW", "'=CHW' is not TENSOR=LAYOUT"),
        ("io_formats", "x=HALF:", "'x=HALF:' is not TENSOR=LAYOUT"),
        ("io_formats", "x=A:B:C", "'x=A:B:C' is not TENSOR=LAYOUT"),
        ("io_formats", "x=CHW,x=HWC8", "tensor 'x' is given twice"),
        ("workspace", "much", "units are KB, MB, GB, B"),
        ("workspace", "1.5", "units are KB, MB, GB, B"),
    ],
)
def test_values_that_are_refused(name: str, text: str, wanted: str):
    with pytest.raises(UsageError) as caught:
        resolve({name: text})

    assert str(caught.value).startswith(f"{OPTIONS[name].flag}: cannot use {text!r}: ")
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5%", 0.05),
        ("0.05", 0.05),
        ("0.5%", 0.005),
        ("200%", 2.0),
    ],
)
def test_shares(text: str, value: float):
    threshold = resolve({"threshold": text}).threshold
    assert threshold is not None
    assert math.isclose(threshold, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("123", 123),
        ("123B", 123),
        ("1kb", 1000),
        ("512MB", 512 * 10**6),
        ("1.5GB", 1_500_000_000),
        ("20 GB", 20 * 10**9),
    ],
)
def test_sizes(text: str, value: int):
    assert resolve({"cache_size": text}).cache_size == value


@given(count=st.integers(0, 10**6), unit=st.sampled_from([("B", 1), ("KB", 10**3), ("MB", 10**6), ("GB", 10**9)]))
def test_a_size_in_any_unit_is_its_bytes(count: int, unit: tuple[str, int]):
    assert resolve({"cache_size": f"{count}{unit[0]}"}).cache_size == count * unit[1]


@given(st.text(max_size=12))
def test_no_text_breaks_a_parser(text: str):
    """Whatever is typed gives a value or a UsageError that repeats it."""
    for option in OPTIONS.values():
        try:
            option.read(text, option.flag)
        except UsageError as error:
            assert repr(text) in str(error)  # noqa: PT017 - most texts are refused by some options only


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("default", ((),)),
        ("", ((),)),
        ("+A", (("+A",),)),
        ("+A,-B", (("+A", "-B"),)),
        (" +A , -B ; default ", (("+A", "-B"), ())),
        ("-JIT_CONVOLUTIONS;;", (("-JIT_CONVOLUTIONS",), ())),
        ("+A;default;+A", (("+A",), ())),
    ],
)
def test_tactic_sets(text: str, sets: tuple[tuple[str, ...], ...]):
    assert resolve({"tactics": text}).tactics == sets


@pytest.mark.parametrize(
    ("name", "text", "value", "words"),
    [
        ("graph", "as-is,opset=17", ("as-is", "opset=17"), "as-is,opset=17"),
        ("shapes", "all", "all", "all"),
        ("shapes", "10000", 10_000, "10000"),
        ("sparsity", "ON", True, "on"),
        ("sparsity", "true", True, "on"),
        ("sparsity", "False", False, "off"),
        ("memory_pools", "DLA_SRAM=1MB,A=5", (("A", 5), ("DLA_SRAM", 10**6)), "A=5,DLA_SRAM=1000000"),
        ("builder_flags", "+A, -B", ("+A", "-B"), "+A,-B"),
        ("io_formats", "x=chw16,a=b=half:linear", ("x=CHW16", "a=b=HALF:LINEAR"), "x=CHW16,a=b=HALF:LINEAR"),
        ("plugins", "a.so,b/c.so", (Path("a.so"), Path("b/c.so")), "a.so,b/c.so"),
    ],
)
def test_a_value_in_words_is_read_as_itself(name: str, text: str, value: Any, words: str):
    option = OPTIONS[name]

    assert option.read(text, option.flag) == value
    assert as_words(value) == words
    assert option.read(words, option.flag) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "on"),
        (False, "off"),
        (["a", 1], "a,1"),
        ({"A": "1GB", "B": True}, "A=1GB,B=on"),
        (0.5, "0.5"),
        ("x", "x"),
    ],
)
def test_a_value_of_toml_is_what_the_command_line_would_say(value: Any, text: str):
    assert as_text(value) == text


def test_names_are_trimmed_and_kept_once():
    assert resolve({"precision": " fp16, fp32 ,,fp16"}).precision == ("fp16", "fp32")


@given(st.lists(st.sampled_from("abcd"), min_size=1))
def test_the_order_of_names_is_the_order_given(names: list[str]):
    assert resolve({"profile": ",".join(names)}).profile == tuple(dict.fromkeys(names))


@pytest.mark.parametrize("mode", ["renamed", "orphaned", "failed", "all", "anchor"])
def test_changing_baselines_needs_a_reason(mode: str):
    with pytest.raises(UsageError, match=rf"changing baselines \({mode}\) needs a reason") as caught:
        resolve({"update_baselines": mode, "reason": " "})
    assert caught.value.hint == 'add --trt-reason="why it is right"'

    assert resolve({"update_baselines": mode, "reason": "new kernel"}).reason == "new kernel"


def test_new_baselines_need_no_reason():
    assert resolve({"update_baselines": "new"}).update_baselines == "new"


def test_evolve_changes_a_copy():
    settings = resolve({"seed": "3"})

    assert settings.evolve(warmup=0.0) == resolve({"seed": "3", "warmup": "0"})
    assert settings == resolve({"seed": "3"})


def test_the_names_of_an_option_follow_from_its_own():
    option = Option("cache_dir", str, None, "DIR", "somewhere", "cache")

    assert option.flag == "--trt-cache-dir"
    assert option.short_flag == "--cache-dir"
    assert option.variable == "PYTEST_TRT_CACHE_DIR"
    assert option.ini == "trt_cache_dir"
    assert option.flags() == ("--trt-cache-dir",)


def test_plugin_libraries_have_two_spellings_on_the_command_line():
    option = OPTIONS["plugins"]

    assert (option.flags(), option.flag) == (("--trt-plugin", "--trt-plugins"), "--trt-plugin")
    assert (option.flags("--"), option.short_flag) == (("--plugin", "--plugins"), "--plugin")
    assert (option.variable, option.ini) == ("PYTEST_TRT_PLUGINS", "trt_plugins")


@pytest.mark.parametrize("option", list(OPTIONS.values()), ids=list(OPTIONS))
def test_help_is_a_lowercase_sentence_without_a_full_stop(option: Option):
    assert option.help[0] == option.help[0].lower() or option.help.startswith(("TensorRT", "SHA-256", "GPUs"))
    assert not option.help.endswith(".")
    assert option.metavar
    assert option.group in {"matrix", "accuracy", "latency", "baselines", "cache", "build", "report"}


def test_a_misspelt_variable_is_pointed_out():
    environ = {
        "PYTEST_TRT_PRECISON": "fp16",
        "PYTEST_TRT_CACHE_DIR": "/x",
        "PYTEST_TRTX": "1",
        "PYTEST_ADDOPTS": "-v",
        "pytest_trt_seed": "1",
    }

    assert unknown_variables(environ) == {"PYTEST_TRT_PRECISON": "did you mean 'PYTEST_TRT_PRECISION'?"}


def test_a_variable_like_no_other_gets_the_list():
    assert unknown_variables({"PYTEST_TRT_ZZZZZZZZZZZZZZZ": ""})["PYTEST_TRT_ZZZZZZZZZZZZZZZ"].startswith("known: ")


def test_libraries_of_the_ini_file_count_from_its_folder(tmp_path: Path):
    ini = {"plugins": "lib/a.so,lib/b.so", "lean_runtime": "lib/lean.so"}
    found = Settings.resolve({}, {}, ini, ini_root=tmp_path)

    assert found.plugins == (tmp_path / "lib/a.so", tmp_path / "lib/b.so")
    assert found.lean_runtime == tmp_path / "lib/lean.so"
    assert Settings.resolve({"plugins": "lib/a.so"}, {}, ini, ini_root=tmp_path).plugins == (Path("lib/a.so"),)
