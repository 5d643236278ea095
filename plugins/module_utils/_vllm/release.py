# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a replica's releases into a state: staged, active, verified, marked or absent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._release.home import LINKS, METRICS, POINTERS, VERIFIED, Home
from ansible_collections.llmops.vllm.plugins.module_utils._release.marks import (
    NONE,
    diff_of_marks,
    marked,
    marks_of,
    refuse_marked,
    write_marks,
)
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import (
    Release,
    ReleaseError,
    diff_of,
    differences,
)
from ansible_collections.llmops.vllm.plugins.module_utils._release.running import running_release


@dataclass(frozen=True)
class Wish:
    """What is wanted: see the module's options."""

    state: str
    release: Release | None = None  # that the settings describe
    named: str = ""  # an id, or the name of a link
    mark: str = ""
    reason: str = ""
    unit: str = ""  # whose process is compared; empty: none


@dataclass
class Change:
    """What was done, or would be done in check mode."""

    changed: bool = False
    release: str = ""
    current: str = ""
    previous: str = ""
    staged: str = ""
    running: str = ""
    switched: bool = False
    restart_needed: bool = False
    verified: bool = False
    bad: str = ""
    held: str = ""
    repaired: list[str] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """As the module returns it."""
        return {**vars(self), "pending": bool(self.staged and self.staged != self.current)}


@dataclass(frozen=True)
class Plan:
    """Where the links should stand, and what must be written for it."""

    release: str
    current: str
    previous: str
    staged: str
    build: list[str]  # files that are missing or wrong


def plan_staged(home: Home, release: Release) -> Plan:
    """Candidate built and staged; nothing staged when it is what is current anyway."""
    current = home.pointer("current")
    return Plan(
        release=release.id,
        current=current,
        previous=home.pointer("previous"),
        staged="" if release.id == current else release.id,
        build=home.drift(release),
    )


def plan_active(home: Home, wish: Wish, *, check: bool) -> Plan:
    """Links after the switch; refuses a release that is marked or that could not run."""
    current, staged = home.pointer("current"), home.pointer("staged")
    described = wish.release.id if wish.release else ""
    target = home.named(wish.named) if wish.named else described or staged or current
    if not target:
        raise ReleaseError(f"nothing is staged for replica {home.replica}: stage a release first, or give its settings")
    switched = target != current
    if switched:
        refuse_marked(home, target)
    build: list[str] = []
    if wish.release and target == described:
        # a dry run has installed neither
        problem = "" if check else _missing_part(wish.release)
        build = home.drift(wish.release)
    else:
        problem = home.problem(target)
    if problem:
        raise ReleaseError(f"release {target} of replica {home.replica} {problem}: stage it first")
    if staged == target or not wish.named:
        staged = ""
    elif switched:
        staged = current  # who goes back by name leaves something that waits for its next turn
    return Plan(
        release=target,
        current=target,
        # where nobody proves releases the link moves with the switch, else when the new one is proven
        previous=current if switched and not home.pointer(VERIFIED) else home.pointer("previous"),
        staged=staged,
        build=build,
    )


def _missing_part(release: Release) -> str:
    for name in LINKS:
        path = getattr(release, name)
        if not Path(path).is_dir():
            return f"needs {name} {path}, which is gone"
    return ""


def apply(home: Home, wish: Wish, *, check: bool = False) -> Change:
    """Brings a replica's releases into a state; with ``check`` only says what would be."""
    act = {VERIFIED: _verify, "marked": _mark, "absent": _remove}.get(wish.state, _settle)
    nothing_there = wish.release is None and not home.path.exists()
    if check or nothing_there:  # the lock would make the directories of the replica
        return act(home, wish, check=True)
    with home.locked():
        return act(home, wish, check=False)


def _settle(home: Home, wish: Wish, *, check: bool) -> Change:
    before = {name: home.pointer(name) for name in POINTERS}
    if wish.state == "active":
        plan = plan_active(home, wish, check=check)
    elif wish.release is None:
        raise ReleaseError("state=staged needs settings, environment, unit, env and model of the release")
    else:
        plan = plan_staged(home, wish.release)
    after = {name: getattr(plan, name) for name in POINTERS}
    old_view = home.view(before["current"])
    described = wish.release is not None and wish.release.id == plan.release
    new_view = wish.release.view() if wish.release and described else home.view(plan.release)
    running = running_release(wish.unit) if wish.unit else ""
    repaired = bool(set(plan.build) - {METRICS}) and plan.release == before["current"]
    marks = marks_of(home, plan.release)
    change = Change(
        changed=bool(plan.build) or after != before,
        release=plan.release,
        current=plan.current,
        previous=home.proven_besides(plan.current) or plan.previous,
        staged=plan.staged,
        running=running,
        switched=plan.current != before["current"],
        verified=plan.current != "" and home.pointer(VERIFIED) == plan.current,
        bad=marks["bad"],
        held=marks["held"],
        repaired=plan.build if home.document(plan.release) else [],
        # what was repaired in the current release is compared with itself: the means differ, not the meaning
        differences=differences(old_view, new_view) if plan.release != before["current"] else [],
    )
    outdated = running not in ("", plan.current)
    change.restart_needed = (change.switched and before["current"] != "") or repaired or outdated
    if change.changed:
        change.diff = diff_of(old_view, new_view, home.replica, (before["current"], plan.release))
    if check:
        return change
    if plan.build and wish.release:
        home.build(wish.release)
    if change.switched:
        home.point("previous", plan.previous)
        home.point("current", plan.current)
    home.point("staged", plan.staged)
    return change


def _seen(home: Home, release: str, wish: Wish) -> Change:
    """Everything as it is, about one release."""
    current = home.pointer("current")
    running = running_release(wish.unit) if wish.unit else ""
    marks = marks_of(home, release)
    return Change(
        release=release,
        current=current,
        previous=home.previous(),
        staged=home.pointer("staged"),
        running=running,
        restart_needed=running not in ("", current),
        verified=current != "" and home.pointer(VERIFIED) == current,
        bad=marks["bad"],
        held=marks["held"],
    )


def _verify(home: Home, wish: Wish, *, check: bool) -> Change:
    """Remembers that the release in force has answered; the one that did before it is the previous one from now on."""
    current = home.pointer("current")
    if not current:
        raise ReleaseError(f"replica {home.replica} has no release in force: activate one first")
    change = _seen(home, current, wish)
    change.changed, change.verified = not change.verified, True
    if change.changed and not check:
        if left := home.proven_besides(current):
            home.point("previous", left)
        home.point(VERIFIED, current)
    return change


def _mark(home: Home, wish: Wish, *, check: bool) -> Change:
    """Marks a release as one that is not to be activated, or takes its marks away."""
    release = home.named(wish.named or "current")
    if wish.mark != NONE and not (home.releases / release).is_dir():
        raise ReleaseError(f"replica {home.replica} has no release {release} in {home.releases}: nothing to mark")
    change = _seen(home, release, wish)
    before, after = marks_of(home, release), marked(home, release, wish.mark, wish.reason)
    change.changed, change.bad, change.held = after != before, after["bad"], after["held"]
    if change.changed:
        change.diff = [diff_of_marks(home, release, before, after)]
        if not check:
            write_marks(home, release, after)
    return change


def _remove(home: Home, wish: Wish, *, check: bool) -> Change:
    if not home.path.exists():
        return Change()
    current = home.pointer("current")
    change = Change(changed=True, diff=diff_of(home.view(current), {}, home.replica, (current, "")))
    if not check:
        home.remove()
    return change
