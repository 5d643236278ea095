# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarts a replica of this host that an agent says is wedged, when nobody objects and the host sees it, too.

``python3 -m ansible_collections.llmops.vllm.plugins.module_utils._watchdog.main /etc/vllm-watchdog/config.json`` is one
turn; a timer starts it every few seconds. It runs as root, so it is told nothing that it does not check.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.peer import ask
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog import commands, record
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.config import Config, Own, all_keys, keys_of, load
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.look import Sight, look, unit_of
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.memory import Memory
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.parts import parts
from ansible_collections.llmops.vllm.plugins.module_utils._watchdog.permits import Permit, Refused, permit_for

PER_HOUR = 3  # restarts of one replica, whatever agents say
GONE_SECONDS = 10.0  # for a killed process to be gone
SLACK_SECONDS = 5.0  # between what an agent measured and what systemd noted


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


class Watchdog:
    """One turn: ask, judge, look, record, restart."""

    def __init__(
        self, config: Config, run: commands.Run = commands.run, log: Callable[[str], None] | None = None
    ) -> None:
        """``run`` runs programs, ``log`` takes lines of JSON."""
        self._config, self._run, self._log = config, run, log or _say
        self._memory = Memory(Path(config.run) / "memory.json")
        self._incidents = Path(config.state) / "incidents"

    def turn(self) -> None:
        """Do what is due for every replica of this host."""
        answers = self._ask()
        refusals = {own.id: self._care_for(own, answers) for own in self._config.replicas}
        for topic in {*refusals, *self._memory.topics()}:
            if topic in refusals or not topic.startswith("agent "):
                why = refusals.get(topic, "")
                if self._memory.is_new(topic, why) and why:
                    self._tell("refused", replica=topic, reason=why)
        with contextlib.suppress(OSError):  # what is said twice harms nobody
            self._memory.save()

    def _ask(self) -> dict[str, dict[str, Any]]:
        """Ask all agents; those that do not answer, or cannot be believed, are left out and told once."""
        keys = all_keys(self._config)

        async def everyone() -> list[dict[str, Any] | BaseException]:
            questions = [ask(agent.address, agent.port, keys, agent.name) for agent in self._config.agents]
            return await asyncio.gather(*questions, return_exceptions=True)

        answers = {}
        for agent, answer in zip(self._config.agents, asyncio.run(everyone())):
            if isinstance(answer, dict):
                answers[agent.name] = answer
            elif not isinstance(answer, LlmopsError):
                raise answer
            problem = str(answer) if isinstance(answer, LlmopsError) else ""
            if self._memory.is_new(f"agent {agent.name}", problem):
                self._tell("agent_silent" if problem else "agent_answers", agent=agent.name, reason=problem)
        return answers

    def _care_for(self, own: Own, answers: dict[str, dict[str, Any]]) -> str:
        """Restart the replica if it is time; else say why not, "" when nobody wants it."""
        try:
            permit = permit_for(own, answers, self._memory.handled())
            if permit is None:
                return ""
            if self._memory.last_hour(own.id) >= PER_HOUR:
                raise Refused(permit.incident, f"{PER_HOUR} restarts in this hour were enough: look at the replica")
            unit = unit_of(own.unit, self._run)
            if not unit.active:
                raise Refused(permit.incident, unit.words)
            if unit.age + SLACK_SECONDS < permit.wedged_seconds:
                raise Refused(permit.incident, "it has been started since the agents saw it wedged")
            keys = keys_of(self._config, own.name)
            sight = look(own.url, keys)
            if not sight.wedged:
                raise Refused(permit.incident, f"this host sees no wedge: {sight.words}")
            began = time.monotonic()
            saved = record.save(
                self._incidents, permit.incident, _facts(own, permit, sight, answers), parts(own, unit, self._run), keys
            )
            # the record took seconds, in which somebody may have drained it
            again = permit_for(own, self._ask(), self._memory.handled())
            if again is None or again.incident != permit.incident:
                raise Refused(permit.incident, "the permit was withdrawn while the flight record was made")
            try:
                self._memory.handle(permit.incident, own.id)
            except OSError as problem:
                raise Refused(permit.incident, f"cannot remember that it was done: {problem}") from None
        except Refused as refusal:
            return f"incident {refusal.incident}: {refusal}"
        failed = self._restart(own.unit, unit.main_pid)
        self._tell(
            "restart_failed" if failed else "restarted",
            incident=permit.incident,
            replica=own.id,
            unit=own.unit,
            reason=failed or f"{permit.reason}; this host: {sight.words}",
            numbers=sight.numbers,
            record=saved.directory,
            record_problem=saved.problem,
            failed_parts=saved.notes,
            seconds=round(time.monotonic() - began, 1),
        )
        return ""

    def _restart(self, unit: str, main_pid: int) -> str:
        """Kill and start the unit; return what went wrong. A wedged vLLM ignores SIGTERM and finishes no request."""
        self._run(["systemctl", "kill", "--signal=SIGKILL", "--", unit], 10)
        end = time.monotonic() + GONE_SECONDS
        while time.monotonic() < end and unit_of(unit, self._run).main_pid == main_pid:
            time.sleep(0.2)
        # a unit that crashed often before would not be started again
        self._run(["systemctl", "reset-failed", "--", unit], 10)
        return self._run(["systemctl", "restart", "--no-block", "--", unit], 10).problem

    def _tell(self, event: str, **fields: Any) -> None:
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._log(json.dumps({"time": now, "event": event, **fields}))


def _facts(own: Own, permit: Permit, sight: Sight, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "incident": permit.incident,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "replica": own.id,
        "pool": own.pool,
        "unit": own.unit,
        "url": own.url,
        "reason": permit.reason,
        "host_saw": {"words": sight.words, **sight.numbers},
        "agents": {name: {"wedged": answer["wedged"], "synced": answer["synced"]} for name, answer in answers.items()},
    }


def main(arguments: list[str]) -> int:
    """Do one turn with a configuration file; 2 when that cannot be used."""
    try:
        config = load(Path(arguments[1] if len(arguments) == 2 else "/etc/vllm-watchdog/config.json"))
        Path(config.run).mkdir(mode=0o700, exist_ok=True)
        with open(Path(config.run) / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Watchdog(config).turn()
    except BlockingIOError:
        return 0  # another turn runs
    except LlmopsError as problem:
        sys.stderr.write(f"{problem}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
