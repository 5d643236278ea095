# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout: who goes where, in which batches, and why some do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.admission import is_rollout
from ansible_collections.llmops.vllm.plugins.module_utils._balancer.drain import targets
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.batches import batches, capacity_problem, ordered
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.options import Options, options_from
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.state import Known, Stand, known

RETRY = "to try it once more: -e llmops_rollout_retry=true"


@dataclass
class Plan:
    """What is to be done. ``problems`` end the run before anything is touched, ``refused`` end it red."""

    action: str
    problems: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pools: list[str] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the playbook reads it; ``serial`` has the size of each batch."""
        numbers = [entry["batch"] for entry in self.entries]
        serial = [numbers.count(number) for number in dict.fromkeys(numbers)]
        return {**vars(self), "serial": serial or [1], "lines": list(self._lines())}

    def _lines(self) -> Iterable[str]:
        for entry in self.entries:
            doing = ", ".join(_deed(self.action, member) for member in entry["members"])
            kind = ", ".join(word for word in ("interrupted", "canary") if entry[word])
            yield f"batch {entry['batch']}: {entry['id']}: {doing}{f' ({kind})' if kind else ''}"
            for row in entry["differences"]:
                yield f"    {row['name']}: {row['before'] or '-'} -> {row['after'] or '-'}"
        if not self.entries and not self.problems and not self.refused:
            yield "nothing to do"
        for text in self.refused:
            yield f"REFUSED: {text}"
        yield from self.notes


def plan(
    action: str,
    options: Mapping[str, Any],
    replicas: Sequence[Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
    staged: Mapping[str, Iterable[Mapping[str, Any]]],
    balancers: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the plan as a document; what cannot be done stands in its ``problems``, each with the mend."""
    found = Plan(action)
    try:
        asked = options_from(action, options)
        wanted = _wanted(replicas, asked)
    except LlmopsError as problem:
        found.problems.append(str(problem))
        return found.result()
    fleet = known(replicas, seen, staged, balancers)
    by_pool = {pool: [one for one in fleet if one.pool == pool] for pool in dict.fromkeys(one.pool for one in fleet)}
    if action == "reboot":
        _by_host(found, by_pool, wanted, asked)
    else:
        for pool, members in by_pool.items():
            _by_pool(found, pool, members, wanted, asked)
    if seen:  # before any host is asked, what is asked for is judged by this, too: nobody is left alone yet
        found.problems += _in_vain(replicas, fleet, asked)
    found.pools = list(dict.fromkeys(pool for entry in found.entries for pool in entry["pools"]))
    return found.result()


def _wanted(replicas: Sequence[Mapping[str, Any]], options: Options) -> set[str]:
    """The ids that are meant: all of the fleet, unless pools or replicas are named."""
    pools = {str(replica["pool"]) for replica in replicas}
    if unknown := [pool for pool in options.pools if pool not in pools]:
        raise LlmopsError(
            f"llmops_rollout_pools names {', '.join(unknown)}, which is no pool: there are {', '.join(sorted(pools))}"
        )
    chosen = [one for one in replicas if not options.pools or one["pool"] in options.pools]
    return set(targets(chosen, options.replicas)) if options.replicas else {str(one["id"]) for one in chosen}


# --- replica by replica ------------------------------------------------------------------------------------------


def _by_pool(plan: Plan, pool: str, members: Sequence[Known], wanted: set[str], options: Options) -> None:
    goals: dict[str, Stand | None] = {}  # of those that take part; None: the release in force stays
    refusals: list[str] = []
    marked: list[str] = []  # of those that take no part: what failed there is no update elsewhere
    for one in members:
        takes_part = one.id in wanted and not _left_alone(plan, one)
        goal = _goal(one, options)
        if goal is not None and goal.refused and not (goal.mark and options.retry):
            text = f"{one.id}: {plan.action} to {goal.id}: {goal.refused}"
            if takes_part:
                refusals.append(text)
            elif goal.mark and plan.action == "update":
                marked.append(text)
            goal = None
        if takes_part and (goal is not None or options.action == "restart" or one.interrupted or one.outdated):
            goals[one.id] = goal
    if any(goals.values()):
        refusals += marked
    elif problem := _not_reached(members, wanted, options):
        plan.refused.append(f"pool {pool}: {problem}")
    if refusals:
        # what an earlier run left is repaired all the same, and nobody goes to another release
        goals = {one.id: None for one in members if one.id in goals and one.interrupted}
        retry = f"; {RETRY}" if any("marked" in text for text in refusals) else ""
        plan.refused.append(f"pool {pool}: {'; '.join(refusals)}{retry}")
    chosen = ordered(one for one in members if one.id in goals)
    if problem := capacity_problem(pool, members, chosen, options):
        plan.problems.append(problem)
        return
    first, action = len(plan.entries) and plan.entries[-1]["batch"], plan.action
    waiting = [one for one in chosen if goals[one.id] is not None]
    shown = action != "update"  # whether there was a canary: the first one with a release that is not proven
    for number, batch in enumerate(batches(members, chosen, options), first + 1):
        unproven = [one for one in batch if goals[one.id] is not None or not one.verified]
        waiting = [one for one in waiting if one not in batch]
        canary = bool(unproven) and not shown
        shown = shown or canary
        others = [one for one in members if one not in batch and one.in_rotation]
        # the last ones are compared with those that were proven before them
        old = [one for one in others if _is_old(one, goals, waiting)] or others
        for one in batch:
            goal = goals[one.id]
            entry = _entry(one.id, one.host, number, [_member(one, goal, action)], canary and one in unproven)
            plan.entries.append(
                {
                    **entry,
                    "beside": [other.id for other in batch],
                    "old": [{"id": other.id, "url": other.url} for other in old],
                    "differences": [dict(row) for row in goal.differences] if goal else [],
                }
            )


def _is_old(one: Known, goals: Mapping[str, Stand | None], waiting: Sequence[Known]) -> bool:
    """Whether a replica still has the release that others leave: it waits for its turn, or is not meant at all."""
    return one in waiting or (one.id not in goals and one.pending is not None)


def _left_alone(plan: Plan, one: Known) -> bool:
    """Whether a replica takes no part, with a note why."""
    if reason := _aside(one):
        plan.notes.append(f"{one.id} is left alone: {reason}")
    return bool(reason)


def _aside(one: Known) -> str:
    """Why a replica takes no part; empty when it does."""
    if one.problem:
        return f"its host could not be asked ({one.problem})"
    if one.current is None:
        return "it has never been started: llmops.vllm.site does that"
    return f"it was drained by {one.held_out}: llmops.vllm.undrain puts it back" if one.held_out else ""


def _in_vain(replicas: Sequence[Mapping[str, Any]], fleet: Sequence[Known], options: Options) -> Iterable[str]:
    """Who was asked for by name, and takes no part at all: a run that leaves it alone and ends green would mislead."""
    aside = {one.id: reason for one in fleet if (reason := _aside(one))}
    for name in () if options.derived else options.replicas:
        ids = targets(replicas, [name])
        if all(one in aside for one in ids):
            yield f"llmops_rollout_replicas names {name}, and {aside[ids[0]]}"


def _goal(one: Known, options: Options) -> Stand | None:
    """The release that a replica goes to; None for the one in force."""
    if options.action == "update":
        return one.pending
    if options.action == "rollback" and (options.replicas or one.pending is None):
        # a replica with a pending release was not reached by the rollout that is taken back, unless it is named
        return one.previous or Stand("the previous release", refused="there is none on this host")
    return None


def _not_reached(members: Sequence[Known], wanted: set[str], options: Options) -> str:
    """Why a rollback takes nobody of a pool back although it could: each has a newer release staged."""
    could = [one.id for one in members if one.id in wanted and one.previous is not None and one.pending is not None]
    if options.action != "rollback" or not could:
        return ""
    return (
        f"each of its replicas has a newer release staged, so that it cannot be told which of them the last rollout "
        f"reached: name those that are to go back: -e llmops_rollout_replicas={','.join(could)}"
    )


def _member(one: Known, goal: Stand | None, action: str) -> dict[str, Any]:
    current = one.current or Stand("")
    # what was never proven is nothing to go back to, unless nothing else is there; nor is what is refused itself
    back = current if one.verified or (goal is not None and one.previous is None) else one.previous
    possible = back is not None and not back.refused and back.id != (goal or current).id
    return {
        **{key: getattr(one, key) for key in ("id", "name", "unit", "url", "pool", "address", "port", "gpus")},
        "switch": goal is not None,
        # where it runs as it should, a repair only proves it
        "restart": goal is not None or action in ("restart", "reboot") or one.outdated or not one.answers,
        "interrupted": one.interrupted,
        "serving": one.in_rotation,
        # what an earlier run switched: when it fails now, it goes back, although this run changed nothing
        "unproven": goal is None and not one.verified,
        "leaves": current.id,
        "left": current.words(),
        # whether its process answered when the plan was made: one that does not need not be asked politely to stop
        "answers": one.answers,
        # prompts of today are made for the release that waits
        "prompts": goal is not None or one.pending is None,
        "target": (goal or current).words(),
        "back": back.words() if possible and back is not None else {},
    }


def _entry(ident: str, host: str, batch: int, members: list[dict[str, Any]], canary: bool) -> dict[str, Any]:
    return {
        "id": ident,
        "host": host,
        "batch": batch,
        "members": members,
        "pools": list(dict.fromkeys(member["pool"] for member in members)),
        "urls": [{"id": member["id"], "url": member["url"]} for member in members],
        "canary": canary,
        "interrupted": any(member["interrupted"] for member in members),
        "from": dict(members[0]["left"]) if members[0]["switch"] else {},
        "to": dict(members[0]["target"]),
    }


# --- host by host ------------------------------------------------------------------------------------------------


def _by_host(plan: Plan, by_pool: Mapping[str, Sequence[Known]], wanted: set[str], options: Options) -> None:
    """A reboot takes a host with all its replicas, of whichever pools, and one host at a time."""
    fleet = [one for members in by_pool.values() for one in members]
    hosts = dict.fromkeys(one.host for one in fleet if one.id in wanted)
    begun = {one.host for one in fleet if one.interrupted}
    for host in sorted(hosts, key=lambda host: host not in begun):
        mine = [one for one in fleet if one.host == host]
        left = [_left_alone(plan, one) for one in mine]
        taken = [one for one, alone in zip(mine, left) if not alone]
        if kept := next((one for one in mine if one.held_out), None):
            told = plan.refused if options.replicas and not options.derived else plan.notes
            told.append(f"{host} is not rebooted: {kept.id} was drained by {kept.held_out}, who may be at it")
            continue
        if not taken or any(one.problem for one in mine):
            continue
        for pool in dict.fromkeys(one.pool for one in taken):
            members = by_pool[pool]
            away = [one for one in taken if one.pool == pool]
            if problem := capacity_problem(pool, members, away, options) or _too_many(pool, members, away, options):
                plan.problems.append(f"{host}: {problem}")
        members_of = [_member(one, None, action="reboot") for one in taken]
        plan.entries.append(
            {
                **_entry(f"{host}/*", host, len(plan.entries) + 1, members_of, canary=False),
                "beside": [one.id for one in taken],
                "old": [],
                "differences": [],
            }
        )


def _too_many(pool: str, members: Sequence[Known], away: Sequence[Known], options: Options) -> str:
    """Why a pool cannot spare all its replicas on a host at once."""
    serving = sum(one.in_rotation for one in members)
    left = serving - sum(one.in_rotation for one in away)
    least = options.least(len(members))
    if left >= min(least, serving) or options.allow_downtime:
        return ""
    names = ", ".join(one.id for one in away)
    return (
        f"pool {pool} would keep {left} of {len(members)} replicas while {names} are away, and {least} must stay in "
        "rotation (llmops_rollout_min_healthy): lower it, or spread the pool over more hosts"
    )


def below(statuses: Iterable[Mapping[str, Any]], entry: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Why a batch must not be drained just now, as the balancers see its pools; empty when it may.

    ``statuses`` are those of ``balancer_info`` at each balancer that answered. Since the plan was made a pool may have
    lost replicas, and somebody may have drained one of the batch.
    """
    own = [one["id"] for one in entry["urls"]]
    for row in (row for status in statuses for row in status["replicas"] if row["id"] in own):
        if row["administrative"] == "drained" and not is_rollout(row.get("by", "")):
            return (
                f"{row['id']} was drained by {row.get('by') or 'somebody'} meanwhile: llmops.vllm.undrain puts it back"
            )
    asked = options_from("update", options)
    if asked.allow_downtime:
        return ""
    for status in statuses:
        for pool in entry["pools"]:
            members = [row for row in status["replicas"] if row["pool"] == pool]
            inside = [row["id"] for row in members if row["in_rotation"]]
            left = [one for one in inside if one not in entry["beside"]]
            least = asked.least(len(members))
            if len(left) < least and len(left) < len(inside):
                out = ", ".join(row["id"] for row in members if not row["in_rotation"]) or "none"
                return (
                    f"pool {pool} would keep {len(left)} of {len(members)} replicas in rotation, and {least} must stay "
                    f"(llmops_rollout_min_healthy). Out of rotation now: {out}"
                )
    return ""


def _deed(action: str, member: Mapping[str, Any]) -> str:
    target = member["target"]
    if member["switch"]:
        return f"{action} {member['leaves'] or '?'} -> {target['release']}"
    if action == "reboot":
        return f"reboot with {member['id']}"
    return f"restart {target['release']}" if member["restart"] else f"prove {target['release']} and put it back"
