"""Models from a hub: the real ``hf`` command against a fake hub, and a stand-in for the command where it lies.

The real command comes from the environment that LLMOPS_TEST_VLLM_ENV names (any with huggingface_hub will do).
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._model.files import wanted as is_wanted
from ansible_collections.llmops.vllm.plugins.module_utils._model.safetensors import ModelError
from ansible_collections.llmops.vllm.plugins.module_utils._model.store import Request

from tests.fakes.hub import FakeHub, git_blob
from tools import tiny_model

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
REPOSITORY = "example/tiny"
_ENV = os.environ.get("LLMOPS_TEST_VLLM_ENV", "")
HF = pathlib.Path(_ENV) / "bin" / "hf"
real_hf = pytest.mark.skipif(
    not (_ENV and HF.exists()),
    reason="needs the hf command: set LLMOPS_TEST_VLLM_ENV to an environment with huggingface_hub",
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny_model.write(tmp_path_factory.mktemp("hub") / "a", "a")
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {
        "original/consolidated.00.pth": b"x" * 100,
        ".gitattributes": b"*.safetensors filter=lfs\n",
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[FakeHub]:
    with FakeHub(REPOSITORY, COMMIT, files) as fake:
        yield fake


@pytest.fixture
def options(tmp_path: pathlib.Path, hub: FakeHub) -> dict[str, Any]:
    return {
        "name": "tiny",
        "revision": COMMIT,
        "source": f"hf://{REPOSITORY}",
        "root": str(tmp_path / "models"),
        "hub_command": str(HF),
        "hub_endpoint": hub.address,
        "exclude": ["original/*"],
    }


def downloads(hub: FakeHub) -> list[str]:
    return [request for request in hub.requests if request.startswith("GET /large/")]


@real_hf
def test_download_is_whole_checked_and_done_once(
    run_module: Callable[..., Any], options: dict[str, Any], hub: FakeHub, files: dict[str, bytes]
) -> None:
    assert run_module("llm_model", options, check=True)["changed"]
    assert hub.requests == []
    result = run_module("llm_model", options)
    assert result["changed"], result
    path = pathlib.Path(result["path"])
    assert sorted(result["files"]) == sorted(name for name in files if name[0] != "." and "/" not in name)
    assert {name.name for name in path.iterdir()} == {*result["files"], "SHA256SUMS"}
    assert (path / "model.safetensors").read_bytes() == files["model.safetensors"]
    asked = len(hub.requests)
    assert not run_module("llm_model", options)["changed"]
    assert len(hub.requests) == asked
    assert [entry.name for entry in (path.parents[1] / ".incoming" / f"tiny@{COMMIT}").iterdir()] == ["lock"]


@real_hf
def test_broken_connection_is_gone_on_with(
    run_module: Callable[..., Any], options: dict[str, Any], hub: FakeHub
) -> None:
    hub.files["extra.bin"] = bytes(24 << 20)  # the client writes 10 MiB at a time
    hub.cut, hub.cuts = 15 << 20, 1
    assert run_module("llm_model", options)["changed"]
    assert f"GET /large/extra.bin bytes={10 << 20}-" in downloads(hub)


@real_hf
def test_byte_altered_on_the_way_is_refused_and_mended_by_the_next_run(
    run_module: Callable[..., Any], options: dict[str, Any], hub: FakeHub
) -> None:
    hub.alter = "model.safetensors"
    result = run_module("llm_model", options)
    assert result.failed
    assert "model.safetensors arrived altered" in result["msg"]
    assert not pathlib.Path(options["root"], "tiny", COMMIT).exists()
    hub.alter = None
    assert run_module("llm_model", options)["changed"]


@real_hf
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "b" * 40}, ["ended with 1", "b" * 40]),
        ({"source": "hf://example/other"}, ["example/other", "ended with 1"]),
        ({"min_free_bytes": 1 << 62}, ["needs 0.0 GB", "GB free", "min_free_bytes"]),
    ],
)
def test_refusals_of_the_hub_and_of_the_disk(
    run_module: Callable[..., Any], options: dict[str, Any], hub: FakeHub, change: dict[str, Any], words: list[str]
) -> None:
    result = run_module("llm_model", {**options, **change})
    assert result.failed
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]
    assert downloads(hub) == []


@real_hf
def test_gated_repository_needs_the_token_which_is_never_shown(
    run_module: Callable[..., Any], options: dict[str, Any], hub: FakeHub
) -> None:
    hub.token = "hf_secret_of_the_test"
    refused = run_module("llm_model", options)
    assert refused.failed
    assert "Access denied" in refused["msg"]
    assert "llm_model_hub_token" in refused["msg"]
    result = run_module("llm_model", dict(options, hub_token=hub.token))
    assert result["changed"], result
    assert hub.token not in str(result)
    kept = [path for path in pathlib.Path(options["root"]).rglob("*") if path.is_file()]
    assert [path for path in kept if hub.token.encode() in path.read_bytes()] == []


def start(options: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start staging in a process of its own, which can be killed."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tests.conftest\n"
        "from ansible_collections.llmops.vllm.plugins.module_utils._model import store\n"
        f"store.present(store.Request(**{options!r}))\n"
    )
    return subprocess.Popen([sys.executable, "-c", script, str(ROOT)], cwd=ROOT)


def wait_for(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "waited 60 s"
        time.sleep(0.01)


def kill(run: subprocess.Popen[bytes]) -> None:
    run.send_signal(signal.SIGKILL)
    run.wait()


@real_hf
def test_killed_download_is_gone_on_with(run_module: Callable[..., Any], options: dict[str, Any], hub: FakeHub) -> None:
    run = start(options)
    wait_for(lambda: downloads(hub))
    kill(run)
    assert run_module("llm_model", dict(options, timeout=120))["changed"]
    assert downloads(hub) == ["GET /large/model.safetensors"]
    model_store.verify(Request(**dict(options, verify="sha256")))


def test_next_run_waits_for_the_command_that_a_killed_run_left_behind(
    tmp_path: pathlib.Path, options: dict[str, Any]
) -> None:
    log = tmp_path / "log"
    log.touch()
    say = f"open({str(log)!r}, 'a').write"
    options["hub_command"] = fake_command(
        tmp_path, f"import time; {say}('begin '); time.sleep(1.5); {say}('end '); sys.exit('enough')\n"
    )
    run = start(options)
    wait_for(log.read_text)
    kill(run)
    with pytest.raises(ModelError, match=r"another run .* 0.2 s \(timeout\)"):
        model_store.present(Request(**dict(options, timeout=0.2)))
    with pytest.raises(ModelError, match="enough"):
        model_store.present(Request(**options))
    assert log.read_text().split() == ["begin", "end", "begin", "end"]


def fake_command(tmp_path: pathlib.Path, body: str) -> str:
    """Write a stand-in for the ``hf`` command: Python, with ``folder`` and ``files`` at hand."""
    command = tmp_path / "hf"
    command.write_text(
        f"#!{sys.executable}\nimport json, pathlib, shutil, sys\n"
        "if '--dry-run' in sys.argv: sys.exit(print('[dry-run] Will download 5 files (out of 6) totalling 1.5M.'))\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--local-dir') + 1])\n" + body
    )
    command.chmod(0o755)
    return str(command)


def copying(tmp_path: pathlib.Path, files: dict[str, bytes], record: str) -> str:
    """Return a stand-in that brings the files and leaves this record of them."""
    source = tmp_path / "stand-in"
    for name, content in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    return fake_command(tmp_path, f"shutil.copytree({str(source)!r}, folder, dirs_exist_ok=True)\n{record}\n")


def listing(files: dict[str, bytes]) -> str:
    about = {name: {"size": len(content), "blob_id": git_blob(content)} for name, content in files.items()}
    return (
        "trees = folder / '.cache/huggingface/trees'; trees.mkdir(parents=True)\n"
        f"(trees / '{COMMIT}.json').write_text({json.dumps({'format_version': 1, 'files': about})!r})"
    )


def records(files: dict[str, bytes], commit: str = COMMIT) -> str:
    """As clients leave them that write no listing."""
    about = {name: f"{commit}\n{git_blob(content)}\n1.0\n" for name, content in files.items()}
    return (
        f"for name, text in {about!r}.items():\n"
        "    note = folder / '.cache/huggingface/download' / (name + '.metadata')\n"
        "    note.parent.mkdir(parents=True, exist_ok=True); note.write_text(text)"
    )


@pytest.fixture
def wanted(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if "/" not in name}


def test_limit_that_a_hub_does_not_know_is_said(
    run_module: Callable[..., Any],
    tmp_path: pathlib.Path,
    options: dict[str, Any],
    wanted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule.warn", lambda self, text: told.append(text))
    options["hub_command"] = copying(tmp_path, wanted, listing(wanted))
    assert run_module("llm_model", dict(options, bandwidth_bytes_per_second=1 << 30))["changed"]
    assert [text for text in told if "without a limit of bytes a second" in text]


@pytest.mark.parametrize("form", [listing, records])
def test_what_the_hub_says_of_its_files_is_what_is_staged(
    tmp_path: pathlib.Path, options: dict[str, Any], wanted: dict[str, bytes], form: Callable[..., str]
) -> None:
    options["hub_command"] = copying(tmp_path, wanted, form(wanted))
    assert model_store.present(Request(**options))["changed"]


@pytest.mark.parametrize("form", [listing, records])
@pytest.mark.parametrize(
    ("damage", "word"),
    [({"tokenizer_config.json": b"{}"}, "arrived altered"), ({"merges.txt": b"#"}, "merges.txt is missing")],
)
def test_files_that_differ_from_the_hubs_record_are_refused(
    tmp_path: pathlib.Path,
    options: dict[str, Any],
    wanted: dict[str, bytes],
    form: Callable[..., str],
    damage: dict[str, bytes],
    word: str,
) -> None:
    options["hub_command"] = copying(tmp_path, wanted, form({**wanted, **damage}))
    with pytest.raises(ModelError, match=word) as caught:
        model_store.present(Request(**options))
    assert "the next run goes on with it" in str(caught.value)
    assert not Request(**options).path.exists()


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ("pass", "left no record"),
        ("print('Returning existing local_dir as remote repo cannot be accessed (503)')", "cannot be accessed"),
        ("sys.exit('disk on fire')", "disk on fire"),
    ],
)
def test_a_command_that_brings_no_proof_is_not_believed(
    tmp_path: pathlib.Path, options: dict[str, Any], wanted: dict[str, bytes], record: str, word: str
) -> None:
    options["hub_command"] = copying(tmp_path, wanted, record)
    with pytest.raises(ModelError, match=word):
        model_store.present(Request(**options))


def test_record_of_another_commit_is_refused(
    tmp_path: pathlib.Path, options: dict[str, Any], wanted: dict[str, bytes]
) -> None:
    options["hub_command"] = copying(tmp_path, wanted, records(wanted, commit="c" * 40))
    with pytest.raises(ModelError, match="another commit, c{40}"):
        model_store.present(Request(**options))


def test_hanging_command_is_ended_after_the_timeout(tmp_path: pathlib.Path, options: dict[str, Any]) -> None:
    options["hub_command"] = fake_command(tmp_path, "import time; time.sleep(60)\n")
    with pytest.raises(ModelError, match=r"did not end within 2 s \(timeout\)"):
        model_store.present(Request(**options, timeout=2))


@pytest.mark.parametrize(
    ("name", "include", "exclude", "wanted"),
    [
        ("model.safetensors", [], [], True),
        ("model.safetensors", ["*.safetensors"], [], True),
        ("original/params.json", ["*.json"], ["original/*"], False),
        ("original/params.json", [], ["original/"], False),
        ("README.md", ["*.json"], [], False),
    ],
)
def test_patterns_mean_what_they_mean_to_the_hubs_command(
    name: str, include: list[str], exclude: list[str], wanted: bool
) -> None:
    assert is_wanted(name, include, exclude) is wanted
