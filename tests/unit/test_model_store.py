"""Weights on disk: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils import _model_store, _safetensors
from ansible_collections.llmops.vllm.plugins.module_utils._model_store import Request

from tools import tiny_model

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    return tiny_model.write(tmp_path / "source", "a")


@pytest.fixture
def options(tmp_path: pathlib.Path, source: pathlib.Path) -> dict[str, Any]:
    return {"name": "tiny", "revision": "r1", "source": f"file://{source}", "root": str(tmp_path / "models")}


def test_staged_files_are_the_sources_with_sums_and_open_to_readers(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path
) -> None:
    result = run_module("llm_model", options)
    assert result["changed"]
    path = pathlib.Path(result["path"])
    assert path == pathlib.Path(options["root"]) / "tiny" / "r1"
    assert (path / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=path).returncode == 0
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o644"}


def test_life_of_a_revision_in_check_mode_and_for_real(run_module: Callable[..., Any], options: dict[str, Any]) -> None:
    absent = dict(options, state="absent")
    cycle = [(options, True), (options, False), (absent, True), (absent, False)]
    path = pathlib.Path(options["root"]) / "tiny" / "r1"
    for arguments, changed in cycle:
        before = path.exists()
        predicted = run_module("llm_model", arguments, check=True)
        assert (predicted["changed"], path.exists()) == (changed, before)
        done = run_module("llm_model", arguments)
        assert done["changed"] == changed
        assert predicted["diff"] == done["diff"]
    assert not path.exists()


def truncate(folder: pathlib.Path) -> None:
    with open(folder / "model.safetensors", "r+b") as file:
        file.truncate(5000)


def grow(folder: pathlib.Path) -> None:
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"x")


def name_a_missing_shard(folder: pathlib.Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')


def alter(folder: pathlib.Path) -> None:
    """One byte of the weights changes after the sums were written."""
    sums = {path.name: _model_store.sha256(path) for path in folder.iterdir()}
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


BAD_SOURCES: dict[str, tuple[Callable[[pathlib.Path], Any], list[str]]] = {
    "truncated": (truncate, ["model.safetensors", "truncated", "5000 bytes", "copy it again"]),
    "too long": (grow, ["model.safetensors", "longer"]),
    "missing shard": (name_a_missing_shard, ["model-2.safetensors", "not there"]),
    "altered": (alter, ["model.safetensors", "altered", "SHA256SUMS"]),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["config.json", "not there"]),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ["no tokenizer"]),
    "no directory": (lambda folder: folder.rename(folder.with_name("gone")), ["no directory", "mount it"]),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_bad_source_is_refused_and_leaves_no_revision(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path, case: str
) -> None:
    damage, words = BAD_SOURCES[case]
    damage(source)
    result = run_module("llm_model", options)
    assert result.failed
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]
    assert not (pathlib.Path(options["root"]) / "tiny" / "r1").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "latest"}, ["revision", "'latest'"]),
        ({"source": "hf://example/llama", "revision": "main"}, ["revision", "'main'", "40 hexadecimal"]),
        ({"source": "/srv/x"}, ["source", "'/srv/x'", "file://"]),
        ({"name": "../x"}, ["name", "'../x'"]),
        ({"min_free_bytes": 1 << 62}, ["GB free", "min_free_bytes", "llm_model_root"]),
        ({"source": "hf://example/llama", "revision": "a" * 40, "hub_command": "/no/hf"}, ["/no/hf", "environment"]),
    ],
)
def test_bad_options(
    run_module: Callable[..., Any], options: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    result = run_module("llm_model", {**options, **change})
    assert result.failed
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]


@pytest.mark.parametrize(
    ("verify", "damage", "word"),
    [
        ("size", truncate, "truncated"),
        ("sha256", alter, "altered"),
        ("size", lambda f: (f / "SHA256SUMS").unlink(), "SHA"),
    ],
)
def test_damaged_revision_is_reported_and_never_repaired(
    run_module: Callable[..., Any], options: dict[str, Any], verify: str, damage: Callable[..., Any], word: str
) -> None:
    path = pathlib.Path(run_module("llm_model", options)["path"])
    sums = (path / "SHA256SUMS").read_text()
    damage(path)
    if word == "altered":
        (path / "SHA256SUMS").write_text(sums)
    result = run_module("llm_model", dict(options, verify=verify))
    assert result.failed
    assert word in result["msg"]
    assert "state=absent" in result["msg"]


def test_token_travels_by_environment_and_is_never_shown(
    run_module: Callable[..., Any], options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    """Stands in for the hub's command: it records its arguments and environment, and fails as the hub would."""
    command = tmp_path / "hf"
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho $HF_TOKEN > {tmp_path}/token\n'
                       "echo 401 for token $HF_TOKEN; exit 1\n")  # fmt: skip
    command.chmod(0o755)
    hub = {"source": "hf://example/llama", "revision": "a" * 40, "hub_command": str(command), "hub_token": "hf_secret"}
    result = run_module("llm_model", {**options, **hub, "exclude": ["*.pth"]})
    assert result.failed
    assert "401" in result["msg"]
    assert "hf_secret" not in str(result)
    assert (tmp_path / "token").read_text() == "hf_secret\n"
    told = (tmp_path / "arguments").read_text()
    assert "hf_secret" not in told
    assert f"download example/llama --revision {'a' * 40}" in told
    assert "--exclude *.pth" in told


def test_controller_source_asks_for_the_files_first(run_module: Callable[..., Any], options: dict[str, Any]) -> None:
    result = run_module("llm_model", dict(options, source=options["source"].replace("file://", "controller://")))
    assert result["changed"]
    pathlib.Path(result["transfer"]).parent.mkdir(parents=True)
    pathlib.Path(options["source"][7:]).rename(result["transfer"])
    done = run_module("llm_model", dict(options, source=f"file://{result['transfer']}", move=True))
    assert done["changed"]
    assert not pathlib.Path(result["transfer"]).exists()
    assert run_module("llm_model", options)["changed"] is False


def stage(options: dict[str, Any], queue: Any) -> None:
    queue.put(_model_store.present(Request(**options))["changed"])


def test_two_runs_at_once_leave_one_whole_revision(options: dict[str, Any]) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    runs = [context.Process(target=stage, args=(options, queue)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
    assert len([queue.get(timeout=5) for _ in runs]) == 3
    _model_store.verify(Request(**options, verify="sha256"))


def test_killed_at_random_moments_leaves_nothing_or_a_whole_revision(
    options: dict[str, Any], source: pathlib.Path
) -> None:
    shard = (source / "model.safetensors").read_bytes()
    for number in range(40):  # long enough to be killed in the middle
        (source / f"part-{number}.bin").write_bytes(shard)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.conftest\n"
        "from ansible_collections.llmops.vllm.plugins.module_utils import _model_store\n"
        "print('begin', flush=True)\n"
        f"_model_store.present(_model_store.Request(**{options!r}))\n"
    )
    path = pathlib.Path(options["root"]) / "tiny" / "r1"
    dice, killed = random.Random(3), 0
    for _ in range(12):
        run = subprocess.Popen([sys.executable, "-c", script, str(ROOT)], stdout=subprocess.PIPE, cwd=ROOT)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(dice.uniform(0, 0.15))  # the moment of the kill is the subject, not a wait
        run.send_signal(signal.SIGKILL)
        run.wait()
        killed += 1
        if path.exists():
            _model_store.verify(Request(**options, verify="sha256"))
            _model_store.absent(Request(**options))
    assert killed == 12
    _model_store.present(Request(**options))
    _model_store.verify(Request(**options, verify="sha256"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may")
def test_full_disk_leaves_no_revision(
    run_module: Callable[..., Any], options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)])
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        told = run_module("llm_model", dict(options, root=str(small), min_free_bytes=0))
        assert told.failed
        assert "GB free" in told["msg"]
        forced = Request(**dict(options, root=str(small), min_free_bytes=-(1 << 30)))
        with pytest.raises(_safetensors.ModelError, match=r"No space left.*Nothing of it remains"):
            _model_store.present(forced)
        assert list(small.rglob("*.safetensors")) == []
        assert not (small / "tiny" / "r1").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_files_that_the_service_user_cannot_reach(
    run_module: Callable[..., Any], options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    tmp_path.chmod(0o700)
    result = run_module("llm_model", dict(options, reader="nobody"))
    assert result.failed
    assert "'nobody' cannot read" in result["msg"]


def test_header_of_garbage_is_an_error_of_ours(tmp_path: pathlib.Path) -> None:
    for number, content in enumerate(
        [b"", b"x" * 7, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b"\x08\0\0\0\0\0\0\0{nojson}"]
    ):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(content)
        with pytest.raises(_safetensors.ModelError, match="copy it again"):
            _safetensors.header(path)
