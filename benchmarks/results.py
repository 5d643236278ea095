"""Tables of results: a row for each measure, replaced when it is measured again."""

from __future__ import annotations

import datetime
import os
import pathlib
from dataclasses import dataclass

_COLUMNS = """
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
    head: str, old: str, measure: str, fleet: str, rows: list[Row], versions: str, load: float, cores: int, date: str
) -> str:
    """Return the file's text with the rows of this measure and fleet replaced, or added at the end."""
    mine = f"| {measure} | {fleet} |"
    lines = [line for line in old.splitlines() if line.startswith("| ") and not line.startswith("| measure ")]
    kept = [line for line in lines if not line.startswith(mine)]
    place = next((number for number, line in enumerate(lines) if line.startswith(mine)), len(kept))
    words = {True: "yes", False: "**no**", None: ""}
    end = f"{load:.1f} | {cores} | {date} | {versions} |"
    new = [f"{mine} {row.what} | {row.result} | {row.bound} | {words[row.holds]} | {end}" for row in rows]
    return head + _COLUMNS + "\n".join([*kept[:place], *new, *kept[place:]]) + "\n"


def write(file: pathlib.Path, head: str, measure: str, fleet: str, rows: list[Row], versions: str) -> None:
    """Put the rows into the file, which begins with the head."""
    old = file.read_text() if file.exists() else ""
    date, cores = datetime.date.today().isoformat(), os.cpu_count() or 0
    file.write_text(table(head, old, measure, fleet, rows, versions, os.getloadavg()[0], cores, date))
