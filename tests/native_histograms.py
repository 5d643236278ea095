"""Whether what is asked of vLLM's histograms can be answered by native ones, too, which have no parts by name."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Set

_REAL = json.loads((pathlib.Path(__file__).resolve().parent / "fakes" / "vllm" / "metrics_0.32.json").read_text())
NAMES = {name for name, about in _REAL.items() if about["type"] == "histogram"}


def only_classic(asked: Set[str]) -> set[str]:
    """Return the parts of classic histograms among these names of series whose native one is not among them."""
    parts = {name: re.sub(r"_(?:bucket|sum|count)$", "", name) for name in asked}
    return {name for name, whole in parts.items() if whole != name and whole in NAMES and whole not in asked}
