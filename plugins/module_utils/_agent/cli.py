# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``llm-balancer``: what a person on a balancer asks of its agent."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.llmops.vllm.plugins.module_utils._agent import show, targets
from ansible_collections.llmops.vllm.plugins.module_utils._agent.client import SOCKET, AgentError, Control, Waited
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

DONE, NOT_DONE, NOT_ASKED = 0, 1, 2
WAIT_SECONDS = 600.0
EXIT_STATUS = """\
exit status: 0 done, nothing is wrong; 1 refused, a wait that ran out, or (status) something is wrong;
2 the agent could not be asked, or was asked for what does not exist.

ID is a replica (gpu1/r0), the beginning of one that no other has, a host or a pool.
drain and undrain act on this balancer; its peers follow within seconds."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        "llm-balancer", description=__doc__, epilog=EXIT_STATUS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--socket", default=SOCKET, help="control socket of the agent (%(default)s)")
    made.add_argument("--json", action="store_true", help="what the agent answered, for programs")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("status", help="this balancer, its pools and replicas")
    explain = verbs.add_parser("explain", help="why a replica is in rotation or not")
    explain.add_argument("id", metavar="ID")
    for verb, text in (("drain", "no new requests; running ones finish"), ("undrain", "put back")):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("ids", metavar="ID", nargs="+")
        one.add_argument("--reason", default="", help="shown by status and explain")
        one.add_argument("--force", action="store_true", help="even below the pool's minimum")
        if verb == "drain":
            one.add_argument("--wait", action="store_true", help="until no request is in flight from here")
            one.add_argument("--timeout", type=float, default=WAIT_SECONDS, help="seconds to wait (%(default)g)")
    for verb, text in (("away", "give the address away and take no traffic"), ("present", "take traffic again")):
        one = verbs.add_parser(verb, help=text)
        one.add_argument("--reason", default="", help="shown by status")
    for one in verbs.choices.values():
        # also behind the verb, where a tired person types it
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return made


def main(words: Sequence[str] | None = None, now: Callable[[], float] = time.time) -> int:
    """Do what the command line says; return the exit status."""
    asked = parser().parse_args(words)
    try:
        return _act(asked, Control(asked.socket), now())
    except AgentError as problem:
        _complain(problem)
        return NOT_DONE if problem.status >= 409 else NOT_ASKED
    except LlmopsError as problem:
        _complain(problem)
        return NOT_ASKED
    except BrokenPipeError:
        # `llm-balancer status | head`: what is left at the end must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return NOT_DONE


def _complain(problem: Exception) -> None:
    print(f"llm-balancer: {problem}", file=sys.stderr)


def _act(asked: argparse.Namespace, agent: Control, now: float) -> int:
    if asked.verb in ("away", "present"):
        return _presence(asked, agent)
    document = agent.status()
    if asked.verb == "status":
        _tell(asked, document, show.status(document, now))
        return NOT_DONE if _is_wrong(document) else DONE
    members = {row["id"]: row["pool"] for row in document["replicas"]}
    if asked.verb == "explain":
        ids = targets.resolve([asked.id], members, prefixes=True)
        if len(ids) > 1:
            raise targets.TargetError(f"{asked.id} is {', '.join(ids)}: explain one of them")
        row = agent.explain(ids[0])
        _tell(asked, row, show.explain(row, now))
        return DONE
    return _change(asked, agent, targets.resolve(asked.ids, members, prefixes=True), document)


def _change(asked: argparse.Namespace, agent: Control, ids: Sequence[str], before: Mapping[str, Any]) -> int:
    state = "drained" if asked.verb == "drain" else "active"
    done = agent.set_state(ids, state, asked.reason, _person(), asked.force)
    lines = [f"{replica}: {done['before'][replica]} -> {done['after'][replica]}" for replica in ids]
    if not done["changed"]:
        lines = [f"{replica}: is {state} already" for replica in ids]
    silent = [peer["name"] for peer in before["peers"] if not peer["reachable"]]
    if silent:
        lines.append(f"{', '.join(silent)} did not answer this balancer: it follows when it does")
    if not getattr(asked, "wait", False):
        _tell(asked, done, lines)
        return DONE
    if not asked.json:
        print("\n".join(lines), flush=True)
    waited = agent.wait_idle(ids, asked.timeout, progress=None if asked.json else _Progress())
    left = f"{waited.words()} still in flight after {waited.elapsed:.0f} s; drained all the same"
    told = f"no request is in flight from here after {waited.elapsed:.1f} s" if waited.idle else left
    _tell(asked, {**done, "inflight": waited.inflight, "elapsed": waited.elapsed, "idle": waited.idle}, [told])
    return DONE if waited.idle else NOT_DONE


class _Progress:
    """Says what is waited for, whenever that changes."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, seen: Waited) -> None:
        if seen.words() != self._said:
            self._said = seen.words()
            print(f"{seen.elapsed:6.1f} s  in flight: {self._said}", flush=True)


def _presence(asked: argparse.Namespace, agent: Control) -> int:
    done = agent.set_balancer(asked.verb, _person(), asked.reason)
    was = "" if done["changed"] else " already"
    _tell(asked, done, [f"this balancer is {asked.verb}{was}"])
    return DONE


def _tell(asked: argparse.Namespace, document: Mapping[str, Any], lines: Sequence[str]) -> None:
    print(json.dumps(document, indent=2, sort_keys=True) if asked.json else "\n".join(lines), flush=True)


def _is_wrong(document: Mapping[str, Any]) -> bool:
    """Tell whether something is so that nobody decided it: what is drained is meant to be out."""
    balancer, engine = document["balancer"], document["engine"]
    own = engine["alive"] and engine["confirmed"] and balancer["synced"] and not document["membership"]["problems"]
    peers = all(peer["reachable"] for peer in document["peers"])
    out = [r for r in document["replicas"] if r["administrative"] == "active" and (r["held"] or not r["in_rotation"])]
    return bool(not own or not peers or out or any(pool["panic"] for pool in document["pools"]))


def _person() -> str:
    """Who types: the one behind sudo, where there is one."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


if __name__ == "__main__":
    sys.exit(main())
