# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A benchmark as a document that is kept, and as lines for people."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from .._text_table import aligned
from .compare import INCOMPARABLE, TOLD, Comparison, flat, with_expected, with_last
from .expected import expected, published

SCHEMA = 1  # of the document; another one is not read
KEPT = 50  # documents that are worth reading
_RAN = ("version", "replicas", "recipe", "recipe_digest", "seed", "figures", "doubts", "client_cpu_share")
_SERVED = ("pool", "target", "profile", "model", "model_source", "model_revision", "gpu_type", "gpus", "measured")


def report(
    result: Mapping[str, Any], entry: Mapping[str, Any], about: Mapping[str, Any], directory: str
) -> dict[str, Any]:
    """Return ``record``, the document, ``lines`` for people, and the ``name`` of the document's file.

    ``result`` is that of ``vllm_benchmark``, ``entry`` what ``judge`` returned, ``about`` has ``time``, ``client`` and
    ``expected``; earlier documents are read from ``directory``.
    """
    record: dict[str, Any] = {"schema": SCHEMA, "time": str(about["time"]), "client": str(about["client"])}
    record |= {name: entry[name] for name in _SERVED} | {name: result[name] for name in _RAN}
    record["release"] = entry["release"]
    last = with_last(record, records(directory, entry["pool"]))
    wanted = with_expected(record, expected(about["expected"] or {}, entry["profile"]))
    other = published(entry["model_source"], entry["gpu_type"], entry["gpus"], entry["profile"])
    record |= {"last": last.data(), "expected": wanted.data(), "published": other.words() if other else ""}
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in entry["pool"])
    stamp = "".join(letter for letter in record["time"] if letter.isalnum())
    return {"record": record, "lines": list(_lines(record, last, wanted)), "name": f"{stamp}-{name}.json"}


def records(directory: str, pool: str) -> list[dict[str, Any]]:
    """Return the newest documents of a pool in a directory; what is none of ours is left out."""
    found: list[dict[str, Any]] = []
    paths = pathlib.Path(directory).expanduser().glob("*.json") if directory else ()
    for path in sorted(paths, reverse=True):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if _readable(document) and document["pool"] == pool:
            found.append(document)
        if len(found) == KEPT:
            break
    return found


def _readable(document: Any) -> bool:
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return False
    try:
        flat(document)
    except (KeyError, TypeError, ZeroDivisionError):
        return False
    return all(name in document for name in ("time", "release", "client", *_SERVED, *_RAN))


def _lines(record: Mapping[str, Any], last: Comparison, wanted: Comparison) -> Iterator[str]:
    figures, recipe = record["figures"], record["recipe"]
    kind = f"{record['replicas']} replicas" if record["target"] == "pool" else record["measured"][0]
    yield (
        f"Pool {record['pool']} ({kind}, release {record['release'] or 'unknown'}, vLLM {record['version']}), recipe "
        f"{recipe['name']}: {figures['completed']} answers in {figures['duration_seconds']:g} s, "
        f"{figures['failed']} failed, {figures['short']} broke off"
    )
    yield from _table(record, last, wanted)
    yield f"Against the last run{_when(last)}: {_verdict(last)}"
    yield f"Against what is expected: {_verdict(wanted)}"
    yield f"Elsewhere: {record['published'] or 'no figure yet for this model, GPU and recipe'}"
    yield from (f"DOUBTFUL: {doubt}" for doubt in record["doubts"])


def _table(record: Mapping[str, Any], last: Comparison, wanted: Comparison) -> list[str]:
    """One line for each figure, of one replica: now, the last run, the ratio, what is expected."""
    then = flat(last.other) if last.other else {}
    judged = {row.name: row for row in last.rows}
    wished = {row.name: row for row in wanted.rows}
    rows = [("figure of a replica", "now", "last", "ratio", "expected", "")]
    for name, now in flat(record).items():
        row, wish = judged.get(name), wished.get(name)
        said = [one.result for one in (row,) if one and one.result != TOLD]
        said += [f"{one.result} than expected" for one in (wish,) if one and one.result not in (TOLD, "same")]
        ratio = "-" if not then.get(name) else f"{now / then[name]:.2f}"
        cells = (_number(now), _number(then.get(name)), ratio, _number(wish.then if wish else None), ", ".join(said))
        rows.append((name, *cells))
    numbers = aligned([row[:-1] for row in rows])
    return [f"{line}  {row[-1]}".rstrip() for line, row in zip(numbers, rows)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def _when(comparison: Comparison) -> str:
    return f" ({comparison.other['time']})" if comparison.other else ""


def _verdict(comparison: Comparison) -> str:
    words = "not comparable" if comparison.verdict == INCOMPARABLE else comparison.verdict.upper()
    return f"{words}: {comparison.reason}"
