# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who brings a model from its source, who serves it, and who takes it from whom, so that a fleet brings it once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Registered by the role llm_model on every host: what is there, and who serves it.
SEEN = "__llm_model_looked"
SERVED = "__llm_model_served"


def plan(hostvars: Mapping[str, Any], hosts: Sequence[str], host: str, share: bool = True) -> dict[str, Any]:
    """Return what a host does about its models: ``bring``, ``serve`` and ``take``.

    Who holds a revision serves it to those that miss it. Where nobody does, the first that misses it brings it from the
    source and serves it then. A directory of the hosts (``file://``) is nobody's to serve: each host has its own, or
    all have the same.
    """
    missing: dict[tuple[str, ...], list[str]] = {}
    holding: dict[tuple[str, ...], list[str]] = {}
    for other in hosts:
        for entry, told in _seen(hostvars, other):
            if not told["files"]:
                missing.setdefault(_key(entry), []).append(other)
            elif told.get("sums_sha256"):
                holding.setdefault(_key(entry), []).append(other)
    found: dict[str, list[Any]] = {"bring": [], "serve": [], "take": []}
    for entry, told in _seen(hostvars, host):
        key = _key(entry)
        takers = list(missing.get(key, [])) if share and not entry["source"].startswith("file://") else []
        holders = holding.get(key, []) or takers[:1]
        takers = [taker for taker in takers if taker not in holders]
        if host in takers:
            first = takers.index(host) % len(holders)  # so that not all of them ask the same one
            found["take"].append({**entry, "from": [*holders[first:], *holders[:first]]})
        elif not told["files"]:
            found["bring"].append(entry)
        if takers and host in holders:
            found["serve"].append({"name": entry["name"], "revision": entry["revision"]})
    return found


def offers(hostvars: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``peers`` with address and token, and ``sums``, the digest by which what they send is known."""
    peers, sums = [], ""
    for host in entry.get("from", []):
        served = hostvars[host].get(SERVED) or {}
        for model in served.get("models", []) if served.get("url") else []:
            same = (model["name"], model["revision"]) == (entry["name"], entry["revision"])
            if same and sums in ("", model["sums_sha256"]):
                sums = model["sums_sha256"]
                peers.append({"url": served["url"], "token": served["token"]})
    return {"peers": peers, "sums": sums}


def _seen(hostvars: Mapping[str, Any], host: str) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Return a host's entries, each with what the module told of it; none of a host that was not asked."""
    results = (hostvars[host].get(SEEN) or {}).get("results", [])
    return [
        (dict(result["__llm_model_entry"]), result)
        for result in results
        if "files" in result and not result.get("failed")
    ]


def _key(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(entry[key]) for key in ("name", "revision", "source"))
