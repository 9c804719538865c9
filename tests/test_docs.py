"""The documentation says what is true: tables, links, examples, and every name of ours that it mentions."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from project import write_model

import pytest_trt
from pytest_trt.accuracy.tolerance import FIELDS, ToleranceSet, default_tolerance
from pytest_trt.baselines.waivers import read_waivers
from pytest_trt.cli import _parser
from pytest_trt.plugin import fixtures
from pytest_trt.settings import options
from pytest_trt.spec import manifest_schema
from pytest_trt.spec.manifest import Manifest
from pytest_trt.spec.metrics import KEYS as METRIC_KEYS
from pytest_trt.spec.precision import get_precision

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.yml"))
# Rendered from records by ``pytest-trt report``; only its links are ours to check.
WRITTEN = [page for page in PAGES if page.name != "gpu-results.md"]


class Block(NamedTuple):
    """A fenced block. ``place`` is ``FILE:LINE``."""

    place: str
    language: str
    text: str


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[Block]:
    found = []
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(f"{page_id(page)}:{line}", match[1], match[2]))
    assert found, f"no {language} block is left to check"
    return found


def prose(text: str) -> str:
    """*text* without its fenced blocks, in which ``[a](b)`` is no link and ``#`` no heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py, which is no package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- generated blocks ---------------------------------------------------------------------------------------------


def test_generated_blocks_are_current(generate: ModuleType) -> None:
    assert generate.outdated() == [], "run: python docs/generate.py"


def test_an_outdated_block_is_found_and_rewritten(generate: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for relative in generate.BLOCKS:
        (tmp_path / relative).write_text((ROOT / relative).read_text(encoding="utf-8"), encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8").replace("--trt-warmup=", "--trt-warmpu="), encoding="utf-8")

    assert generate.outdated(tmp_path) == ["README.md"]
    assert generate.outdated(tmp_path, write=True) == ["README.md"]
    assert generate.outdated(tmp_path) == []


def test_a_lost_marker_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="'options' stands there 0 times"):
        generate.rewritten("no block", "options", "x")


# --- links --------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of *page*."""
    titles = re.findall(r"^#{1,6} (.+)$", prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_the_index_links_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")

    missing = [page.name for page in PAGES if page.parent.name == "docs" and f"]({page.name})" not in index]

    assert missing == ["index.md"]


# --- examples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b for b in blocks("toml") if "[[waiver]]" in b.text], ids=lambda block: block.place)
def test_waivers_are_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "waivers.toml").write_text(block.text, encoding="utf-8")

    assert read_waivers(tmp_path)


@pytest.mark.parametrize(
    "block", [b for b in blocks("toml") if "[[waiver]]" not in b.text], ids=lambda block: block.place
)
def test_manifests_are_read(block: Block, tmp_path: Path) -> None:
    (tmp_path / "trt.toml").write_text(block.text, encoding="utf-8")

    for variant in [None, *tomllib.loads(block.text).get("variants", {})]:
        manifest = Manifest.load(tmp_path / "trt.toml", variant)
        for precision, limits in manifest.tolerance.items():
            ToleranceSet(default_tolerance(precision)).merged(limits, block.place)
        for precision, given in manifest.precision.items():
            recipe = {k: v for k, v in given.items() if k not in ("calibration", "percentile", "samples")}
            get_precision(precision).make_recipe(**recipe)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_python_compiles(block: Block) -> None:
    compile(block.text, block.place, "exec")


def test_the_readme_s_test_runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = (b for b in blocks("python") if b.place.startswith("README.md") and "@pytest.mark.trt" in b.text)
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(pytester.path / "cache"))
    monkeypatch.setenv("PYTEST_TRT_WARMUP", "0")
    monkeypatch.setenv("PYTEST_TRT_DURATION", "0.001")
    pytester.makeini("[pytest]\n")
    write_model(pytester.path / "models" / "digits")
    pytester.makepyfile(test_readme=example.text)

    result = pytester.runpytest(
        "test_readme.py", "--trt-backend=fake", "--trt-precision=fp32,fp16", "-p", "no:randomly", "-v"
    )

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_digits[[]fp32-b8-fake] PASSED*", "*test_digits[[]fp16-b8-fake] PASSED*"])


def test_the_comparison_from_python_runs() -> None:
    (example,) = (b for b in blocks("python") if "from pytest_trt import compare" in b.text)

    exec(compile(example.text, example.place, "exec"), {})


@pytest.mark.parametrize("fault", [0, 9])
def test_the_search_of_one_s_own_runs(
    fault: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the engine as it is, and on one that is wrong for batches above 5: Hypothesis ends with the smallest one."""
    from pytest_trt.backends.fake import FakeSession

    (example,) = (b for b in blocks("python") if "strategies.target(" in b.text)
    monkeypatch.setenv("PYTEST_TRT_CACHE_DIR", str(pytester.path / "cache"))
    pytester.makeini("[pytest]\n")
    shutil.copytree(ROOT / "models" / "digits", pytester.path / "models" / "digits")
    pytester.makepyfile(test_own=example.text)
    sound = FakeSession.run

    def run(self: FakeSession, feeds: Any) -> Any:
        return {n: array + fault * (feeds["image"].shape[0] > 5) for n, array in sound(self, feeds).items()}

    monkeypatch.setattr(FakeSession, "run", run)
    result = pytester.runpytest(
        "test_own.py", "--trt-backend=fake", "-p", "no:randomly", "-p", "no:cacheprovider", "--hypothesis-seed=1"
    )

    result.assert_outcomes(passed=int(not fault), failed=int(bool(fault)))
    if fault:
        result.stdout.fnmatch_lines(["*{'image': (6, 1, 8, 8)}*"])


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """Every line of *program* in a shell block, as words, with where it stands."""
    for block in blocks("sh"):
        for number, line in enumerate(block.text.splitlines(), 1):
            words = shlex.split(line, comments=True)
            if words and words[0] == program:
                yield f"{block.place}+{number}", words[1:]


def test_commands_of_the_shell_are_understood() -> None:
    found = list(commands("pytest-trt"))
    for place, words in found:
        try:
            _parser().parse_args(words)
        except SystemExit:
            pytest.fail(f"{place}: pytest-trt {' '.join(words)} is refused")
    assert len(found) >= 8


# --- names --------------------------------------------------------------------------------------------------------


def subcommands() -> set[str]:
    (action,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return set(action.choices)


def fixture_docs() -> dict[str, str | None]:
    """Name and docstring of every fixture of the plugin, from its source."""
    tree = ast.parse(Path(fixtures.__file__).read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(d).startswith("pytest.fixture") for d in node.decorator_list)
    }


INI_KEYS = {option.ini for option in options()} | {"trt_models"}
FLAGS = {flag for option in options() for flag in option.flags()}


@pytest.mark.parametrize("page", [*WRITTEN, *EXAMPLES], ids=page_id)
def test_every_option_command_variable_and_fixture_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)])
    if page.suffix == ".yml":
        code = text

    unknown = set(re.findall(r"--trt-[a-z0-9]+(?:-[a-z0-9]+)*", text)) - FLAGS
    unknown |= set(re.findall(r"PYTEST_TRT_[A-Z_]+", text)) - {option.variable for option in options()}
    unknown |= set(re.findall(r"(?<![\w.-])trt_[a-z_]+", text)) - fixture_docs().keys() - INI_KEYS
    unknown |= set(re.findall(r"(?<![\w\[/-])pytest-trt ([a-z]+)", code)) - subcommands()

    assert not unknown


def test_every_fixture_is_documented() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert {name for name, doc in fixture_docs().items() if not doc} == set()
    assert {name for name in fixture_docs() if f"| `{name}` |" not in readme} == set()


def test_every_key_of_the_manifest_is_documented() -> None:
    page = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## `\[(\w+)[^\n]*\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    schema = manifest_schema._SCHEMA

    missing = [f"{t}.{k}" for t in ("model", "inputs") for k in schema[t] if f"| `{k}` |" not in sections[t]]
    missing += [
        f"{t}.{k}"
        for t in ("latency", "build", "run")
        for k in schema[t]
        if f"| `{t}.{k}` |" not in sections["latency"]
    ]
    missing += [k for k in manifest_schema._PRECISION_KEYS if f"| `{k}` |" not in sections["precision"]]
    missing += [k for k in METRIC_KEYS if f"| `{k}` |" not in sections["metrics"]]
    missing += [k for k in FIELDS if f"`{k}`" not in sections["tolerance"]]
    missing += [t for t in ("profiles", "variants") if t not in sections]

    missing += [f"interface.{k}" for k in schema["interface"] if f"| `{k}` |" not in sections["interface"]]

    assert missing == []
    assert set(schema) == {"model", "interface", "inputs", "latency", "build", "run"}


def test_every_exit_code_of_the_command_is_documented() -> None:
    from pytest_trt.cli import exits

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    codes = {exits.PASS, exits.MISMATCH, exits.USAGE, exits.INCONCLUSIVE, exits.NOTHING, exits.ENVIRONMENT}

    assert {code for code in codes if f"\n| {code} | " not in readme} == set()


def test_the_changelog_tells_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

    assert re.search(rf"^## {re.escape(pytest_trt.__version__)}\b", changelog, re.MULTILINE)
