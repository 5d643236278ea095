# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the agent's view into NGINX's own upstream groups: runs as root, by llm-balancer-apply.service.

The agent is not root, and whoever owns it must gain nothing here: the view is read as foreign text, each value must
have its narrow form, and nothing of it but numbers, addresses and checked names reaches NGINX's files.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import API, Peer, View
from ansible_collections.llmops.vllm.plugins.module_utils._balancer.names import server_address, upstream_name
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError

LARGEST = 4 << 20  # bytes of a view
WEIGHTS = 10  # NGINX's weights are whole numbers: steps of a tenth
_POOL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[A-Za-z0-9._/:@+~-]{1,255}")
_FIELDS = {"id", "pool", "address", "port", "state", "weight", "since"}


class ApplyError(LlmopsError):
    """The view is not valid, or NGINX does not take it; what was in force stays in force."""


@dataclass(frozen=True)
class Commands:
    """How to check NGINX's configuration and how to bring it into force."""

    check: Sequence[str] = ("nginx", "-t", "-q")
    reload: Sequence[str] = ("systemctl", "try-reload-or-restart", "nginx.service")


def read(path: pathlib.Path) -> View:
    """Return the view of a file that the agent owns; ApplyError when it is no plain file or not valid."""
    try:
        # neither a link to a file of root's nor a pipe that never ends
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ApplyError(f"{path}: is no plain file")
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise ApplyError(f"{path}: {error.strerror}") from error
    if len(text) > LARGEST:
        raise ApplyError(f"{path}: is larger than {LARGEST} bytes")
    try:
        return validate(text)
    except ApplyError as error:
        raise ApplyError(f"{path}: {error}; NGINX keeps its former view") from error


def validate(text: bytes) -> View:
    """Return the view that the text describes; ApplyError when any value has not its narrow form."""
    try:
        found = json.loads(text.decode())
        known = isinstance(found, dict) and set(found) == {"id", *View().document()} and found["version"] == API
        if not known or not all(isinstance(peer, dict) and set(peer) == _FIELDS for peer in found["peers"]):
            raise ApplyError("is no view of this version")
        view = View.parse(text.decode())
        expected = view.id
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ApplyError("is no view") from error
    seen: set[str] = set()
    for number, peer in enumerate(found["peers"], 1):
        wrong = _wrong(peer) or ("id, which an earlier one has" if peer["id"] in seen else "")
        if wrong:
            raise ApplyError(f"peer {number} has no valid {wrong}")
        seen.add(peer["id"])
    groups: dict[str, str] = {}
    for peer in view.peers:
        if groups.setdefault(upstream_name(peer.pool).lower(), peer.pool) != peer.pool:
            raise ApplyError("two pools have one name to NGINX")
    if found["id"] != expected:
        raise ApplyError("its id is not its digest")
    return view


def _wrong(peer: dict[str, Any]) -> str:
    """Return the first field that has not its form, "" when all have."""
    if not (isinstance(peer["id"], str) and _ID.fullmatch(peer["id"])):
        return "id"
    if not (isinstance(peer["pool"], str) and _POOL.fullmatch(peer["pool"])):
        return "pool"
    if isinstance(peer["port"], bool) or not (isinstance(peer["port"], int) and 1 <= peer["port"] <= 65535):
        return "port"
    if peer["state"] not in ("up", "down", "drain"):
        return "state"
    if not (type(peer["weight"]) in (int, float) and 0 < peer["weight"] <= 1):
        return "weight"
    return "" if _is_address(peer["address"]) else "address"


def _is_address(text: Any) -> bool:
    try:
        return isinstance(text, str) and "%" not in text and bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def render(view: View) -> dict[str, str]:
    """Return the files of a view by name: a group's lines for each pool, and the view's id for /lb-health."""
    pools: defaultdict[str, list[Peer]] = defaultdict(list)
    for peer in view.peers:
        pools[peer.pool].append(peer)
    files = {"view.map": f'"" "{view.id}";\n'}
    for pool, peers in pools.items():
        # none is up: better a doubtful replica than a certain error, as in the lua form
        wanted = ("up",) if any(peer.state == "up" for peer in peers) else ("up", "down")
        files[f"{upstream_name(pool)}.conf"] = "".join(
            f"server {server_address(str(ipaddress.ip_address(peer.address)), peer.port)} max_fails=0"
            f" weight={max(1, round(peer.weight * WEIGHTS))}{'' if peer.state in wanted else ' down'};\n"
            for peer in peers
        )
    return files


def install(view: View, place: pathlib.Path, commands: Commands) -> None:
    """Bring a view into force; ApplyError when NGINX refuses it, and then the former one stands again.

    ``place/current`` is a link to the files of one view, so one rename changes all groups at once.
    """
    current = place / "current"
    former = str(current.readlink()) if current.is_symlink() else None
    folder = place / view.id
    if former != view.id:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o755)
        for name, text in render(view).items():
            (folder / name).write_text(text)
    _point(current, view.id)
    try:
        _run(commands.check)
    except ApplyError:
        if former is None:
            current.unlink()
        else:
            _point(current, former)
        raise
    _run(commands.reload)
    for old in place.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name not in (view.id, former):
            shutil.rmtree(old)


def _point(link: pathlib.Path, target: str) -> None:
    new = link.with_name("current.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ApplyError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise ApplyError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()[-500:]}")


def apply(source: pathlib.Path, place: pathlib.Path, commands: Commands) -> list[str]:
    """Bring the view of a file into force, and each that is written meanwhile; return their ids.

    A path unit does not see what changes while its service runs.
    """
    done: list[str] = []
    with open(place / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while not done or read(source).id != done[-1]:
            view = read(source)
            install(view, place, commands)
            done.append(view.id)
    return done


def main(arguments: Sequence[str]) -> int:
    """Take the view's file and NGINX's directory of views; return 0, or 1 with the reason on standard error."""
    try:
        done = apply(pathlib.Path(arguments[0]), pathlib.Path(arguments[1]), Commands())
    except (ApplyError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"in force: view {', '.join(done)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
