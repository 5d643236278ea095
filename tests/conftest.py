"""Makes ``ansible_collections.llmops.vllm`` importable from a plain checkout, as ansible itself would find it.

Adds the table of gates to the end of a run.
"""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.gate_table import pytest_addoption, pytest_configure  # noqa: E402
from tools.checkout import make_importable  # noqa: E402

__all__ = ["pytest_addoption", "pytest_configure"]  # pytest finds them here


make_importable()
