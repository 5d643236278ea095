"""Grafana's colours in the dark theme, by their names, and what colour a value gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BACKGROUND, PANEL, BORDER = "#111217", "#181b1f", "#2b2e34"
TEXT, FAINT, GRID = "#ccccdc", "#8e8e99", "#25272d"
NAMES = {
    "green": "#73bf69",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
    "purple": "#b877d9",
    "text": "#ccccdc",
}
SERIES = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"),
    *("#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477", "#b7dbab", "#f4d598", "#70dbed", "#f9ba8f"),
)
# From little to much, as the scheme Oranges on a dark ground.
HEAT = ("#2a1a10", "#5b2c0c", "#8f430c", "#c4610f", "#f08622", "#fdae6b", "#fdd0a2", "#fff5eb")


def of_value(defaults: Mapping[str, Any], value: float) -> str:
    """Return the colour that thresholds give to a value."""
    found = "blue"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            found = step["color"]
    return named(found)


def ink(ground: str) -> str:
    """Return a colour that can be read on a ground: dark on bright ones, bright on dark ones."""
    bright = max(int(ground[at : at + 2], 16) for at in (1, 3, 5)) > 128
    return BACKGROUND if bright else TEXT


def named(colour: str) -> str:
    """Return the colour of a name; one that is written as #rrggbb stays."""
    return NAMES.get(colour, colour)


def state(defaults: Mapping[str, Any], value: float) -> tuple[str, str] | None:
    """Return word and colour of a value that stands for a state."""
    for mapping in defaults.get("mappings", []):
        told = mapping["options"].get(f"{value:g}")
        if told:
            return told["text"], named(told["color"])
    return None
