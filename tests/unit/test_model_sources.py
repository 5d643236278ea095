"""Weights from mirrors and buckets: brought whole, gone on with after a break, or refused."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import fetch as model_fetch
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._model.store import Request

from tests.fakes import bucket_tool
from tests.fakes.mirror import FakeMirror
from tests.unit.test_role_llm_model import HOSTS, Fleet
from tools import tiny_model

WEIGHTS = "model.safetensors"
SECRET = "secret-of-the-bucket"
TOOLS = {"aws": "s3", "gcloud": "gs", "gsutil": "gs", "rclone": "s3"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_fetch, "PAUSE_S", 0.001)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tiny_model.write(tmp_path_factory.mktemp("mirror") / "a", "a")
    small = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**small, "sub dir/vocab#1.json": b"{}", "original/consolidated.00.pth": b"x" * 100}


@pytest.fixture
def mirror(files: dict[str, bytes]) -> Iterator[FakeMirror]:
    with FakeMirror(files) as fake:
        yield fake


@pytest.fixture
def options(tmp_path: pathlib.Path, mirror: FakeMirror) -> dict[str, Any]:
    root = str(tmp_path / "models")
    return {"name": "tiny", "revision": "r1", "source": mirror.address, "root": root, "exclude": ["original/*"]}


def staged(options: dict[str, Any]) -> dict[str, bytes]:
    """Return name -> content of what is staged, SHA256SUMS left out; verified by every byte."""
    request = Request(**dict(options, verify="sha256"))
    model_store.verify(request)
    found = {
        str(path.relative_to(request.path)): path.read_bytes() for path in request.path.rglob("*") if path.is_file()
    }
    del found["SHA256SUMS"]
    return found


def selected(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith("original/")}


def test_mirror_is_staged_as_selected_and_asked_once(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes]
) -> None:
    predicted = run_module("llm_model", options, check=True)
    assert predicted["changed"]
    assert mirror.requests == []
    done = run_module("llm_model", options)
    assert (done["changed"], done["diff"]) == (True, predicted["diff"])
    assert staged(options) == selected(files)
    asked = len(mirror.requests)
    assert not run_module("llm_model", options)["changed"]
    assert len(mirror.requests) == asked


def test_staged_revision_is_a_mirror_itself(
    run_module: Callable[..., Any], options: dict[str, Any], files: dict[str, bytes], tmp_path: pathlib.Path
) -> None:
    path = pathlib.Path(run_module("llm_model", options)["path"])
    copy = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with FakeMirror(copy) as second:
        again = dict(options, source=second.address, root=str(tmp_path / "second"))
        assert run_module("llm_model", again)["changed"]
    assert staged(again) == selected(files)


def test_broken_connections_are_gone_on_with(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes]
) -> None:
    mirror.cut, mirror.cuts = 100_000, 9
    assert run_module("llm_model", options)["changed"]
    assert f"GET {WEIGHTS} bytes=100000-" in mirror.requests
    assert f"GET {WEIGHTS} bytes=200000-" in mirror.requests
    assert staged(options) == selected(files)


def test_server_without_ranges_is_read_from_the_begin(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes]
) -> None:
    mirror.cut, mirror.cuts, mirror.ranges = 100_000, 2, False
    assert run_module("llm_model", options)["changed"]
    assert staged(options) == selected(files)


def test_byte_altered_once_on_the_way_is_fetched_again(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes]
) -> None:
    mirror.alter, mirror.alters = WEIGHTS, 1
    assert run_module("llm_model", options)["changed"]
    assert mirror.begun().count(WEIGHTS) == 2
    assert staged(options) == selected(files)


def test_next_run_goes_on_and_does_not_trust_what_lies_there(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes]
) -> None:
    request = Request(**options)
    partial = request.incoming / ".cache" / "partial" / WEIGHTS
    partial.parent.mkdir(parents=True)
    partial.write_bytes(files[WEIGHTS][:5000])
    (request.incoming / "config.json").write_bytes(bytes(len(files["config.json"])))  # hollow, as after a power cut
    (request.incoming / "stale.json").touch()  # of an older listing
    assert run_module("llm_model", options)["changed"]
    assert f"GET {WEIGHTS} bytes=5000-" in mirror.requests
    assert staged(options) == selected(files)


@pytest.mark.parametrize("begun", [lambda whole: b"y" * 5000, lambda whole: whole + b"y" * 9, lambda whole: whole])
def test_part_of_another_file_is_begun_anew_and_a_whole_one_only_named(
    run_module: Callable[..., Any],
    options: dict[str, Any],
    mirror: FakeMirror,
    files: dict[str, bytes],
    begun: Callable[[bytes], bytes],
) -> None:
    partial = Request(**options).incoming / ".cache" / "partial" / WEIGHTS
    partial.parent.mkdir(parents=True)
    partial.write_bytes(begun(files[WEIGHTS]))
    assert run_module("llm_model", options)["changed"]
    assert staged(options) == selected(files)
    assert (WEIGHTS in mirror.begun()) == (begun(b"") != b"")


def write_sums(mirror: FakeMirror, text: str) -> None:
    mirror.files["SHA256SUMS"] = text.encode()


BAD_MIRRORS: dict[str, tuple[Callable[[FakeMirror], Any], list[str]]] = {
    "no listing": (lambda m: setattr(m, "status", 404), ["SHA256SUMS: 404"]),
    "closed": (lambda m: setattr(m, "authorization", "Bearer x"), ["401", "llm_model_mirror_headers"]),
    "down": (lambda m: setattr(m, "status", 503), ["503"]),
    "altered for good": (
        lambda m: (setattr(m, "alter", WEIGHTS), setattr(m, "alters", 99)),
        [WEIGHTS, "altered twice", "SHA256SUMS", "mend the file there"],
    ),
    "wrong size": (lambda m: setattr(m, "wrong", WEIGHTS), [WEIGHTS, "altered twice"]),
    "missing file": (lambda m: write_sums(m, f"{'0' * 64}  gone.bin\n{m.sums().decode()}"), ["gone.bin: 404"]),
    "file outside": (lambda m: write_sums(m, f"{'0' * 64}  a/../../../x\n"), ["'../../x'", "outside"]),
    "absolute file": (lambda m: write_sums(m, f"{'0' * 64}  /etc/passwd\n"), ["'/etc/passwd'", "outside"]),
    "no listing at all": (lambda m: write_sums(m, "<html>"), ["'<html>'", "sha256sum"]),
    "no text": (lambda m: m.files.update({"SHA256SUMS": b"\xff\xfe"}), ["no text"]),
    "nothing selected": (lambda m: write_sums(m, f"{'0' * 64}  original/a\n"), ["no file that is wanted"]),
    "no model": (lambda m: m.files.pop("config.json"), ["config.json", "not there"]),
}


def test_patterns_that_leave_no_weights_are_refused(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror
) -> None:
    result = run_module("llm_model", dict(options, include=["*.json"]))
    assert result.failed
    assert f"{mirror.address}: holds no weights (*.safetensors, " in result["msg"]
    assert "complete it, or mend include and exclude, or, for one that is served with load-format" in result["msg"]
    assert not Request(**options).path.exists()


@pytest.mark.parametrize("case", BAD_MIRRORS)
def test_bad_mirror_is_refused_and_mended_by_the_next_run(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes], case: str
) -> None:
    damage, words = BAD_MIRRORS[case]
    damage(mirror)
    result = run_module("llm_model", options)
    assert result.failed
    assert [word for word in [*words, "next run goes on"] if word not in result["msg"]] == [], result["msg"]
    assert not Request(**options).path.exists()
    with FakeMirror(files) as mended:
        mended_options = dict(options, source=mended.address)
        assert run_module("llm_model", mended_options)["changed"]
    assert staged(mended_options) == selected(files)


def test_closed_port_is_named(run_module: Callable[..., Any], options: dict[str, Any], files: dict[str, bytes]) -> None:
    with FakeMirror(files) as gone:
        pass
    result = run_module("llm_model", dict(options, source=gone.address))
    assert "Connection refused" in result["msg"]
    assert f"GET {gone.address}/SHA256SUMS" in result["msg"]


def test_no_room_is_found_before_the_first_byte(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror
) -> None:
    result = run_module("llm_model", dict(options, min_free_bytes=1 << 62))
    assert "tiny r1 needs 0.0 GB plus" in result["msg"]
    assert mirror.begun() == []


def test_room_is_looked_at_on_the_way_too(
    run_module: Callable[..., Any], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source need not tell its size."""
    monkeypatch.setattr(model_fetch, "expect", lambda request, needed: None)
    monkeypatch.setattr(model_fetch, "_LOOK_AT_DISK_EVERY", 100_000)
    result = run_module("llm_model", dict(options, min_free_bytes=1 << 62))
    assert "are left free" in result["msg"]
    assert "llm_model_root" in result["msg"]


def test_header_goes_to_the_mirror_alone_and_is_never_shown(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror, files: dict[str, bytes]
) -> None:
    mirror.authorization = "Bearer token-of-the-mirror"
    with FakeMirror(files) as storage:
        mirror.elsewhere = storage.address
        result = run_module("llm_model", dict(options, mirror_headers={"Authorization": mirror.authorization}))
    assert result["changed"], result
    assert "token-of-the-mirror" not in str(result)
    assert all(headers["Authorization"] == mirror.authorization for headers in mirror.headers)
    assert [headers for headers in storage.headers if "Authorization" in headers] == []


def test_files_come_side_by_side(run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror) -> None:
    mirror.hold.clear()

    def release(timeout: float) -> None:
        """Let files go once three of them were asked for; with fewer at a time that never happens."""
        deadline = time.monotonic() + timeout
        while len(mirror.begun()) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(mirror.begun()) == 3, mirror.begun()
        mirror.hold.set()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        released = pool.submit(release, 20)
        assert run_module("llm_model", dict(options, parallel=3))["changed"]
        released.result()


def test_bandwidth_is_shared_by_all_files(
    run_module: Callable[..., Any], options: dict[str, Any], files: dict[str, bytes]
) -> None:
    size = sum(map(len, selected(files).values()))
    began = time.monotonic()
    assert run_module("llm_model", dict(options, bandwidth_bytes_per_second=size))["changed"]
    assert time.monotonic() - began > 0.7  # a second, but for what passes at once


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "https://host"}, ["source", "directory of a mirror"]),
        ({"source": "https://host/a?token=x"}, ["source", "directory of a mirror"]),
        ({"source": "https://joe:hidden@host/a"}, ["source", "llm_model_mirror_headers"]),
        ({"source": "s3://Bucket/x"}, ["source", "s3://bucket/models"]),
        ({"source": "s3://bucket"}, ["source", "s3://bucket/models"]),
        ({"source": "ftp://host/x"}, ["source", "https://, http://, s3://, gs://"]),
        ({"source": "s3://bucket/x", "bucket_command": "gsutil"}, ["'gsutil'", "aws or rclone"]),
        ({"source": "gs://bucket/x", "bucket_command": "/usr/bin/s5cmd"}, ["s5cmd", "gcloud or gsutil or rclone"]),
        (
            {"source": "gs://bucket/x", "bucket_command": "/no/gcloud"},
            ["/no/gcloud: this host has no such command", "install it", "llm_model_bucket_command"],
        ),
        ({"source": "https://host/a", "revision": "latest"}, ["revision", "'latest'"]),
        ({"parallel": 0}, ["parallel is 0"]),
        ({"bandwidth_bytes_per_second": -1}, ["bandwidth_bytes_per_second is -1"]),
    ],
)
def test_bad_options(
    run_module: Callable[..., Any], options: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    result = run_module("llm_model", {**options, **change})
    assert result.failed
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]
    assert "hidden" not in result["msg"]


@pytest.fixture
def buckets(tmp_path: pathlib.Path, files: dict[str, bytes]) -> pathlib.Path:
    folder = tmp_path / "buckets"
    with FakeMirror(files) as mirror:
        content = {**files, "SHA256SUMS": mirror.sums()}
    for name, data in content.items():
        path = folder / "weights" / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def of_bucket(
    options: dict[str, Any], tmp_path: pathlib.Path, buckets: pathlib.Path
) -> Callable[[str], dict[str, Any]]:
    def made(tool: str) -> dict[str, Any]:
        command = bucket_tool.write(tmp_path, tool, buckets, SECRET)
        source = f"{TOOLS[tool]}://weights/tiny"
        return dict(options, source=source, bucket_command=command, bucket_secrets={"BUCKET_KEY": SECRET})

    return made


@pytest.mark.parametrize("tool", TOOLS)
def test_bucket_is_staged_and_gone_on_with_when_its_command_breaks(
    run_module: Callable[..., Any],
    of_bucket: Callable[[str], dict[str, Any]],
    files: dict[str, bytes],
    buckets: pathlib.Path,
    tmp_path: pathlib.Path,
    tool: str,
) -> None:
    (buckets / "broken").write_text("2")
    result = run_module("llm_model", dict(of_bucket(tool), parallel=1))
    assert result["changed"], result
    assert staged(of_bucket(tool)) == selected(files)
    told = [json.loads(line) for line in (tmp_path / f"{tool}.log").read_text().splitlines()]
    ranged = [words for words in told if any(word.strip("-range=").isdigit() and word != "0" for word in words)]
    assert bool(ranged) == (tool != "aws")  # which prints whole objects only


@pytest.mark.parametrize("tool", TOOLS)
def test_size_of_a_bucket_is_asked_before(
    run_module: Callable[..., Any], of_bucket: Callable[[str], dict[str, Any]], files: dict[str, bytes], tool: str
) -> None:
    result = run_module("llm_model", dict(of_bucket(tool), min_free_bytes=1 << 62))
    assert f"needs {sum(map(len, files.values())) / 1e9:.1f} GB plus" in result["msg"]


def test_secret_of_a_bucket_travels_by_environment_and_is_never_shown(
    run_module: Callable[..., Any], of_bucket: Callable[[str], dict[str, Any]], tmp_path: pathlib.Path
) -> None:
    wrong = {"BUCKET_KEY": "another-secret-key"}
    result = run_module("llm_model", dict(of_bucket("aws"), bucket_secrets=wrong))
    assert "AccessDenied for the key ***" in result["msg"]
    assert "s3://weights/tiny/SHA256SUMS: the command ended with 1" in result["msg"]
    assert "another-secret-key" not in (tmp_path / "aws.log").read_text()


@pytest.mark.parametrize("tool", ["aws", "rclone"])
def test_altered_object_is_refused(
    run_module: Callable[..., Any], of_bucket: Callable[[str], dict[str, Any]], buckets: pathlib.Path, tool: str
) -> None:
    weights = buckets / "weights" / "tiny" / WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    result = run_module("llm_model", of_bucket(tool))
    assert f"{WEIGHTS} arrived altered twice" in result["msg"]
    assert not Request(**of_bucket(tool)).path.exists()


def test_removal_takes_what_was_begun(
    run_module: Callable[..., Any], options: dict[str, Any], mirror: FakeMirror
) -> None:
    mirror.wrong = WEIGHTS
    assert run_module("llm_model", options).failed
    assert Request(**options).incoming.exists()
    assert run_module("llm_model", dict(options, state="absent"))["changed"]
    assert not Request(**options).incoming.exists()
    shutil.rmtree(options["root"])


def test_controller_without_weights_is_refused_by_name_unless_none_are_wanted(tmp_path: pathlib.Path) -> None:
    """By the role, which brings its files: here a directory was copied as far as config and tokenizer."""
    folder = tiny_model.write(tmp_path / "slow", "slow")  # for load-format dummy
    fleet = Fleet(tmp_path, f"controller://{folder}")
    refused = fleet.run("--limit", "gpu1")
    assert refused.rc == 2
    words = " ".join(refused.out.split())
    assert f"controller://{folder} holds no weights" in words and "set llm_model_weights to false" in words
    assert fleet.whole() == []
    done = fleet.run(llm_model_weights=False)
    assert done.rc == 0, done.out
    assert fleet.whole() == list(HOSTS)
