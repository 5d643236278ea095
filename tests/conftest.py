"""Makes ``ansible_collections.llmops.vllm`` importable from a plain checkout, as ansible itself would find it.

Adds the table of gates to the end of a run.
"""

from __future__ import annotations

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.gate_table import GateTable  # noqa: E402
from tools.checkout import collections_path  # noqa: E402


def _install_collection_loader() -> None:
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    _AnsibleCollectionFinder(paths=[str(collections_path())])._install()


_install_collection_loader()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", metavar="FILE", help="write the table of gates into a Markdown file, too")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(GateTable(config.getoption("--table")))
