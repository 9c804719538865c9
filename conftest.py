"""For this repository's own tests: the ``pytester`` fixture runs pytest inside a test."""

pytest_plugins = ["pytester"]
