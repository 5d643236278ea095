# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The name of a run, and whether such a run still lives."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.llmops.vllm.plugins.module_utils._agent.admission import is_rollout
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.run import dead, identity, steps

TELL = """
import os, sys
from ansible_collections.llmops.vllm.plugins.module_utils._rollout.run import identity
read, write = os.pipe()
if os.fork() == 0:  # as Ansible does for each task
    os.write(write, identity("update")["holder"].encode())
    os._exit(0)
os.wait()
print(os.read(read, 4096).decode(), flush=True)
sys.stdin.read()
"""


def test_a_run_lives_as_long_as_its_process_and_not_as_the_fork_that_named_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TELL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.environ["ANSIBLE_COLLECTIONS_PATH"].split(":")[0]},
    ) as run:
        assert run.stdout
        holder = run.stdout.readline().strip()
        assert is_rollout(holder)
        assert f".{run.pid}." in holder
        assert dead([holder]) == []
        run.kill()
        run.wait()
        assert dead([holder]) == [holder]


def test_of_others_nothing_is_known() -> None:
    mine = identity("update")["holder"]
    elsewhere = mine.rsplit(" ", 1)[0] + " 00000000.1.1"
    assert dead(["alice, drain.yml", elsewhere, "rollout", "rollout x"]) == []
    assert not is_rollout("alice, drain.yml")


def test_a_process_id_that_was_used_again_is_another_process() -> None:
    holder = identity("update")["holder"]
    assert dead([holder]) == []
    place, pid, began = holder.rsplit(" ", 1)[-1].split(".")
    assert dead([f"rollout x {place}.{pid}.{int(began) - 1}"])


def test_identity_says_who_and_when() -> None:
    run = identity("restart", now=1_790_000_000)
    assert run["ident"].startswith("20260921T")
    assert run["started"].startswith("2026-09-21T")
    assert run["ident"] in run["holder"]
    assert run["who"] in run["holder"]
    assert run["action"] == "restart"


def test_steps_last_until_the_next_one_begins() -> None:
    marks = [{"name": "drain", "at": 10.0}, {"name": "stop", "at": 12.5}, {"name": "end", "at": 13}]
    assert steps(marks) == [{"name": "drain", "seconds": 2.5}, {"name": "stop", "seconds": 0.5}]
    assert steps([]) == []


def test_the_way_back_is_one_step() -> None:
    names = ["drain", "stop", "start", "go_back", "drain", "stop", "start", "put_back", "end"]
    marks = [{"name": name, "at": at} for at, name in enumerate(names)]
    assert [step["name"] for step in steps(marks)] == ["drain", "stop", "start", "go_back"]
    assert steps(marks)[-1]["seconds"] == 5
