"""Files for keepalived and NGINX, the log, the configuration and the metrics of the agent."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import config, exposition
from ansible_collections.llmops.vllm.plugins.module_utils._agent.hold import Hold
from ansible_collections.llmops.vllm.plugins.module_utils._agent.log import REMEMBERED, Log
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Change
from ansible_collections.llmops.vllm.plugins.module_utils._balancer.agent import config as written


def files(run) -> tuple[str, bool]:
    return (run / "hold").read_text(), (run / "away").exists()


def test_hold_and_away_say_the_same(tmp_path):
    hold = Hold(tmp_path)
    assert not hold.may_hold
    hold.set(False)
    assert files(tmp_path) == ("1\n", True)
    hold.set(True)
    assert files(tmp_path) == ("0\n", False)
    (tmp_path / "hold").write_text("1\n")  # by someone else
    hold.set(True)
    assert files(tmp_path) == ("0\n", False)
    assert (tmp_path / "hold").stat().st_mode & 0o777 == 0o644


def test_a_new_agent_goes_on_from_what_is_there(tmp_path):
    Hold(tmp_path).set(True)
    assert Hold(tmp_path).may_hold


def test_keepalived_watches_one_file_that_is_never_replaced(tmp_path):
    hold = Hold(tmp_path)
    hold.set(False)
    inode = (tmp_path / "hold").stat().st_ino
    hold.set(True)
    assert (tmp_path / "hold").stat().st_ino == inode


def test_an_engine_that_restarts_within_its_grace_counts_as_alive(tmp_path):
    hold = Hold(tmp_path)
    assert [hold.engine(alive, now) for alive, now in [(True, 0), (False, 1), (False, 1.5), (True, 1.55)]] == [True] * 4
    assert [hold.engine(False, now) for now in (2, 2.5, 2.6, 3)] == [True, True, False, False]
    assert hold.engine(True, 4)


def test_log_lines_are_json_and_the_last_changes_are_kept(capsys):
    log = Log()
    for number in range(REMEMBERED + 5):
        log.change(Change("g/r0", "out", "up", "down", f"reason {number}", {"seconds": 4.2}))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "out"
    assert (lines[-1]["replica"], lines[-1]["reason"], lines[-1]["numbers"]) == ("g/r0", "reason 24", {"seconds": 4.2})
    assert [entry["reason"] for entry in log.history("g/r0")][:1] == ["reason 5"]
    assert log.history("other") == []
    assert log.counts["out"] == REMEMBERED + 5


def test_a_problem_is_said_once_and_its_end_too(capsys):
    log = Log()
    for problem in ("disk full", "disk full", "", "", "disk full"):
        log.state("store", problem)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events == ["problem", "solved", "problem"]


SETTINGS = {
    "name": "lb1",
    "address": "192.0.2.1",
    "port": "9177",
    "engine": "nginx_lua",
    "members": [{"name": "lb1", "address": "192.0.2.1"}, {"name": "lb2", "address": "192.0.2.2"}],
    "status_port": 8081,
    "minimum": "2",
    "wedged_seconds": 60,
    "wedged_restarts_per_hour": 3,
    "completion_interval": "10",
    "latency_degraded_ms": "500",
    "latency_eject_ms": 1000,
    "max_out_percent": 34,
}


def write(directory, document, keys=("k" * 32,)):
    (directory / "config.json").write_text(json.dumps(document))
    (directory / "keys.json").write_text(json.dumps({"keys": list(keys)}))
    return str(directory)


def test_the_agent_reads_what_the_role_writes(tmp_path):
    found = config.load(write(tmp_path, written(SETTINGS)))
    assert (found.name, found.port, found.minimum, found.limits.latency_eject) == ("lb1", 9177, 2, 1.0)
    assert found.peers == (config.Neighbour("lb2", "192.0.2.2", 9177),)
    assert "k" * 32 not in repr(found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"api": 7}, "is of API 7, this agent speaks 1"),
        ({"engine": "caddy"}, "engine is 'caddy', needed is nginx_lua or nginx_native"),
        ({"limits": {"speed": 3}}, "unknown keys speed"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path, change, words):
    with pytest.raises(config.ConfigError, match=words):
        config.load(write(tmp_path, {**written(SETTINGS), **change}))


def test_files_that_are_not_there_or_no_json_say_so(tmp_path):
    with pytest.raises(config.ConfigError, match="config.json cannot be read"):
        config.load(str(tmp_path))
    write(tmp_path, written(SETTINGS), keys=())
    with pytest.raises(config.ConfigError, match="holds no key"):
        config.load(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(config.ConfigError, match="is no JSON"):
        config.load(str(tmp_path))


def test_metrics_escape_what_could_break_them():
    status = {
        "replicas": [
            {"id": 'g"1\n/r0', "pool": "p\\x", "in_rotation": True, "administrative": "drained", "health": "up"}
            | {"weight": 0.5, "inflight": None}
        ],
        "pools": [{"name": "p", "members": 1, "in_rotation": 0, "panic": False}],
        "engine": {"alive": True, "confirmed": False},
        "balancer": {"may_hold_address": True},
        "peers": [{"name": "lb2", "reachable": False}],
        "membership": {"problems": ["x"]},
    }
    text = exposition.text(status, {"out": 3})
    assert 'llmops_replica_drained{replica="g\\"1\\n/r0",pool="p\\\\x"} 1\n' in text
    assert 'llmops_replica_health{replica="g\\"1\\n/r0",pool="p\\\\x",health="up"} 1\n' in text
    assert "llmops_replica_requests_in_flight{" not in text
    assert 'llmops_agent_events_total{event="out"} 3\n' in text
    assert "llmops_agent_problems 1\n" in text
