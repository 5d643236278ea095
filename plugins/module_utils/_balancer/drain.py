# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draining by playbook: which replicas are meant, which balancers must hear of it, and how it ended at each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.targets import resolve

Seen = Mapping[str, Mapping[str, Any]]


def targets(replicas: Iterable[Mapping[str, Any]], words: str | Sequence[str]) -> list[str]:
    """Return the ids that ids, hosts and pools mean, in a list or with commas between; TargetError otherwise."""
    listed = words.split(",") if isinstance(words, str) else [str(word) for word in words]
    members = {str(replica["id"]): str(replica["pool"]) for replica in replicas}
    return resolve([word.strip() for word in listed if word.strip()], members)


def reached(seen: Seen, holds: Seen, virtual_address: str = "", force: bool = False) -> dict[str, Any]:
    """Judge which balancers can be told, and whether that is enough.

    ``seen`` maps each balancer to the result of ``balancer_info`` there, ``holds`` to what ``ip`` printed of the
    virtual address. Every balancer must answer, but for one through which nobody can come in: another one that does
    answer holds the virtual address. ``force`` goes on in any case. Returns ``hosts`` that answer, ``problem`` (empty
    when all is well) and ``notes``.
    """
    holders = [host for host, told in holds.items() if str(told.get("stdout") or "").strip()]
    # the one through which clients come in first: its log and its figures tell of the most
    hosts = sorted((host for host, told in seen.items() if told.get("status")), key=lambda host: host not in holders)
    silent = {host: _reason(told) for host, told in seen.items() if host not in hosts}
    outside = "; ".join(f"{host}: {reason}" for host, reason in silent.items())
    notes = [f"{host} did not answer ({reason}): it takes this over when it returns" for host, reason in silent.items()]
    problem = ""
    if not hosts:
        return {"hosts": hosts, "problem": f"no balancer answers: {outside or 'there is none'}", "notes": notes}
    if silent and not force:
        if not virtual_address:
            problem = (
                "and there is no virtual address (llm_balancer_virtual_address), so clients may come in through it"
            )
        elif holding := [host for host in holders if host in silent]:
            problem = f"and {', '.join(holding)} holds the virtual address {virtual_address}"
        elif not holders:
            problem = f"and none of those that answer holds the virtual address {virtual_address}"
    if problem:
        mend = "Nothing was changed. Bring it back, stop its nginx, or go on without it: -e llmops_force=true"
        problem = f"not every balancer answers ({outside}), {problem}. {mend}"
    return {"hosts": hosts, "problem": problem, "notes": notes}


def outcome(state: str, hosts: Iterable[str], done: Seen, undone: Seen) -> dict[str, Any]:
    """Tell how a change ended at the balancers ``hosts``: ``problem``, empty when all did it, and ``lines`` for people.

    ``done`` and ``undone`` map a balancer to the result of ``balancer_replica`` there, of the change and of putting it
    back.
    """
    hosts = list(hosts)
    refused = {host: _reason(done.get(host) or {}) for host in hosts if "after" not in (done.get(host) or {})}
    if not refused:
        return {"problem": "", "lines": [line for host in hosts for line in _lines(host, state, done[host])]}
    changed = [host for host in hosts if host not in refused and changes(done[host], state)]
    left = {h: _reason(undone.get(h) or {}) for h in changed if "after" not in (undone.get(h) or {})}
    back = [host for host in changed if host not in left]
    text = "; ".join(f"{host} refused: {reason}" for host, reason in refused.items())
    text += f". Put back as it was at: {', '.join(back)}" if back else ". Nothing was changed" if not left else ""
    for host, reason in left.items():
        text += f". NOT put back at {host} ({reason}): {', '.join(changes(done[host], state))} is {state} there"
    return {"problem": text, "lines": []}


def changes(done: Mapping[str, Any], state: str) -> list[str]:
    """Return the replicas that a change brought into ``state``."""
    return [replica for replica, before in (done.get("before") or {}).items() if before != state]


def _lines(host: str, state: str, done: Mapping[str, Any]) -> Iterable[str]:
    new = changes(done, state)
    for replica, before in done["before"].items():
        yield f"{host}: {replica} {before} -> {state}" if replica in new else f"{host}: {replica} is {state} already"


def _reason(told: Mapping[str, Any]) -> str:
    text = str(told.get("msg") or "it could not be asked").strip()
    return text.splitlines()[0][:300]
