# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings about that Alertmanager is silent about some alerts for a while, or is so no longer."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .._errors import LlmopsError
from .json_api import ApiError, JsonApi

# A silence that has this share of the wanted time left is left alone, so that a second run changes nothing.
ENOUGH = 0.9


class SilenceError(LlmopsError):
    """What is asked for cannot be meant."""


class NotReached(LlmopsError):
    """No Alertmanager answered, or none accepted it."""


class Matcher(NamedTuple):
    """What a label must be, or must not be, for an alert to be silenced."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    def __str__(self) -> str:
        sign = {(False, True): "=", (False, False): "!=", (True, True): "=~", (True, False): "!~"}
        return f'{self.name}{sign[self.is_regex, self.is_equal]}"{self.value}"'


@dataclass(frozen=True)
class Wish:
    """The silence that is wanted: its matchers and who makes it tell it from others."""

    matchers: tuple[Matcher, ...]
    creator: str
    comment: str = ""
    seconds: float = 7200

    def __post_init__(self) -> None:
        if not self.matchers:
            raise SilenceError("matchers is empty: a silence of everything is refused; name the alerts that are meant")
        if not self.creator.strip():
            raise SilenceError("creator is empty: by it this silence is found again")
        if self.seconds <= 0:
            raise SilenceError(f"duration is {self.seconds:g}: seconds above 0 are wanted")

    def is_own(self, silence: Mapping[str, Any]) -> bool:
        """Tell whether a silence that holds, or is to hold, is this one."""
        if silence["status"]["state"] == "expired" or silence["createdBy"] != self.creator:
            return False
        found = (Matcher(m["name"], m["value"], m["isRegex"], m.get("isEqual", True)) for m in silence["matchers"])
        return sorted(found) == sorted(self.matchers)

    def body(self, starts: str, ends: datetime.datetime) -> dict[str, Any]:
        """Return the silence as the API takes it."""
        names = ("name", "value", "isRegex", "isEqual")
        return {
            "matchers": [dict(zip(names, matcher)) for matcher in self.matchers],
            "startsAt": starts,
            "endsAt": ends.isoformat(),
            "createdBy": self.creator,
            "comment": self.comment,
        }

    def words(self) -> str:
        """Return the matchers as Alertmanager writes them."""
        return ", ".join(map(str, self.matchers))


@dataclass
class Outcome:
    """What was found and done; ``url`` is that of the Alertmanager which answered."""

    changed: bool = False
    ids: list[str] = field(default_factory=list)
    ends: str | None = None
    url: str = ""
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """What the module returns."""
        told = {"changed": self.changed, "ids": self.ids, "ends_at": self.ends, "url": self.url, "reached": True}
        texts = ("".join(f"{line}\n" for line in lines) for lines in (self.before, self.after))
        return {**told, "diff": dict(zip(("before", "after"), texts))}


def bring_about(
    apis: Sequence[JsonApi], wish: Wish, present: bool, now: datetime.datetime, check: bool = False
) -> Outcome:
    """Make, prolong or end the silence at the first Alertmanager that answers: it tells the others of its cluster."""
    if not apis:
        raise SilenceError("urls is empty: give the address of an Alertmanager")
    problems: list[str] = []
    for api in apis:
        try:
            return _present(api, wish, now, check) if present else _absent(api, wish, check)
        except ApiError as problem:
            problems.append(str(problem))
    raise NotReached("; ".join(problems))


def _present(api: JsonApi, wish: Wish, now: datetime.datetime, check: bool) -> Outcome:
    own = _own(api, wish)
    outcome = Outcome(url=api.url, before=_lines(wish, own))
    ends = now + datetime.timedelta(seconds=wish.seconds)
    newest = max(own, key=lambda silence: _time(silence["endsAt"]), default=None)
    if newest is not None and (_time(newest["endsAt"]) - now).total_seconds() >= ENOUGH * wish.seconds:
        outcome.ids, outcome.ends, outcome.after = [newest["id"]], newest["endsAt"], outcome.before
        return outcome
    body = wish.body(newest["startsAt"] if newest else now.isoformat(), ends)
    if newest is not None:
        body["id"] = newest["id"]
    if not check:
        outcome.ids = [str(_mapping(api, api.post("/api/v2/silences", body)).get("silenceID", ""))]
    elif newest is not None:
        outcome.ids = [newest["id"]]
    outcome.changed, outcome.ends = True, body["endsAt"]
    outcome.after = [f"{wish.words()} until {body['endsAt']}"]
    return outcome


def _absent(api: JsonApi, wish: Wish, check: bool) -> Outcome:
    own = _own(api, wish)
    for silence in own if not check else ():
        api.delete(f"/api/v2/silence/{silence['id']}")
    return Outcome(bool(own), [silence["id"] for silence in own], url=api.url, before=_lines(wish, own))


def _own(api: JsonApi, wish: Wish) -> list[Mapping[str, Any]]:
    found = api.get("/api/v2/silences")
    try:
        return [silence for silence in found if wish.is_own(silence)]
    except (KeyError, TypeError):
        raise ApiError(f"GET {api.url}/api/v2/silences: answered no list of silences: is it an Alertmanager?") from None


def _mapping(api: JsonApi, found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise ApiError(f"POST {api.url}/api/v2/silences: answered no silence: is it an Alertmanager?")
    return found


def _lines(wish: Wish, own: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{wish.words()} until {silence['endsAt']}" for silence in own]


def _time(stamp: str) -> datetime.datetime:
    return datetime.datetime.strptime(stamp[:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
