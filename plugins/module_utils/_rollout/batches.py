# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order, and how many at a time, the replicas of a pool go through a rollout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.llmops.vllm.plugins.module_utils._rollout.options import Options, Share
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.state import Known


def ordered(chosen: Iterable[Known]) -> list[Known]:
    """Those that an interrupted run left first, as they are out already; those that serve; those that are sick."""
    return sorted(chosen, key=lambda one: 0 if one.interrupted else 1 if one.in_rotation else 2)


def capacity_problem(pool: str, members: Sequence[Known], chosen: Sequence[Known], options: Options) -> str:
    """Why a pool cannot spare a replica; empty when it can."""
    if len(members) == 1 and any(one.in_rotation for one in chosen):
        if options.allow_downtime:
            return ""
        return (
            f"pool {pool} has one replica ({members[0].id}), so nobody would serve it meanwhile: add another one, or "
            "allow it: -e llmops_rollout_allow_downtime=true"
        )
    if not any(one.in_rotation and not one.interrupted for one in chosen):
        return ""  # nobody who serves is taken out, but for what an earlier run left, which comes first
    least, serving = options.least(len(members)), _serving(members, chosen)
    if least >= len(members):
        return (
            f"llmops_rollout_min_healthy is {_shown(options.min_healthy)}, which is all {len(members)} replicas of "
            f"pool {pool}, so none could ever be taken out: {len(members) - 1} is the most that can be kept"
        )
    if serving - 1 < least and not options.allow_downtime:
        away = ", ".join(f"{one.id} ({one.problem or 'not in rotation'})" for one in members if not one.in_rotation)
        return (
            f"pool {pool} has {serving} of {len(members)} replicas to serve with, and {least} must stay in rotation "
            f"(llmops_rollout_min_healthy), so none can be taken out. Out: {away}. Mend these first, or lower it"
        )
    return ""


def batches(members: Sequence[Known], chosen: Sequence[Known], options: Options) -> list[list[Known]]:
    """Split what ``ordered`` returned into batches, of which never more serve than the pool can spare.

    What an interrupted run left goes one by one: it takes nothing from the pool, and the first of them is the canary.
    """
    found = [[one] for one in chosen if one.interrupted]
    rest = [one for one in chosen if not one.interrupted]
    spare = max(1, _serving(members, chosen) - options.least(len(members)))
    sizes = list(options.batches)
    while rest:
        size = min(_size(sizes.pop(0) if len(sizes) > 1 else sizes[0], len(members)), spare)
        if len({one.in_rotation for one in rest[:size]}) > 1:  # the sick have a batch of their own
            size = sum(one.in_rotation for one in rest[:size])
        found.append(rest[:size])
        rest = rest[size:]
    return found


def _serving(members: Iterable[Known], chosen: Iterable[Known]) -> int:
    """The replicas that serve once what was left behind is repaired, which comes first."""
    repaired = {one.id for one in chosen if one.interrupted}
    return sum(one.in_rotation or one.id in repaired for one in members)


def _size(share: Share, members: int) -> int:
    return share if isinstance(share, int) else max(1, int(share * members))


def _shown(value: Share | None) -> str:
    return "not set" if value is None else f"{value:.0%}" if isinstance(value, float) else str(value)
