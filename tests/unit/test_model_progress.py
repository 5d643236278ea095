"""How far a model is: words for people, and a file that goes with the run."""

from __future__ import annotations

import pathlib
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import fetch as model_fetch
from ansible_collections.llmops.vllm.plugins.module_utils._model import host as model_host
from ansible_collections.llmops.vllm.plugins.module_utils._model import progress as model_progress
from ansible_collections.llmops.vllm.plugins.module_utils._model.store import Request

from tests.fakes.mirror import FakeMirror
from tools import tiny_model

NOTHING = {"phase": "", "bytes": 0, "total_bytes": 0}


def reading(phase: str, gigabytes: float, total: float = 0.0) -> dict[str, Any]:
    return {"phase": phase, "bytes": int(gigabytes * 1e9), "total_bytes": int(total * 1e9)}


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (NOTHING, NOTHING, ""),
        (reading("bring", 14, 140), NOTHING, "10 % (14.0 of 140.0 GB)"),
        (reading("bring", 14, 140), reading("bring", 4, 140), "10 % (14.0 of 140.0 GB), 1000 MB/s, 126 s to go"),
        (reading("bring", 14, 140), reading("bring", 14, 140), "10 % (14.0 of 140.0 GB)"),
        (reading("bring", 14), reading("bring", 4), "14.0 GB, 1000 MB/s"),
        (reading("check", 140), reading("bring", 139, 140), "140.0 GB are there and are being checked"),
    ],
)
def test_words(now: dict[str, Any], before: dict[str, Any], words: str) -> None:
    assert model_progress.sentence(now, before, 10) == words


def test_reading_while_it_comes_and_after(
    run_module: Callable[..., Any], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_model.write(tmp_path / "source", "a")
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    monkeypatch.setattr(model_fetch, "_LOOK_AT_DISK_EVERY", 200_000)
    seen: list[dict[str, Any]] = []
    own = {"name": "tiny", "revision": "r1", "root": str(tmp_path / "models")}

    def look(request: Request) -> None:
        seen.append(model_progress.read(request))
        model_host.check_free(request)

    monkeypatch.setattr(model_fetch, "check_free", look)
    with FakeMirror(files) as mirror:
        assert run_module("llm_model", {**own, "source": mirror.address, "min_free_bytes": 0})["changed"]
    total = sum(map(len, files.values()))
    assert seen[0]["phase"] == "bring"
    assert seen[0]["total_bytes"] == pytest.approx(total, abs=2000)
    assert 0 < seen[0]["bytes"] < total + 2000
    assert run_module("llm_model_wait", own)["progress"] == NOTHING
