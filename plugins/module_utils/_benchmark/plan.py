# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a benchmark measures, from where, and whether it may now: a sick pool or one in a rollout is left alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._errors import LlmopsError
from .._fleet import pools as pools_of
from .._rollout.reading import texts
from .expected import expected
from .recipes import RecipeError, recipe

_ASIDE = (
    "One that is measured cannot be the client: name another host of the inventory with -e llmops_benchmark_host=, on "
    "which there is an environment of vLLM (llmops_benchmark_env), or measure one drained replica: "
    "-e llmops_benchmark_target=replica"
)
POOL, REPLICA = TARGETS = ("pool", "replica")

Replicas = Sequence[Mapping[str, Any]]
Hosts = Mapping[str, Mapping[str, Any]]


def plan(replicas: Replicas, hostvars: Hosts, servers: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``entries`` to measure, one for each pool, the ``host`` that asks, and ``problems``; needs no host.

    ``options`` are ``pools``, ``target``, ``host`` and ``recipe``.
    """
    known = {pool["name"]: pool for pool in pools_of(replicas)}
    wanted = texts(options["pools"].split(",") if isinstance(options["pools"], str) else options["pools"])
    names = [name.strip() for name in wanted if name.strip()]
    problems = [_no_pool(name, known) for name in names if name not in known]
    if not names:
        problems.append(f"llmops_benchmark_pools is empty: name pools ({', '.join(known) or 'there is none'})")
    if options["target"] not in TARGETS:
        problems.append(f"llmops_benchmark_target is {options['target']!r}: give pool or replica")
    entries = [_entry(known[name], options, hostvars) for name in dict.fromkeys(names) if name in known]
    for entry in entries:
        problems += [f"pool {entry['pool']}: {text}" for text in _unfit(entry, options, hostvars)]
    host = str(options["host"] or "")
    if host and host not in hostvars:
        problems.append(f"llmops_benchmark_host is {host}, which is no host of the inventory")
    elif options["target"] == POOL:
        taken = {measured: entry["pool"] for entry in entries for measured in entry["hosts"]}
        if host in taken:
            problems.append(_measured(host, taken[host]))
        host = host or next((server for server in servers if server not in taken), "")
        if not host and not problems:
            problems.append(f"every server carries a replica of the pools that are measured. {_ASIDE}")
    # beside a drained replica, any other server is one that is not measured: which one it is, judge() knows
    return {"entries": entries, "host": host, "servers": list(servers), "problems": problems}


def _no_pool(name: str, known: Mapping[str, Any]) -> str:
    return f"llmops_benchmark_pools names {name}, which is no pool: there are {', '.join(known) or 'none'}"


def _measured(host: str, pool: str) -> str:
    return f"llmops_benchmark_host is {host}, which serves pool {pool} and is measured: it cannot be the client, too"


def _entry(pool: Mapping[str, Any], options: Mapping[str, Any], hostvars: Hosts) -> dict[str, Any]:
    first = pool["replicas"][0]
    return {
        "pool": pool["name"],
        "target": options["target"],
        "profile": first["profile"],
        "model": first["model_name"],
        "model_source": first["model_source"],
        "model_revision": first["model_revision"],
        "gpu_type": str(hostvars[first["host"]].get("llmops_gpu_type") or ""),
        "gpus": len(first["gpus"]),
        "ids": [replica["id"] for replica in pool["replicas"]],
        "hosts": list(dict.fromkeys(replica["host"] for replica in pool["replicas"])),
        "urls": {r["id"]: f"http://{r['address']}:{r['port']}" for r in pool["replicas"]},
    }


def _unfit(entry: Mapping[str, Any], options: Mapping[str, Any], hostvars: Hosts) -> Iterator[str]:
    try:
        recipe(entry["profile"], options["recipe"]).load(len(entry["ids"]) if options["target"] == POOL else 1)
    except RecipeError as problem:
        yield str(problem)
    try:
        expected(hostvars[entry["hosts"][0]].get("llmops_benchmark_expected") or {}, entry["profile"])
    except LlmopsError as problem:
        yield str(problem)


def judge(planned: Mapping[str, Any], seen: Hosts, balancers: Hosts) -> dict[str, Any]:
    """Return the plan with what serves, ``problems`` that forbid to measure now, and ``notes``.

    ``seen`` maps a server to the result of ``vllm_info`` there, ``balancers`` a balancer to that of ``balancer_info``.
    """
    statuses = {host: told["status"] for host, told in balancers.items() if (told or {}).get("status")}
    if not statuses:
        return {**planned, "problems": ["no balancer answers: whether a rollout runs is not known"], "notes": []}
    facts = {row["id"]: row for told in seen.values() for row in (told or {}).get("replicas") or []}
    problems, notes, entries = [], [], []
    for entry in planned["entries"]:
        found, wrong = _judged(entry, facts, statuses)
        problems += [f"pool {entry['pool']}: {text}" for text in wrong]
        entries.append(found)
        if found["target"] == POOL and found.get("busy"):
            notes.append(f"pool {entry['pool']}: clients have {found['busy']} requests there; the figures include them")
    host, taken = planned["host"], {each["host"]: each["pool"] for each in entries if "host" in each}
    if not problems:
        host = host or next((server for server in planned["servers"] if server not in taken), "")
        if not host or planned["host"] in taken:
            problems.append(_measured(host, taken[host]) if host else f"there is no other server. {_ASIDE}")
    return {**planned, "host": host, "entries": entries, "problems": problems, "notes": notes}


def _judged(entry: Mapping[str, Any], facts: Hosts, statuses: Hosts) -> tuple[dict[str, Any], list[str]]:
    held = [_held(host, status, entry["pool"]) for host, status in statuses.items()]
    wrong = [text for text in held if text]
    ways = {id: [_way(status, id) for status in statuses.values()] for id in entry["ids"]}
    drained = [id for id, each in ways.items() if all(way.get("administrative") == "drained" for way in each)]
    if entry["target"] == REPLICA and not drained:
        return dict(entry), [
            *wrong,
            f"none of it is drained: -e llmops_target={entry['ids'][-1]} for llmops.vllm.drain",
        ]
    measured = entry["ids"] if entry["target"] == POOL else drained[:1]
    for id in entry["ids"]:
        wrong += _sick(id, facts.get(id, {}), [] if id in drained and entry["target"] == REPLICA else ways[id])
    known = [facts[id] for id in measured if id in facts]
    busy = sum((row.get("running") or 0) + (row.get("waiting") or 0) for row in known)
    if entry["target"] == REPLICA and busy:
        wrong.append(f"{measured[0]} is drained, and still has {busy} requests: wait until they end")
    first = next(((row.get("releases") or {}).get("current") or {} for row in known), {})
    told = {
        "busy": busy,
        "measured": measured,
        "host": measured[0].partition("/")[0],
        # an id is each replica's own, as its address is part of it
        "release": str(first.get("id") or ""),
        "revisions": sorted({str(row.get("revision") or "") for row in known}),
        "versions": sorted({str(row.get("version") or "") for row in known}),
        "env": str(first.get("env") or ""),
        "model_path": str(first.get("model_path") or ""),
    }
    for name, words in (("revisions", "revisions"), ("versions", "versions of vLLM")):
        if len(told[name]) > 1:
            wrong.append(f"it has {len(told[name])} {words} ({', '.join(told[name])}): finish the rollout first")
    if entry["target"] == REPLICA:
        told["url"] = entry["urls"][measured[0]]
    return {**entry, **told}, wrong


def _held(host: str, status: Mapping[str, Any], pool: str) -> str:
    lease = next((row.get("lease") for row in status.get("pools") or [] if row.get("name") == pool), None)
    return f"{host} says that {lease['holder']} holds it: a rollout runs" if lease else ""


def _way(status: Mapping[str, Any], id: str) -> Mapping[str, Any]:
    return next((row for row in status.get("replicas") or [] if row.get("id") == id), {})


def _sick(id: str, row: Mapping[str, Any], ways: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    if row.get("health") != "ok":
        yield f"{id} is {row.get('health', 'unreachable')}{': ' + row['reason'] if row.get('reason') else ''}"
    elif not all(way.get("in_rotation") for way in ways):
        yield f"{id} is not in rotation at every balancer: a pool that is not whole is not measured"


def key(clients: Any, pool: str, pools: Sequence[str]) -> str:
    """Return a client's key that leads to a pool: one that names it, or any for the first pool; else nothing."""
    known = [client for client in clients if isinstance(client, Mapping)] if isinstance(clients, list) else []
    names = [pool, ""] if pools and pools[0] == pool else [pool]
    for name in names:
        for client in known:
            if str(client.get("pool") or "") == name and client.get("key"):
                return str(client["key"])
    return ""
