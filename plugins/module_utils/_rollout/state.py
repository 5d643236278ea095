# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known of each replica before a rollout: from the inventory, from its host, from the balancers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.admission import is_rollout
from ansible_collections.llmops.vllm.plugins.module_utils._fleet import urls

IDENTITY = ("release", "model", "model_revision", "version")


@dataclass(frozen=True)
class Stand:
    """A release as a plan speaks of it."""

    id: str
    model: str = ""
    model_revision: str = ""
    version: str = ""
    refused: str = ""  # why it must not be activated; empty when it may
    mark: str = ""  # bad or held, where that is the reason
    differences: tuple[Mapping[str, str], ...] = ()

    def words(self) -> dict[str, str]:
        """What the steps of the rollout need to know of it."""
        return dict(zip(IDENTITY, (self.id, self.model, self.model_revision, self.version)))


@dataclass
class Known:
    """One replica."""

    id: str
    name: str
    host: str
    pool: str
    unit: str
    url: str
    port: int
    address: str
    gpus: list[Any] = field(default_factory=list)
    problem: str = ""  # why its host could not be asked; empty when it was
    current: Stand | None = None
    pending: Stand | None = None
    previous: Stand | None = None
    verified: bool = False
    answers: bool = False  # its process, by /health
    running_release: str = ""
    in_rotation: bool = False  # at every balancer that answered
    drained_by: tuple[str, ...] = ()

    @property
    def outdated(self) -> bool:
        """Whether its process was started with another release than the one in force."""
        return bool(self.current and self.running_release and self.running_release != self.current.id)

    @property
    def interrupted(self) -> bool:
        """Whether a rollout left it behind: drained by one, or switched and never proven."""
        return any(is_rollout(by) for by in self.drained_by) or (self.current is not None and not self.verified)

    @property
    def held_out(self) -> str:
        """Who drained it, where that was no rollout; empty when nobody did."""
        return next((by or "somebody" for by in self.drained_by if not is_rollout(by)), "")


def known(
    replicas: Iterable[Mapping[str, Any]],
    seen: Mapping[str, Mapping[str, Any]],
    staged: Mapping[str, Iterable[Mapping[str, Any]]],
    balancers: Mapping[str, Mapping[str, Any]],
) -> list[Known]:
    """Join what is known.

    ``replicas`` is what ``fleet_replicas`` returns; ``seen`` maps a host to the result of ``vllm_info`` with
    ``releases`` there, ``staged`` to the results of ``vllm_release`` when its candidates were staged, which in check
    mode nobody finds on its disk. ``balancers`` maps those that answered to what ``balancer_info`` returned.
    """
    treated: dict[str, list[Mapping[str, Any]]] = {}
    for told in balancers.values():
        for row in told["status"]["replicas"]:
            treated.setdefault(row["id"], []).append(row)
    return [_one(replica, seen, staged, treated.get(replica["id"], [])) for replica in replicas]


def _one(
    replica: Mapping[str, Any],
    seen: Mapping[str, Mapping[str, Any]],
    staged: Mapping[str, Iterable[Mapping[str, Any]]],
    rows: list[Mapping[str, Any]],
) -> Known:
    found = Known(
        **{key: replica[key] for key in ("id", "name", "host", "pool", "unit", "port", "address", "gpus")},
        url=urls([replica])[0]["url"],
        in_rotation=bool(rows) and all(row["in_rotation"] for row in rows),
        drained_by=tuple(row.get("by", "") for row in rows if row["administrative"] == "drained"),
    )
    told = seen.get(found.host) or {}
    facts = next((row for row in told.get("replicas") or [] if row["id"] == found.id), None)
    if facts is None:
        found.problem = str(told.get("msg") or "the host was not asked").strip().splitlines()[0]
        return found
    releases = facts.get("releases") or {}
    found.current, found.pending, found.previous = (
        _stand(releases[key]) if releases.get(key) else None for key in ("current", "pending", "previous")
    )
    found.verified = bool(facts.get("verified"))
    found.answers = facts.get("health") == "ok"
    found.running_release = facts.get("running_release") or ""
    for result in staged.get(found.host, []):
        if (result.get("__vllm_replica") or {}).get("name") == found.name and result.get("pending"):
            found.pending = _staged(result, found.pending)
    return found


def _stand(document: Mapping[str, Any]) -> Stand:
    mark = next((mark for mark in ("bad", "held") if document.get(mark)), "")
    refused = f"it is marked {mark}: {document[mark]}" if mark else str(document.get("problem") or "")
    return Stand(
        id=document["id"],
        **{key: str(document.get(key) or "") for key in IDENTITY[1:]},
        refused=refused,
        mark=mark,
        differences=tuple(document.get("differences") or ()),
    )


def _staged(result: Mapping[str, Any], on_disk: Stand | None) -> Stand:
    """The candidate by what staging said of it; by the disk, where it is there already."""
    if on_disk is not None and on_disk.id == result["release"]:
        return on_disk
    after = {row["name"]: row["after"] for row in result.get("differences") or []}
    return _stand(
        {
            "id": result["release"],
            "bad": result.get("bad"),
            "held": result.get("held"),
            "model": after.get("model_name", ""),
            "model_revision": after.get("model_revision", ""),
            "version": after.get("version", ""),
            "differences": result.get("differences") or [],
        }
    )
