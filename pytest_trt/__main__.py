"""``python -m pytest_trt`` is ``pytest-trt``."""

import sys

from pytest_trt.cli import main

if __name__ == "__main__":
    sys.exit(main())
