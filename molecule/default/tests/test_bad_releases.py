"""What vLLM itself must refuse, judged by the installed vLLM on a server host, while the replica goes on serving."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from conftest import SERVERS, Client, host

# flag, value -> words that the operator reads
BAD = {
    "unknown": ("no-such-flag", 5, ["no-such-flag"]),
    "misspelt": ("max-num-seq", 16, ["max-num-seq", "max-num-seqs"]),
    "removed": ("swap-space", 4, ["swap-space"]),
    "silent-false": ("no-such-key", False, ["no-such-key"]),
    "wrong-type": ("max-num-seqs", "many", ["max-num-seqs", "many"]),
    "bad-choice": ("kv-cache-dtype", "fp9", ["kv-cache-dtype", "fp9"]),
    "too-long": ("max-model-len", 1000000, ["max-model-len", "1000000"]),
    "heads": ("tensor-parallel-size", 3, ["tensor-parallel-size"]),
}


def play(*extra: str) -> subprocess.CompletedProcess[str]:
    """Stage on one server, as an operator would, with values from the command line."""
    command = ["ansible-playbook", "llmops.vllm.site", "--limit", SERVERS[0], "--tags", "stage", *extra]
    inventory = os.path.join(os.environ["MOLECULE_PROJECT_DIRECTORY"], "inventories", "sandbox")
    return subprocess.run([*command, "-i", inventory], capture_output=True, text=True)


def serving() -> tuple[str, str]:
    """What must not change: the running process and the release in force."""
    server = host(SERVERS[0])
    invocation = server.check_output("systemctl show -p InvocationID --value vllm@r0")
    return invocation, server.check_output("readlink /etc/vllm/r0/current")


@pytest.mark.parametrize("case", BAD)
def test_bad_flag_is_refused_before_anything_that_serves_changed(client: Client, case: str) -> None:
    flag, value, words = BAD[case]
    before = serving()
    done = play("-e", json.dumps({"vllm_flags": {flag: value, "max-model-len": 1024, **({flag: value})}}))
    assert done.returncode != 0
    assert [word for word in words if word not in done.stdout] == [], done.stdout[-3000:]
    assert serving() == before
    assert client.chat("lb1").status == 200
