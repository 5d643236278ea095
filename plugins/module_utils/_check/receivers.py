# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with who is told of alerts. No message ever holds a secret; addresses of webhooks may be secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .problem import Problem, suggest

NOBODY = "none"
WAYS = ("email", "pagerduty_key", "slack_url", "webhook_url")
# Seconds between two signs of life to a dead man's switch.
WATCHDOG = (30, 300)

_RESERVED = (NOBODY, "watchdog")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what keeps alerts from reaching somebody."""
    names = [str(receiver["name"]) for receiver in settings["receivers"]]
    for index, receiver in enumerate(settings["receivers"]):
        yield from _receiver(receiver, names[:index], settings)
    for severity in ("page", "ticket"):
        yield from _route(severity, str(settings[f"{severity}_receiver"]), names)
    for index, route in enumerate(settings["routes"]):
        receiver = str(route.get("receiver", ""))
        if receiver and receiver not in (*names, NOBODY):
            yield _problem(f"routes[{index}]", receiver, _unknown(receiver, names))
    url, interval = str(settings["watchdog_url"]), int(settings["watchdog_interval"])
    if url and not _is_url(url):
        yield _problem("watchdog_url", "", "is no address: give one that begins with https:// or http://")
    if not WATCHDOG[0] <= interval <= WATCHDOG[1]:
        yield _problem("watchdog_interval", interval, f"is {interval} s: give {WATCHDOG[0]} to {WATCHDOG[1]}")
    for name in ("page_wait", "page_repeat", "ticket_wait", "ticket_repeat"):
        if int(settings[name]) < 1:
            yield _problem(name, settings[name], f"is {settings[name]}: give 1 second or more")


def _receiver(receiver: Mapping[str, Any], before: list[str], settings: Mapping[str, Any]) -> Iterator[Problem]:
    name = str(receiver["name"])
    where = f"receivers[{name}]"
    if not _NAME.fullmatch(name):
        yield _problem(where, name, "has a name that is no name of a file: letters, digits, '.', '_' and '-'")
    if name in before:
        yield _problem(where, name, "is there twice: put both ways into one entry, or give another name")
    if name in _RESERVED:
        yield _problem(where, name, "has a name of the role's own: give another name")
    if not any(receiver.get(way) for way in WAYS):
        yield _problem(where, name, f"reaches nobody: give one of {', '.join(WAYS)}")
    for way in WAYS:
        if receiver.get(way) == "":
            yield _problem(f"{where}.{way}", "", "is empty: give it, or remove the line")
    for way in ("slack_url", "webhook_url"):
        if receiver.get(way) and not _is_url(str(receiver[way])):
            yield _problem(f"{where}.{way}", "", "is no address: give one that begins with https:// or http://")
    if receiver.get("webhook_token") and not receiver.get("webhook_url"):
        yield _problem(f"{where}.webhook_token", "", "belongs to a webhook_url, which is missing: give it, too")
    if receiver.get("email"):
        for setting, example in (("smtp_smarthost", "mail.example.com:587"), ("smtp_from", "llm@example.com")):
            if not settings[setting]:
                yield _problem(setting, "", f"is empty, and receiver {name!r} gets e-mail: give it, such as {example}")
        user = settings["smtp_username"]
        if user and not settings["smtp_password"]:
            yield _problem("smtp_password", "", f"is empty, and llm_monitoring_smtp_username is {user!r}: give it")


def _route(severity: str, receiver: str, names: list[str]) -> Iterator[Problem]:
    variable = f"{severity}_receiver"
    if not receiver:
        text = (
            f"is empty, so alerts of severity {severity} would reach nobody: name one of llm_monitoring_receivers "
            f"({', '.join(names) or 'which is empty, too'}), or set it to {NOBODY} if that is meant"
        )
        yield _problem(variable, "", text)
    elif receiver not in (*names, NOBODY):
        yield _problem(variable, receiver, _unknown(receiver, names))


def _unknown(receiver: str, names: list[str]) -> str:
    known = ", ".join(names) or "nobody"
    return f"names {receiver!r}, which is no receiver{suggest(receiver, names)}: llm_monitoring_receivers has {known}"


def _is_url(text: str) -> bool:
    return re.fullmatch(r"https?://[^\s/]+.*", text) is not None


def _problem(name: str, value: Any, text: str) -> Problem:
    return Problem("", f"llm_monitoring_{name}", str(value), text)
