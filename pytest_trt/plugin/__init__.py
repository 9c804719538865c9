"""Front door: pytest. This module is a manifest; each module below owns one family of hooks.

``-p no:trt`` switches all of it off, ``-p no:pytest_trt.plugin.reporting`` one part. Nothing here imports more than
pytest and the standard library before a test of ours is collected.
"""

pytest_plugins = (
    "pytest_trt.plugin.options",
    "pytest_trt.plugin.collect",
    "pytest_trt.plugin.fixtures",
    "pytest_trt.plugin.reporting",
)
