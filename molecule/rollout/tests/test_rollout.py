"""Rollouts on real vLLM under load: nobody notices. Each test builds on the one before."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from tests.traffic import rollout, seen
from tests.traffic.fleet import CLIENT, REAL, key, sh
from tests.traffic.load import CA, SERVICE, under_load
from tools import tiny_model
from tools.sandbox.layout import MODEL_NAME, MODELS

LOAD = ("--rate", "2", "--tokens", "4-24", "--words", "5-20", "--timeout", "180")
# two cores carry three engines and the load: a canary that has both to itself for a while is no measure of latency
GATES: dict[str, Any] = {
    "llmops_rollout_golden": str(pathlib.Path(__file__).parent / "golden.yml"),
    "llmops_rollout_shadow": {"requests": 20, "samples": 10, "timeout": 120, "ttft_seconds": 2, "itl_seconds": 1},
    "llmops_rollout_canary": {
        "soak": 20,
        "timeout": 180,
        "samples": 10,
        "ignore": 3,
        "ttft_seconds": 2,
        "itl_seconds": 1,
        "output_length": 1000,
    },
    "llmops_rollout_burn_in": 20,
    "llmops_rollout_drain_timeout": 180,
}
NEW_MODEL = {"llmops_model_source": f"controller://{MODELS}/b", "llmops_model_revision": "b"}
FLAGS = {
    "max-model-len": 1024,
    "max-num-seqs": 12,
    "kv-cache-memory-bytes": 67108864,
    "enforce-eager": True,
    "distributed-executor-backend": "uni",
}


def under_load_play(variables: dict[str, Any], action: str = "rollout") -> rollout.Rollout:
    with under_load(*LOAD) as loads:
        done = rollout.play(REAL, {**GATES, **variables}, action=action)
    rows = loads[0].rows
    print(f"{action}: {done.seconds:.0f} s, {len(rows)} requests, {len(seen.bad(rows))} failed")
    for entry in done.record["entries"]:
        print(entry["id"], entry["outcome"], [(step["name"], step["seconds"]) for step in entry["steps"]])
    assert len(rows) > 100
    assert seen.bad(rows) == []
    return done


def test_a_revision_of_the_model() -> None:
    before = rollout.releases(REAL)
    done = under_load_play(NEW_MODEL)
    assert set(done.outcomes().values()) == {"done"}
    assert [entry["id"] for entry in done.record["entries"]] == ["gpu1/r0", "gpu2/r0", "gpu3/r0"]
    assert [entry["canary"] for entry in done.record["entries"]] == [True, False, False]
    assert done.entry("gpu1/r0")["to"]["model_revision"] == "b"
    now = rollout.releases(REAL)
    assert [one for one in now if now[one] == before[one]] == []
    for one in REAL.replicas:
        assert 'model_version="b"' in sh(one.host, f"cat /var/lib/prometheus/node-exporter/vllm_{one.name}.prom")
    assert "tiny" in (told := REAL.playbook("status")) and "  b  " in told and "  a  " not in told


def test_a_second_run_touches_nobody() -> None:
    before = rollout.processes(REAL)
    again = rollout.play(REAL, {**GATES, **NEW_MODEL})
    assert "nothing to do" in again.printed
    assert again.record == {}
    assert "changed=0" in again.printed
    assert not any(f"changed={number}" in again.printed for number in range(1, 10))
    assert rollout.processes(REAL) == before


def flip_last_bit(host: str, pattern: str) -> None:
    """In place: length and header stay what they were. A second time brings the file back."""
    program = """import sys
with open(sys.argv[1], "r+b") as weights:
    weights.seek(-1, 2)
    last = weights.read()[0]
    weights.seek(-1, 2)
    weights.write(bytes([last ^ 1]))
"""
    sh(host, f"python3 - {pattern}", given=program)


def test_weights_that_were_altered_are_told_before_the_first_drain() -> None:
    """Where every byte is to be read: by the lengths and headers alone these weights are whole."""
    before = rollout.processes(REAL)
    flip_last_bit("gpu2", "/srv/llm-models/*/b/model.safetensors")
    try:
        given = {**GATES, **NEW_MODEL, "vllm_flags": FLAGS, "llm_model_verify": "sha256"}
        refused = rollout.play(REAL, given, expected=2)
    finally:
        flip_last_bit("gpu2", "/srv/llm-models/*/b/model.safetensors")
    assert "holds model.safetensors, which was altered" in refused.printed
    assert refused.record == {}
    assert rollout.processes(REAL) == before


def test_check_mode_tells_the_flag_that_would_change() -> None:
    before = rollout.processes(REAL)
    told = rollout.play(REAL, {**GATES, **NEW_MODEL, "vllm_flags": FLAGS}, "--check").printed
    assert "max-num-seqs: 16 -> 12" in told
    assert "batch 3: gpu3/r0" in told
    assert "by the last measured step times" in told
    assert rollout.processes(REAL) == before


def test_a_flag() -> None:
    done = under_load_play({**NEW_MODEL, "vllm_flags": FLAGS})
    assert {"name": "max-num-seqs", "before": "16", "after": "12"} in done.entry("gpu2/r0")["differences"]


def test_the_way_back_which_is_held_until_it_is_told_otherwise() -> None:
    before = rollout.releases(REAL)
    done = under_load_play({}, action="rollback")
    assert set(done.outcomes().values()) == {"done"}
    now = rollout.releases(REAL)
    assert [one for one in now if now[one] == before[one]] == []
    refused = rollout.play(REAL, {**GATES, **NEW_MODEL, "vllm_flags": FLAGS}, expected=2)
    assert "it is marked held: rolled back by" in refused.printed
    assert rollout.releases(REAL) == now


@pytest.mark.parametrize("replica", ["gpu2/r0"])
def test_a_restart_of_one(replica: str) -> None:
    releases, before = rollout.releases(REAL), rollout.processes(REAL)
    under_load_play({"llmops_rollout_replicas": [replica]}, action="restart")
    assert {one for one, process in rollout.processes(REAL).items() if process != before[one]} == {replica}
    assert rollout.releases(REAL) == releases


def test_a_reboot_of_a_host() -> None:
    releases, before = rollout.releases(REAL), rollout.processes(REAL)
    with rollout.reboots("gpu3"):
        done = under_load_play({"llmops_rollout_replicas": ["gpu3"]}, action="reboot")
    assert done.outcomes() == {"gpu3/*": "done"}
    assert {one for one, process in rollout.processes(REAL).items() if process != before[one]} == {"gpu3/r0"}
    assert rollout.releases(REAL) == releases


def said(model: str) -> str:
    """What a client of the service gets for this name of a model; the same each time."""
    body = {"model": model, "prompt": "Who are you?", "max_tokens": 24, "temperature": 0}
    command = f"curl -sf --cacert {CA} -H 'Content-Type: application/json' -H @- -d '{json.dumps(body)}'"
    told = json.loads(sh(CLIENT, f"{command} {SERVICE}/completions", given=f"Authorization: Bearer {key()}\n"))
    return str(told["choices"][0]["text"])


def test_an_adapter_is_served_beside_its_model_under_its_own_name(tmp_path: pathlib.Path) -> None:
    plain = said(MODEL_NAME)
    source = tiny_model.write_adapter(tmp_path / "adapter")
    adapter = {"name": "pirate", "source": f"controller://{source}", "revision": "1"}
    done = under_load_play({**NEW_MODEL, "llmops_adapters": [adapter]})
    assert set(done.outcomes().values()) == {"done"}
    assert said(MODEL_NAME) == plain
    assert said("pirate") != plain


def test_an_adapter_that_vllm_would_refuse_is_told_before_the_first_drain(tmp_path: pathlib.Path) -> None:
    before = rollout.processes(REAL)
    source = tiny_model.write_adapter(tmp_path / "adapter", rank=64)
    adapter = {"name": "pirate", "source": f"controller://{source}", "revision": "2"}
    refused = rollout.play(REAL, {**GATES, **NEW_MODEL, "llmops_adapters": [adapter]}, expected=2)
    assert "LoRA rank 64 is greater than max_lora_rank 16" in refused.printed
    assert "set max-lora-rank to 64" in refused.printed
    assert rollout.processes(REAL) == before
