"""What no test may depend on: who runs it, and where."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Options of ours that a user has set; a job's branch and summary; the repository of a git hook that runs the tests, in
# which a test's own `git commit` would land.
_PREFIXES = ("PYTEST_TRT_", "GITHUB_", "GIT_")
_NAMES = (
    # pytest's: what it repeats, its width, its colours, more options, and whether it loads plugins
    *("CI", "BUILD_NUMBER", "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PY_COLORS"),
    *("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"),
    # history.git's
    *("CI_COMMIT_REF_NAME", "BRANCH_NAME"),
    # CUDA's
    "NVIDIA_TF32_OVERRIDE",
)


@pytest.fixture(scope="session", autouse=True)
def bare_environment() -> Iterator[None]:
    """The variables that change what we, pytest or git do are not set, nor is any configuration of git read. The outer
    run has its own back before it prints its summary."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name in _NAMES or name.startswith(_PREFIXES)]:
            patch.delenv(name)
        # Signed commits, hooks, a template of repositories.
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def writable_examples(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Hypothesis keeps its examples in the working directory, and warns where it cannot: here that is an error."""
    if not os.access(os.curdir, os.W_OK):
        from hypothesis.configuration import set_hypothesis_home_dir

        set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))
