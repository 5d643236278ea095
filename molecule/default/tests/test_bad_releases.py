"""What vLLM itself must refuse, judged by the installed vLLM on a server host, while the replica goes on serving."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import SERVERS, Client, ansible, host

ADAPTER = "/opt/adapter-of-rank-64"
# case: (settings, words that the operator reads)
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown flag": ({"no-such-flag": 5}, ["no-such-flag"]),
    "misspelt flag": ({"max-num-seq": 16}, ["max-num-seq", "max-num-seqs"]),
    "flag removed in this version": ({"swap-space": 4}, ["swap-space", "0.17"]),
    "false for an unknown key, which vLLM ignores": ({"no-such-key": False}, ["no-such-key"]),
    "abbreviation": ({"max-num-b": 4096}, ["max-num-b", "max-num-batched-tokens"]),
    "wrong type": ({"max-num-seqs": "many"}, ["max-num-seqs", "many"]),
    "bad choice": ({"kv-cache-dtype": "fp9"}, ["kv-cache-dtype", "fp9"]),
    "context longer than the model's": ({"max-model-len": 1000000}, ["1000000", "4096"]),
    "tensor parallel that does not divide the heads": ({"tensor-parallel-size": 3}, ["tensor-parallel-size", "3"]),
    "model directory missing": ({"model": "/srv/llm-models/none/x"}, ["/srv/llm-models/none/x"]),
    "adapter of a higher rank": (
        {"enable-lora": True, "lora-modules": [f"fr={ADAPTER}"]},
        ["LoRA rank 64", "set max-lora-rank to 64"],
    ),
    "adapter without LoRA": ({"lora-modules": [f"fr={ADAPTER}"]}, ["write enable-lora: true"]),
    "adapter directory missing": (
        {"enable-lora": True, "lora-modules": ["fr=/srv/llm-models/fr/1"]},
        ["adapter directory /srv/llm-models/fr/1"],
    ),
}


def serving() -> tuple[str, str]:
    """What must not change: the running process and the release in force."""
    server = host(SERVERS[0])
    invocation = server.check_output("systemctl show -p InvocationID --value vllm@r0")
    return invocation, server.check_output("readlink /etc/vllm/r0/current")


@pytest.fixture(scope="module")
def verdicts() -> dict[str, dict[str, Any]]:
    """All cases in one call: one import of vLLM judges them all."""
    server = host(SERVERS[0])
    config = json.dumps({"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["q_proj"]})
    server.check_output(f"mkdir -p {ADAPTER} && echo '{config}' > {ADAPTER}/adapter_config.json")
    good = {"model": server.check_output("readlink -f /etc/vllm/r0/current/model"), "max-model-len": 1024}
    configs = [{"name": "good", "settings": good}]
    configs += [{"name": name, "settings": {**good, **settings}} for name, (settings, _unused) in BAD.items()]
    arguments = {
        "env": server.check_output("readlink -f /etc/vllm/r0/current/env"),
        "user": "vllm",
        "configs": configs,
        "report_only": True,
    }
    done = ansible("ansible", SERVERS[0], "-m", "llmops.vllm.vllm_config_check", "-a", json.dumps(arguments))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout.split("=>", 1)[1])["results"]
    return {row["name"]: row for row in results}


def test_good_settings_pass_with_their_effective_values(verdicts: dict[str, dict[str, Any]]) -> None:
    assert verdicts["good"]["ok"], verdicts["good"]
    assert verdicts["good"]["effective"]["max_model_len"] == 1024


@pytest.mark.parametrize("case", BAD)
def test_bad_setting_is_refused_in_words(verdicts: dict[str, dict[str, Any]], case: str) -> None:
    assert not verdicts[case]["ok"]
    told = json.dumps(verdicts[case]["errors"])
    assert [word for word in BAD[case][1] if word not in told] == [], told


def test_bad_flag_stops_the_run_before_anything_that_serves_changed(client: Client) -> None:
    before = serving()
    wish = json.dumps({"vllm_flags": {"max-num-seq": 16, "enforce-eager": True}})
    done = ansible("ansible-playbook", "llmops.vllm.site", "--limit", SERVERS[0], "--tags", "stage", "-e", wish)
    assert done.returncode != 0
    assert "max-num-seqs" in done.stdout, done.stdout[-3000:]
    assert serving() == before
    assert host(SERVERS[0]).file("/etc/vllm/r0/staged").exists is False
    assert client.chat("lb1").status == 200
