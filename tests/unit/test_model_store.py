"""Weights on disk: whole or not at all, whatever happens on the way."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import safetensors
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._model.files import sha256
from ansible_collections.llmops.vllm.plugins.module_utils._model.store import Request
from ansible_collections.llmops.vllm.plugins.module_utils._model.workspace import leftovers

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
    assert subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=path, check=False).returncode == 0
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
    sums = {path.name: sha256(path) for path in folder.iterdir()}
    (folder / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


def leave_no_weights(folder: pathlib.Path) -> None:
    """What training leaves beside them is none."""
    (folder / "model.safetensors").rename(folder / "training_args.bin")


BAD_SOURCES: dict[str, tuple[Callable[[pathlib.Path], Any], list[str]]] = {
    "truncated": (truncate, ["model.safetensors", "truncated", "5000 bytes", "copy it again"]),
    "too long": (grow, ["model.safetensors", "longer"]),
    "missing shard": (name_a_missing_shard, ["model-2.safetensors", "not there"]),
    "altered": (alter, ["model.safetensors", "altered", "SHA256SUMS"]),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["config.json", "not there"]),
    "no weights": (leave_no_weights, ["source: holds no weights (*.safetensors, ", "complete it", "load-format dummy"]),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ["no tokenizer"]),
    "no directory": (lambda folder: folder.rename(folder.with_name("gone")), ["no directory", "mount it"]),
    "dangling link": (lambda folder: (folder / "x.bin").symlink_to("gone"), ["x.bin", "link", "to nothing"]),
    "name with a newline": (lambda folder: (folder / "a\nb").touch(), ["a\\nb", "rename it"]),
    "index of nothing": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
        ["model.safetensors.index.json", "maps no weights"],
    ),
    "no sums": (lambda folder: (folder / "SHA256SUMS").write_text("<html>"), ["SHA256SUMS", "'<html>'", "sha256sum"]),
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


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00002.bin", "consolidated.00.pt", "llama-Q4.gguf", "x/a.bin"])
def test_weights_of_any_form_are_weights(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path, name: str
) -> None:
    (source / name).parent.mkdir(exist_ok=True)
    (source / "model.safetensors").rename(source / name)
    assert run_module("llm_model", options)["changed"]
    assert not run_module("llm_model", options)["changed"]


def test_model_without_weights_is_staged_where_they_are_not_wanted(
    run_module: Callable[..., Any], options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    slow = tiny_model.write(tmp_path / "slow", "slow")  # for load-format dummy
    told = dict(options, source=f"file://{slow}", weights=False)
    assert run_module("llm_model", told, check=True)["changed"]
    assert run_module("llm_model", told)["changed"]
    assert not run_module("llm_model", told)["changed"]
    later = run_module("llm_model", dict(told, weights=True))
    assert later.failed and "the revision holds no weights" in later["msg"] and "llm_model_weights" in later["msg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "latest"}, ["revision", "'latest'"]),
        ({"source": "hf://example/llama", "revision": "main"}, ["revision", "'main'", "40 hexadecimal"]),
        ({"source": "/srv/x"}, ["source", "'/srv/x'", "file://"]),
        ({"name": "../x"}, ["name", "'../x'"]),
        ({"name": "..", "revision": "..", "state": "absent"}, ["revision", "'..'"]),
        ({"name": "..", "state": "absent"}, ["name", "'..'"]),
        ({"source": "hf://example/llama", "revision": "a" * 40, "move": True}, ["move", "file://"]),
        ({"sha256sums": {"config.json": "0" * 64}}, ["config.json", "altered", "sha256sums"]),
        ({"sha256sums": {"model-2.safetensors": "0" * 64}}, ["model-2.safetensors is missing"]),
        ({"reader": "nobody-such"}, ["reader", "'nobody-such'", "no such user", "llm_model_reader"]),
        ({"source": "controller:///srv/x", "size_bytes": 1 << 60}, ["GB free", "1152921504.6 GB"]),
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
        ("size", lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json, which was altered"),
        ("size", lambda f: (f / "model-2.safetensors").touch(), "model-2.safetensors, which was put there later"),
        ("size", lambda f: (f / "generation_config.json").unlink(), "lacks generation_config.json"),
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


def test_trusted_revision_is_not_looked_at(run_module: Callable[..., Any], options: dict[str, Any]) -> None:
    truncate(pathlib.Path(run_module("llm_model", options)["path"]))
    assert not run_module("llm_model", dict(options, verify="none"))["changed"]


def test_noise_of_the_file_system_is_not_part_of_a_revision(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path
) -> None:
    (source / ".git").mkdir()
    (source / ".git" / "HEAD").touch()
    (source / ".gitattributes").touch()
    sums = subprocess.run(
        "find . -type f | xargs sha256sum -b", shell=True, cwd=source, stdout=subprocess.PIPE, check=True
    )
    (source / "SHA256SUMS").write_bytes(sums.stdout)  # names files that are left out, as "*./name"
    result = run_module("llm_model", options)
    path = pathlib.Path(result["path"])
    assert {file.name for file in path.iterdir()} == {*result["files"], "SHA256SUMS"}
    (path / ".nfs0000").touch()
    assert not run_module("llm_model", options)["changed"]


def test_expected_sums_are_kept_to_afterwards(run_module: Callable[..., Any], options: dict[str, Any]) -> None:
    right = sha256(pathlib.Path(options["source"][7:]) / "model.safetensors")
    assert run_module("llm_model", dict(options, sha256sums={"model.safetensors": right.upper()}))["changed"]
    assert not run_module("llm_model", dict(options, sha256sums={"model.safetensors": right}))["changed"]
    result = run_module("llm_model", dict(options, sha256sums={"model.safetensors": "0" * 64}))
    assert result.failed
    assert right in result["msg"]


def test_links_are_followed_by_a_copy_and_refused_by_a_move(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (source / "model.safetensors").rename(tmp_path / "blob")
    (source / "model.safetensors").symlink_to(tmp_path / "blob")  # as in the hub's cache
    moved = run_module("llm_model", dict(options, move=True, revision="r2"))
    assert "is a link" in moved["msg"]
    assert (source / "model.safetensors").is_symlink()
    path = pathlib.Path(run_module("llm_model", options)["path"])
    assert not (path / "model.safetensors").is_symlink()
    assert (path / "model.safetensors").read_bytes() == (tmp_path / "blob").read_bytes()


def test_refused_move_gives_the_directory_back(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path
) -> None:
    truncate(source)
    result = run_module("llm_model", dict(options, move=True))
    assert f"The files are still in {source}" in result["msg"]
    assert (source / "model.safetensors").stat().st_size == 5000


def test_move_that_was_killed_is_finished_and_loses_nothing(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path
) -> None:
    request = Request(**options, move=True)
    request.workspace.mkdir(parents=True)
    source.rename(request.incoming)  # and there it was killed
    assert run_module("llm_model", dict(options, move=True))["changed"]
    model_store.verify(Request(**options, verify="sha256"))


def test_missing_source_leaves_no_directory_behind(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path
) -> None:
    source.rename(source.with_name("gone"))
    assert run_module("llm_model", options).failed
    assert not pathlib.Path(options["root"]).exists()


def test_modes_do_not_depend_on_the_umask(run_module: Callable[..., Any], options: dict[str, Any]) -> None:
    before = os.umask(0o077)
    try:
        path = pathlib.Path(run_module("llm_model", options)["path"])
    finally:
        os.umask(before)
    assert [oct(folder.stat().st_mode & 0o777) for folder in (path, path.parent, path.parents[1])] == ["0o755"] * 3
    assert {oct(file.stat().st_mode & 0o777) for file in path.iterdir()} == {"0o644"}


def test_what_a_killed_removal_left_is_removed(run_module: Callable[..., Any], options: dict[str, Any]) -> None:
    run_module("llm_model", options)
    request = Request(**options)
    request.path.rename(request.workspace / "removed")
    absent = dict(options, state="absent")
    del absent["source"]
    result = run_module("llm_model", absent)
    assert (result["changed"], result["diff"]) == (True, {"before": "", "after": ""})
    assert leftovers(request) == []
    assert not run_module("llm_model", absent)["changed"]


def test_revision_whose_name_begins_alike_is_left_alone(
    run_module: Callable[..., Any], options: dict[str, Any]
) -> None:
    for revision in ("r1", "r1-b", "r10"):
        run_module("llm_model", dict(options, revision=revision))
    run_module("llm_model", dict(options, state="absent"))
    assert sorted(path.name for path in (pathlib.Path(options["root"]) / "tiny").iterdir()) == ["r1-b", "r10"]


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
    assert not pathlib.Path(options["root"]).exists()
    pathlib.Path(result["transfer"]).parent.mkdir(parents=True)
    pathlib.Path(options["source"][7:]).rename(result["transfer"])
    done = run_module("llm_model", dict(options, source=f"file://{result['transfer']}", move=True))
    assert done["changed"]
    assert not pathlib.Path(result["transfer"]).exists()
    assert run_module("llm_model", options)["changed"] is False


def stage(options: dict[str, Any], queue: Any) -> None:
    queue.put(model_store.present(Request(**options))["changed"])


def test_two_runs_at_once_leave_one_whole_revision(options: dict[str, Any]) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    runs = [context.Process(target=stage, args=(options, queue)) for _turn in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(30)
    assert sorted(queue.get(timeout=5) for _turn in runs) == [False, False, True]
    model_store.verify(Request(**options, verify="sha256"))


def test_killed_at_random_moments_leaves_nothing_or_a_whole_revision(
    options: dict[str, Any], source: pathlib.Path
) -> None:
    shard = (source / "model.safetensors").read_bytes()
    for number in range(40):  # long enough to be killed in the middle
        (source / f"part-{number}.bin").write_bytes(shard)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.conftest\n"
        "from ansible_collections.llmops.vllm.plugins.module_utils._model import store\n"
        "print('begin', flush=True)\n"
        f"store.present(store.Request(**{options!r}))\n"
    )
    path = pathlib.Path(options["root"]) / "tiny" / "r1"
    dice, killed = random.Random(3), 0
    for _turn in range(12):
        run = subprocess.Popen([sys.executable, "-c", script, str(ROOT)], stdout=subprocess.PIPE, cwd=ROOT)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(dice.uniform(0, 0.15))  # the moment of the kill is the subject, not a wait
        run.send_signal(signal.SIGKILL)
        run.wait()
        killed += 1
        if path.exists():
            model_store.verify(Request(**options, verify="sha256"))
            model_store.absent(Request(**options))
    assert killed == 12
    model_store.present(Request(**options))
    model_store.verify(Request(**options, verify="sha256"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may")
def test_full_disk_leaves_no_revision(
    run_module: Callable[..., Any], options: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        told = run_module("llm_model", dict(options, root=str(small), min_free_bytes=0))
        assert told.failed
        assert "GB free" in told["msg"]
        forced = Request(**dict(options, root=str(small), min_free_bytes=-(1 << 30)))
        with pytest.raises(safetensors.ModelError, match=r"No space left.*Nothing of it remains"):
            model_store.present(forced)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, which only root may")
def test_closed_directory_of_the_model_is_found_before_the_rename(
    run_module: Callable[..., Any], options: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as open_path:
        pathlib.Path(open_path).chmod(0o755)
        root = pathlib.Path(open_path) / "models"
        (root / "tiny").mkdir(parents=True)
        (root / "tiny").chmod(0o700)
        result = run_module("llm_model", dict(options, root=str(root), reader="nobody"))
        assert "'nobody' cannot read" in result["msg"]
        (root / "tiny").chmod(0o755)
        assert run_module("llm_model", dict(options, root=str(root), reader="nobody"))["changed"]


def test_check_mode_does_not_ask_for_a_user_who_comes_later(
    run_module: Callable[..., Any], options: dict[str, Any]
) -> None:
    run_module("llm_model", options)
    assert not run_module("llm_model", dict(options, reader="nobody-such"), check=True).failed
    assert run_module("llm_model", dict(options, reader="nobody-such", revision="r2"), check=True)["changed"]


def test_header_of_garbage_is_an_error_of_ours(tmp_path: pathlib.Path) -> None:
    for number, content in enumerate(
        [
            b"",
            b"x" * 7,
            b"\xff" * 64,
            b"\x02\0\0\0\0\0\0\0[]",
            b"\x08\0\0\0\0\0\0\0{nojson}",
            b'\x1f\0\0\0\0\0\0\0{"a":{"data_offsets":[0,"end"]}}',
        ]
    ):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(content)
        with pytest.raises(safetensors.ModelError, match="copy it again"):
            safetensors.header(path)


def test_model_in_the_form_of_mistral_needs_no_config_json(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(safetensors.ModelError, match="config.json"):
        safetensors.check(tmp_path)
    (tmp_path / "params.json").write_text("{}")
    safetensors.check(tmp_path)


def adapter(folder: pathlib.Path) -> pathlib.Path:
    """Make an adapter of the model in the folder: no config.json, no tokenizer."""
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            path.unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    return folder


def test_adapter_is_staged_like_a_model(
    run_module: Callable[..., Any], options: dict[str, Any], source: pathlib.Path
) -> None:
    adapter(source)
    assert run_module("llm_model", options)["changed"]
    assert not run_module("llm_model", dict(options, verify="sha256"))["changed"]
    with open(Request(**options).path / "adapter_model.safetensors", "ab") as file:
        file.write(b"x")
    assert "longer than its tensors" in run_module("llm_model", options)["msg"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "adapter_model.safetensors").unlink(), "adapter_model.safetensors: not there"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 99), "no safetensors file"),
        (lambda f: (f / "adapter_config.json").write_text('{"peft_type": "IA3"}'), "peft_type is 'IA3'"),
        (lambda f: (f / "adapter_config.json").write_text("[]"), "peft_type is None"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
    ],
)
def test_bad_adapter_is_refused(
    run_module: Callable[..., Any],
    options: dict[str, Any],
    source: pathlib.Path,
    damage: Callable[[pathlib.Path], Any],
    words: str,
) -> None:
    damage(adapter(source))
    assert words in run_module("llm_model", options)["msg"]
    assert not Request(**options).path.exists()
