"""What a real replica tells besides the story's series. Nobody looks at it, but Prometheus has to keep it."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from .bag import Bag

REAL: dict[str, Any] = json.loads((pathlib.Path(__file__).parents[1] / "vllm" / "metrics_0.32.json").read_text())
# Paths that clients and probes ask for.
_PATHS = (("/v1/chat/completions", "POST"), ("/v1/completions", "POST"), ("/v1/models", "GET"))


def complete(bag: Bag, engine: Mapping[str, str]) -> None:
    """Add what the story does not tell of a replica that has just started; it stands still from then on."""
    for name, about in REAL.items():
        if name in bag.kinds:
            continue
        for labels in _labels(about, engine):
            if about["type"] == "histogram":
                bag.observe(name, about["le"], 1000, float(about["le"][len(about["le"]) // 2]), 0.7, **labels)
            else:
                bag.set(name, 0, **labels)
    for name in ("objects_collected_total", "objects_uncollectable_total", "collections_total"):
        for generation in "012":
            bag.set(f"python_gc_{name}", 0, generation=generation)
    bag.set("python_info", 1, implementation="CPython", version="3.11.7")
    for labels in list(bag.samples["http_requests_total"]):
        bag.set("http_requests_created", 0, **dict(labels))
    for path, _method in _PATHS:
        for name, end in itertools.product(("request", "response"), ("count", "sum", "created")):
            bag.set(f"http_{name}_size_bytes_{end}", 0, handler=path)


def _labels(about: Mapping[str, Any], engine: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the labels of each series of a name: those of the engine, and every value of a label that has several."""
    several = [label for label in about["labels"] if label in about]
    known = {label: engine[label] for label in about["labels"] if label in engine}
    if "handler" in about["labels"]:
        yield from ({"handler": path, "method": method} for path, method in _PATHS)
    else:
        for values in itertools.product(*(about[label] for label in several)):
            yield {**known, **dict(zip(several, values))}
