"""What nobody may ever see: a revision that passes as good and is not. Real processes and files, every kind of source.

Killed at 20 random moments, with a full disk, a byte altered, a file of the wrong size, two runs at once.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import fetch as model_fetch
from ansible_collections.llmops.vllm.plugins.module_utils._model import peer as model_peer
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._model.files import SUMS, git_blob, sha256
from ansible_collections.llmops.vllm.plugins.module_utils._model.safetensors import ModelError
from ansible_collections.llmops.vllm.plugins.module_utils._model.store import Request

from tests.fakes import bucket_tool
from tests.fakes.mirror import FakeMirror
from tools import tiny_model

WEIGHTS = "model.safetensors"
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
KILLS = 20
# Stands in for `hf download`: brings the files of a directory, slowly enough to be met, and records what the hub says.
HF = """#!{python} -ISE
import json, pathlib, sys
if "--dry-run" in sys.argv:
    sys.exit(print("[dry-run] Will download 9 files totalling 0.1M."))
folder = pathlib.Path(sys.argv[sys.argv.index("--local-dir") + 1])
notes = folder / ".cache" / "huggingface" / "trees"
notes.mkdir(parents=True, exist_ok=True)
for path in sorted(pathlib.Path({source!r}).iterdir()):
    if path.name != "SHA256SUMS":
        (folder / path.name).write_bytes(path.read_bytes())
(notes / "{commit}.json").write_text({record!r})
"""


class Way:
    """A source of one kind, whose files lie in a directory, and the options of a host that brings them."""

    def __init__(self, kind: str, folder: pathlib.Path, options: dict[str, Any], mirror: FakeMirror | None) -> None:
        self.kind, self.folder, self.options, self._mirror = kind, folder, options, mirror
        self.good = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != SUMS}

    @property
    def request(self) -> Request:
        return Request(**self.options)

    def damage(self, change: Callable[[bytes], bytes], name: str = WEIGHTS) -> None:
        """Change a file at the source, which still states the sums of before."""
        (self.folder / name).write_bytes(change((self.folder / name).read_bytes()))
        if self._mirror:
            self._mirror.files[name] = (self.folder / name).read_bytes()

    def check(self, *, there: bool) -> None:
        """A revision that is visible has every byte of the source, and the module finds it good."""
        path = self.request.path
        assert path.exists() or not there
        if path.exists():
            found = {file.name: file.read_bytes() for file in path.iterdir() if file.name != SUMS}
            assert found == self.good
            model_store.verify(Request(**dict(self.options, verify="sha256")))


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The files of a model with their sums, more of them than a kill can miss."""
    folder = tiny_model.write(tmp_path / "buckets" / "weights" / "tiny", "a")
    for number in range(6):
        (folder / f"part-{number}.bin").write_bytes(bytes([number]) * 150_000)
    sums = {path.name: sha256(path) for path in folder.iterdir()}
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    return folder


def hub(tmp_path: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    about = {path.name: {"blob_id": git_blob(path)} for path in folder.iterdir() if path.name != SUMS}
    command = tmp_path / "hf"
    record = json.dumps({"files": about})
    command.write_text(HF.format(python=sys.executable, source=str(folder), commit=COMMIT, record=record))
    command.chmod(0o755)
    return {"source": "hf://example/tiny", "revision": COMMIT, "hub_command": str(command)}


def bucket(tmp_path: pathlib.Path, tool: str, scheme: str) -> dict[str, Any]:
    command = bucket_tool.write(tmp_path, tool, tmp_path / "buckets")
    return {
        "source": f"{scheme}://weights/tiny",
        "bucket_command": command,
        "bucket_environment": {"BUCKET_KEY": ""},
    }


@pytest.fixture(params=["file", "http", "s3", "gs", "hf", "peer"])
def way(request: pytest.FixtureRequest, tmp_path: pathlib.Path, folder: pathlib.Path) -> Iterator[Way]:
    kind = request.param
    common = {"name": "tiny", "revision": "r1", "root": str(tmp_path / "models"), "min_free_bytes": 0, "timeout": 60}
    if kind == "http":
        with FakeMirror({path.name: path.read_bytes() for path in folder.iterdir()}) as mirror:
            yield Way(kind, folder, {**common, "source": mirror.address}, mirror)
    elif kind == "peer":
        held = Request("tiny", "r1", str(tmp_path / "holder"), f"file://{folder}", min_free_bytes=0)
        sums = model_store.present(held)["sums_sha256"]
        served = model_peer.start(model_peer.Wish(held.root, [{"name": "tiny", "revision": "r1"}], "127.0.0.1"))
        options = {"source": "controller:///srv/tiny", "peers": [served], "peers_sums": sums}
        yield Way(kind, held.path, {**common, **options}, None)
        os.kill(served["pid"], signal.SIGKILL)
        os.waitpid(served["pid"], 0)
    else:
        own = {
            "file": lambda: {"source": f"file://{folder}"},
            "s3": lambda: bucket(tmp_path, "aws", "s3"),
            "gs": lambda: bucket(tmp_path, "gsutil", "gs"),
            "hf": lambda: hub(tmp_path, folder),
        }[kind]()
        yield Way(kind, folder, {**common, **own}, None)


def begin(way: Way) -> int:
    """Stage in a process of its own; return its number."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 2)
            code = int(not model_store.present(way.request).get("sums_sha256"))
        finally:
            os._exit(code)
    return pid


def test_killed_at_random_moments(way: Way) -> None:
    began = time.monotonic()
    pid = begin(way)
    assert os.waitpid(pid, 0)[1] == 0
    usual = time.monotonic() - began
    way.check(there=True)
    model_store.absent(way.request)
    dice, killed = random.Random(way.kind), 0
    for _turn in range(10 * KILLS):
        pid, moment = begin(way), dice.uniform(0, usual)
        time.sleep(moment)  # the moment of the kill is the subject, not a wait
        os.kill(pid, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            killed += 1
        else:
            usual = moment  # it had ended before: the first run was a slow one
        way.check(there=False)
        if way.request.path.exists():
            model_store.absent(way.request)
        if killed == KILLS:
            break
    assert killed == KILLS
    assert model_store.present(way.request)["changed"]
    way.check(there=True)


def altered(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "change", [altered, lambda content: content[:-9], lambda content: content + b"x", lambda content: b""]
)
@pytest.mark.parametrize("name", [WEIGHTS, "part-3.bin"])
def test_byte_altered_or_wrong_size(
    way: Way, change: Callable[[bytes], bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_fetch, "PAUSE_S", 0.001)
    way.damage(change, name)
    if way.kind == "peer":
        assert "transfer" in model_store.present(way.request)  # the source is asked
    else:
        with pytest.raises(ModelError, match=name):
            model_store.present(way.request)
    assert not way.request.path.exists()
    way.damage(lambda content: way.good[name], name)
    assert model_store.present(way.request)["changed"]
    way.check(there=True)


def test_two_runs_at_once(way: Way) -> None:
    runs = [begin(way) for _turn in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in runs] == [0, 0, 0]
    way.check(there=True)
    assert not model_store.present(way.request)["changed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which only root may")
def test_disk_is_full(way: Way, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_fetch, "PAUSE_S", 0.001)
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(small)], check=False).returncode != 0:
        pytest.skip("this machine does not let root mount a tmpfs")
    way.options.update(root=str(small), min_free_bytes=-(1 << 30))  # else it is told before the first byte
    try:
        if way.kind == "peer":
            assert "transfer" in model_store.present(way.request)
        else:
            with pytest.raises(ModelError, match="No space left"):
                model_store.present(way.request)
        assert not way.request.path.exists()
        subprocess.run(["mount", "-o", "remount,size=90m", str(small)], check=True)
        assert model_store.present(way.request)["changed"]
        way.check(there=True)
    finally:
        subprocess.run(["umount", str(small)], check=True)
