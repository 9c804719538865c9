"""Front door: pytest. This module is a manifest; each module below owns one family of hooks.

``-p no:trt`` switches all of it off, ``-p no:pytest_trt.plugin.reporting`` one part. Nothing here imports more than
pytest and the standard library before a test of ours is collected.
"""

from __future__ import annotations

from importlib import import_module

import pytest

MODULES = (
    "pytest_trt.plugin.options",
    "pytest_trt.plugin.collect",
    "pytest_trt.plugin.fixtures",
    "pytest_trt.plugin.reporting",
)


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    # The hook that comes first. A variable ``pytest_plugins`` would say the same, but for each name in it pytest 9
    # reads the metadata of every installed distribution, in every run: 6 ms a name with 70 distributions.
    for name in MODULES:
        if not pluginmanager.is_blocked(name):
            pluginmanager.register(import_module(name), name)
