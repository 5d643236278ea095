"""The table of results: a row for each measure, replaced when it is measured again."""

from __future__ import annotations

import datetime
import os
import pathlib
from dataclasses import dataclass

FILE = pathlib.Path(__file__).resolve().parent / "RESULTS.md"
_HEAD = """# What the traffic tier does

Made by `python -m benchmarks.traffic MEASURE ...`, which replaces the rows of what it measures; load comes from the
client container, all hosts are containers on one machine and share its cores. `load` is its load average when the
measure ended, with the measure's own part.

| measure | fleet and form | what | result | at least | holds | load | cores | date | versions |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One result. ``bound`` is what must be shown, in words; ``holds`` is None where nothing is promised."""

    what: str
    result: str
    bound: str = ""
    holds: bool | None = None


def table(
    old: str, measure: str, fleet: str, rows: list[Row], versions: str, load: float, cores: int, date: str
) -> str:
    """Return the file's text with the rows of this measure and fleet replaced, or added at the end."""
    mine = f"| {measure} | {fleet} |"
    lines = [line for line in old.splitlines() if line.startswith("| ") and not line.startswith("| measure ")]
    kept = [line for line in lines if not line.startswith(mine)]
    place = next((number for number, line in enumerate(lines) if line.startswith(mine)), len(kept))
    words = {True: "yes", False: "**no**", None: ""}
    end = f"{load:.1f} | {cores} | {date} | {versions} |"
    new = [f"{mine} {row.what} | {row.result} | {row.bound} | {words[row.holds]} | {end}" for row in rows]
    return _HEAD + "\n".join([*kept[:place], *new, *kept[place:]]) + "\n"


def write(measure: str, fleet: str, rows: list[Row], versions: str) -> None:
    """Put the rows into the file."""
    old = FILE.read_text() if FILE.exists() else ""
    date, cores = datetime.date.today().isoformat(), os.cpu_count() or 0
    FILE.write_text(table(old, measure, fleet, rows, versions, os.getloadavg()[0], cores, date))
