"""Runs many ansible commands for the price of one start (1 to 2 s), each in a fork of a process that has imported all.

Reads a JSON list of command lines (lists of words) from standard input, writes a list of ``{rc, out}``.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_CLASSES = {
    "ansible": ("adhoc", "AdHocCLI"),
    "ansible-playbook": ("playbook", "PlaybookCLI"),
    "ansible-doc": ("doc", "DocCLI"),
    "ansible-vault": ("vault", "VaultCLI"),
}


@dataclass(frozen=True)
class Ended:
    """Exit status of a command, and all that it printed."""

    rc: int
    out: str


def run(commands: Sequence[Sequence[str]], *, cwd: Path, env: Mapping[str, str]) -> list[Ended]:
    """Run the commands one after the other in this directory."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(commands),
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return [Ended(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def _call(module: str, name: str, words: list[str]) -> NoReturn:
    """End this process as the command ends, without what Python does at its end: the parent still needs its files."""
    code = 0
    try:
        getattr(importlib.import_module(f"ansible.cli.{module}"), name).cli_executor(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _in_a_fork(words: list[str]) -> dict[str, object]:
    module, name = _CLASSES[words[0]]
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            _call(module, name, words)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        return {"rc": code, "out": printed.read().decode(errors="replace")}


if __name__ == "__main__":
    for module, _ in _CLASSES.values():
        importlib.import_module(f"ansible.cli.{module}")
    print(json.dumps([_in_a_fork(words) for words in json.load(sys.stdin)]))
