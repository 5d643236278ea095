"""The status table: what is known, what is not, and why."""

from __future__ import annotations

from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _status

REPLICAS = [
    {"id": f"{host}/r0", "host": host, "pool": "chat", "profile": "baseline", "address": "192.0.2.1", "port": 8000}
    for host in ("g1", "g2", "g3")
]
SEEN: dict[str, Any] = {
    "g1": {
        "replicas": [
            {"id": "g1/r0", "health": "ok", "reason": "", "model": "llama", "revision": "6f6073b42301", "running": 0}
            | {"waiting": 2, "kv_cache_usage": 0.256, "release": "abc", "previous": None, "pending": "def"}
        ]
    },
    "g2": {"unreachable": True, "msg": "Connection timed out"},
}


def test_a_host_that_could_not_be_asked_is_a_row_that_says_so() -> None:
    found = {row["id"]: row for row in _status.rows(REPLICAS, SEEN)}
    assert found["g2/r0"]["health"] == found["g3/r0"]["health"] == "unreachable"
    assert found["g2/r0"]["reason"] == "Connection timed out"
    assert found["g1/r0"]["pending"] == "def"


def test_table_shows_zero_as_zero_and_unknown_as_a_dash() -> None:
    lines = _status.table(_status.rows(REPLICAS, SEEN))
    assert lines[1].split() == ["g1/r0", "chat", "abc", "def", "llama", "6f6073b42301", "ok", "0", "2", "26%"]
    assert lines[2].split() == ["g2/r0", "chat", "-", "-", "-", "-", "unreachable", "-", "-", "-"]
    assert "g2/r0: Connection timed out" in lines
