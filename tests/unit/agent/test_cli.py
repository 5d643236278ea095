"""The command of people, run against an agent on a real socket."""

from __future__ import annotations

import datetime
import json
import pathlib
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import cli

from tests.fakes.agent import Running
from tools.checkout import collections_path

ROOT = pathlib.Path(__file__).resolve().parents[3]
Command = Callable[..., tuple[int, str, str]]
TWO_HOURS_LATER = datetime.datetime(2027, 1, 31, 5, tzinfo=datetime.timezone.utc).timestamp()  # than all began


@pytest.fixture
def command(agent: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("SUDO_USER", "alice")

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["--socket", str(agent.path), *words], now=lambda: TWO_HOURS_LATER)
        return (code, *capsys.readouterr())

    return run


def test_status_is_a_table_that_fits(agent: Running, command: Command) -> None:
    agent.world["peers"] = [{"name": "lb2", "reachable": True, "seconds_ago": 3, "generation": 1}]
    code, out, _err = command("status")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "lb1: present, may hold the address, synced; generation 0"
    assert lines[1] == "engine nginx_lua: runs view view-0, confirmed"
    assert lines[2] == "peer lb2: answers, seen 3 s ago"
    assert lines[4] == "pool chat: 2 of 2 in rotation, minimum 1"
    assert lines[5].split("  ")[1:3] == ["replica", "state"]
    assert lines[6].split() == "g1/r0 active up in 0 0 0 2 h".split()
    assert max(map(len, lines)) <= 100


def test_status_shows_what_is_wrong_and_why_and_says_so_to_scripts(agent: Running, command: Command) -> None:
    agent.world["replicas"]["g2/r0"]["health"] = "down"
    agent.world["problems"] = ["/etc/llm-agent/pools.d/site.json is no JSON: " + "x " * 80]
    agent.world["peers"] = [{"name": "lb2", "reachable": False, "seconds_ago": None, "generation": 0}]
    command("drain", "g3", "--reason", "new kernel")
    command("away")
    agent.store.take_lease("short", "rollout-1", 100)
    code, out, _err = command("status")
    assert code == 1
    assert "AWAY (operator), MUST NOT HOLD THE ADDRESS" in out
    assert "peer lb2: DOES NOT ANSWER, never seen" in out
    assert "PROBLEM: /etc/llm-agent/pools.d/site.json is no JSON" in out
    assert "    drained: new kernel (alice)\n" in out
    assert "    down: connection refused\n" in out
    assert "leased by rollout-1 for 100 s more" in out
    assert max(map(len, out.splitlines())) <= 100


def test_a_drain_that_somebody_decided_is_nothing_wrong(command: Command) -> None:
    command("drain", "g1/r0")
    assert command("status")[0] == 0


def test_drain_and_undrain_by_id_beginning_host_and_pool(agent: Running, command: Command) -> None:
    assert command("drain", "g1/", "g3")[:2] == (0, "g1/r0: active -> drained\ng3/r0: active -> drained\n")
    assert command("drain", "g1/r0")[:2] == (0, "g1/r0: is drained already\n")
    assert command("undrain", "chat", "--force")[1] == "g1/r0: drained -> active\ng2/r0: active -> active\n"
    assert agent.store.intent("g1/r0").by == "alice"


def test_a_drain_says_which_balancer_did_not_hear_it(agent: Running, command: Command) -> None:
    agent.world["peers"] = [{"name": "lb2", "reachable": False, "seconds_ago": 60, "generation": 0}]
    assert "lb2 did not answer this balancer: it follows when it does" in command("drain", "g1")[1]


def test_a_refusal_is_told_with_its_mend(command: Command) -> None:
    code, out, err = command("drain", "chat")
    assert (code, out) == (1, "")
    assert "llm-balancer: pool chat would have 0 of its replicas in rotation" in err
    assert command("drain", "chat", "--force")[0] == 0


def test_wait_shows_what_it_waits_for(agent: Running, command: Command) -> None:
    row = agent.world["replicas"]["g1/r0"]
    row["inflight"] = 2
    threading.Timer(0.6, lambda: row.update(inflight=0)).start()
    code, out, _err = command("drain", "g1", "--wait")
    assert code == 0
    assert "g1/r0: active -> drained\n" in out and "s  in flight: g1/r0 2\n" in out
    assert "no request is in flight from here after" in out


def test_wait_that_runs_out_is_no_success(agent: Running, command: Command) -> None:
    agent.world["replicas"]["g1/r0"]["inflight"] = 2
    code, out, _err = command("drain", "g1", "--wait", "--timeout", "0.1", "--json")
    told = json.loads(out)
    assert (code, told["idle"], told["inflight"], told["changed"]) == (1, False, {"g1/r0": 2}, True)


def test_explain_tells_numbers_history_and_incident(agent: Running, command: Command) -> None:
    agent.world["replicas"]["g1/r0"] |= {"health": "down", "incident": {"id": "20270101-wedged", "path": "/x"}}
    code, out, _err = command("explain", "g1")
    assert code == 0
    assert "g1/r0 (192.0.2.21:8000, pool chat) is OUT of rotation" in out
    assert "  health         down, a fact\n" in out
    assert "because        down: connection refused" in out
    assert "  ttft_p50                 0.123\n" in out
    assert "  id                       20270101-wedged\n" in out
    assert "    2 h ago  health: up -> down: connection refused" in out


def test_explain_wants_one_replica(command: Command) -> None:
    assert command("explain", "chat")[0] == 2
    assert "chat is g1/r0, g2/r0: explain one of them" in command("explain", "chat")[2]


@pytest.mark.parametrize("verb", ["drain", "explain"])
def test_a_word_that_names_nothing_is_answered_with_what_there_is(command: Command, verb: str) -> None:
    code, _out, err = command(verb, "gpu7")
    assert code == 2
    assert "'gpu7' is no replica, host or pool: name a replica (g1/r0, g2/r0, g3/r0, g4/r0)" in err


def test_away_and_present(command: Command) -> None:
    assert command("away", "--reason", "kernel")[:2] == (0, "this balancer is away\n")
    assert command("away")[1] == "this balancer is away already\n"
    assert command("present")[1] == "this balancer is present\n"


@pytest.mark.parametrize("words", [("--json", "status"), ("status", "--json")])
def test_json_is_what_the_agent_said(command: Command, words: tuple[str, str]) -> None:
    assert json.loads(command(*words)[1])["agent"]["host"] == "lb1"


def test_no_agent_is_status_two(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--socket", str(tmp_path / "none"), "status"]) == 2
    assert "the agent does not run" in capsys.readouterr().err


def test_the_launcher_runs_the_code_that_is_installed_and_nothing_of_the_caller(
    agent: Running, tmp_path: pathlib.Path
) -> None:
    installed = "/usr/local/lib/llm-agent/current"
    text = (ROOT / "roles" / "llm_balancer" / "files" / "llm-balancer").read_text()
    assert f"PYTHONPATH={installed} exec" in text
    launcher = tmp_path / "llm-balancer"
    launcher.write_text(text.replace(installed, str(collections_path())))
    launcher.chmod(0o755)
    (tmp_path / "json.py").write_text("raise SystemExit('the caller was imported')")
    done: Any = subprocess.run(
        [str(launcher), "--socket", str(agent.path), "status"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "pool chat: 2 of 2 in rotation" in done.stdout
    help_text = subprocess.run([str(launcher), "--help"], check=True, capture_output=True, text=True).stdout
    assert [
        verb for verb in ("status", "drain", "undrain", "explain", "away", "present") if verb not in help_text
    ] == []
