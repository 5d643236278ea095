"""What pruning takes away, and above all what it leaves."""

from __future__ import annotations

import fcntl
import grp
import json
import mmap
import os
import pathlib
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._model import store as model_store
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import prune as vllm_prune

from tests.unit.conftest import ModuleResult

Run = Callable[..., ModuleResult]


class Host:
    """A host whose files lie below one directory: replicas with releases, environments e1 ..., weights m/1 ..."""

    def __init__(self, base: pathlib.Path, run_module: Run) -> None:
        self.etc, self.envs, self.models = base / "etc", base / "env", base / "models"
        self.owner = {"owner": pwd.getpwuid(os.geteuid()).pw_name, "group": grp.getgrgid(os.getegid()).gr_name}
        self._run = run_module

    def env(self, name: str, *, complete: bool = True) -> pathlib.Path:
        path = self.envs / name
        (path / "bin").mkdir(parents=True, exist_ok=True)
        (path / "bin" / "vllm").write_text("x" * 10)
        (path / "bin" / "python").unlink(missing_ok=True)
        (path / "bin" / "python").symlink_to(sys.executable)
        if complete:
            (path / ".llmops-complete").touch()
        return path

    def model(self, revision: str, name: str = "m") -> pathlib.Path:
        path = self.models / name / revision
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.safetensors").write_text("y" * 100)
        (path / "SHA256SUMS").touch()
        return path

    def release(self, number: int, *, state: str = "active", replica: str = "r0", **more: Any) -> str:
        """A release that needs environment and weights of its number, unless others are given."""
        wish = {
            "replica": replica,
            "root": str(self.etc),
            "state": state,
            "settings": {"port": 8000 + number, **more.pop("settings", {})},
            "env": str(more.pop("env", None) or self.env(f"e{number}")),
            "model": str(more.pop("model", None) or self.model(str(number))),
            "service": "",
            **self.owner,
            **more,
        }
        result = self._run("vllm_release", wish)
        assert not result.failed, result
        return str(result["release"])

    def do(self, state: str, **options: str) -> ModuleResult:
        known = {"replica": "r0", "root": str(self.etc), "service": "", **self.owner}
        return self._run("vllm_release", {**known, "state": state, **options})

    def prune(self, *, check: bool = False, **options: Any) -> ModuleResult:
        wish = {"root": str(self.etc), "env_root": str(self.envs), "model_root": str(self.models), "min_age": 0}
        return self._run("vllm_prune", {**wish, **options}, check=check)

    def left(self) -> tuple[list[str], list[str], list[str]]:
        """Releases, environments and weights that are there."""
        releases = sorted(path.name for path in self.etc.glob("*/releases/*"))
        weights = sorted(f"{path.parent.name}/{path.name}" for path in self.models.glob("[!.]*/*"))
        return releases, sorted(path.name for path in self.envs.iterdir()), weights


@pytest.fixture
def host(tmp_path: pathlib.Path, run_module: Run) -> Host:
    return Host(tmp_path, run_module)


@pytest.fixture
def four(host: Host) -> list[str]:
    """Four releases, one after the other in force; nobody needs the first two any more."""
    return [host.release(number) for number in (1, 2, 3, 4)]


def test_what_is_old_goes_with_all_that_only_it_needed(host: Host, four: list[str]) -> None:
    before = host.left()
    foreseen = host.prune(check=True)
    assert foreseen["changed"] and host.left() == before
    pruned = host.prune()
    assert pruned == foreseen
    assert sorted(pruned["releases"]) == sorted(f"{host.etc}/r0/releases/{release}" for release in four[:2])
    assert pruned["environments"] == [f"{host.envs}/e1", f"{host.envs}/e2"]
    assert pruned["models"] == [f"{host.models}/m/1", f"{host.models}/m/2"]
    assert pruned["diff"]["before"].splitlines() == pruned["releases"] + pruned["environments"] + pruned["models"]
    assert pruned["freed_bytes"] > 2 * (10 + 100)
    assert host.left() == (sorted(four[2:]), ["e3", "e4"], ["m/3", "m/4"])
    again = host.prune()
    assert not again["changed"] and (again["freed_bytes"], again["notes"], again["diff"]["before"]) == (0, [], "")


@pytest.mark.parametrize(("keep", "left"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_keep_counts_releases_besides_the_current_one(host: Host, four: list[str], keep: int, left: int) -> None:
    host.prune(keep=keep)
    assert host.left()[0] == sorted(four[-left:])
    assert (host.etc / "r0" / "previous").is_symlink() == (keep > 0), "no link to what is gone"


def test_the_previous_release_counts_first_even_when_it_is_the_oldest(host: Host, four: list[str]) -> None:
    host.do("active", release=four[0])
    host.do("active", release=four[3])
    host.prune()
    assert host.left()[0] == sorted([four[0], four[3]])


def test_what_is_staged_and_what_runs_stays_and_is_not_counted(
    host: Host, four: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = host.release(5, state="staged")
    monkeypatch.setattr(vllm_prune, "running_releases", lambda: {four[0]})
    host.prune()
    assert host.left() == (
        sorted([four[0], *four[2:], staged]),
        ["e1", "e3", "e4", "e5"],
        ["m/1", "m/3", "m/4", "m/5"],
    )


def test_the_release_of_any_process_is_seen(host: Host, four: list[str]) -> None:
    process = subprocess.Popen(["sleep", "600"], env={"LLMOPS_RELEASE": four[0]})
    try:
        host.prune()
    finally:
        process.kill()
        process.wait()
    assert four[0] in host.left()[0] and four[1] not in host.left()[0]


def test_a_bad_mark_outlives_its_release(host: Host, four: list[str]) -> None:
    host.do("marked", release=four[0], mark="bad", reason="it crashed")
    host.prune()
    assert four[0] not in host.left()[0]
    assert host.release(1, state="staged") == four[0]
    assert "is marked bad: it crashed" in host.do("active")["msg"]


def test_what_another_replica_needs_stays_also_when_it_is_not_pruned(host: Host, four: list[str]) -> None:
    others = [host.release(number, replica="r1") for number in (1, 6, 7)]
    host.prune(replicas=["r0"])
    assert host.left() == (
        sorted([*four[2:], *others]),
        ["e1", "e3", "e4", "e6", "e7"],
        ["m/1", "m/3", "m/4", "m/6", "m/7"],
    )
    host.prune(replicas=["r1"])
    assert host.left()[1] == ["e3", "e4", "e6", "e7"]


def test_weights_that_a_flag_names_stay(host: Host) -> None:
    draft, adapter, stray = (host.model("1", name) for name in ("draft", "adapter", "stray"))
    speculative = {"model": str(draft), "num_speculative_tokens": 3}
    host.release(1, settings={"speculative-config": speculative, "lora-modules": [f"a={adapter}"]})
    assert host.prune()["models"] == [str(stray)]
    assert host.left()[2] == ["adapter/1", "draft/1", "m/1"]
    assert not stray.parent.exists(), "the directory of a model without revisions goes, too"


def test_what_is_protected_stays_with_all_below_it(host: Host, four: list[str]) -> None:
    host.prune(protect=[str(host.envs / "e1"), str(host.models / "m")])
    assert host.left() == (sorted(four[2:]), ["e1", "e3", "e4"], ["m/1", "m/2", "m/3", "m/4"])


def test_what_is_young_stays(host: Host, four: list[str]) -> None:
    before = host.left()
    assert not host.prune(min_age=3600)["changed"]
    assert host.left() == before
    for path in (host.envs / "e1", host.models / "m" / "1"):
        os.utime(path, (0, 0))  # as files that were copied with their times; they came here a moment ago
    assert not host.prune(min_age=3600)["changed"]


def test_what_a_process_uses_stays(host: Host, four: list[str]) -> None:
    with open(host.models / "m" / "1" / "model.safetensors", "r+b") as file, mmap.mmap(file.fileno(), 0):
        host.prune()
    assert host.left()[2] == ["m/1", "m/3", "m/4"]
    host.prune()
    assert host.left()[2] == ["m/3", "m/4"]


def test_only_what_is_ours_goes(host: Host, four: list[str], tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    (outside / "1").mkdir(parents=True)
    for sign in (outside, outside / "1"):
        (sign / ".llmops-complete").touch()
        (sign / "SHA256SUMS").touch()
    host.env("by-hand", complete=False)
    (host.envs / "linked").symlink_to(outside)
    (host.envs / "e9.toml").touch()
    (host.models / "linked").symlink_to(outside)
    (host.models / "m" / "linked").symlink_to(outside)
    (host.models / "by-hand" / "1").mkdir(parents=True)
    (host.models / ".incoming" / "m@9").mkdir(parents=True)
    host.prune()
    assert host.left()[1:] == (
        ["by-hand", "e3", "e4", "e9.toml", "linked"],
        ["by-hand/1", "linked/.llmops-complete", "linked/1", "linked/SHA256SUMS", "m/3", "m/4", "m/linked"],
    )
    assert (host.models / ".incoming" / "m@9").is_dir()


def test_releases_behind_a_link_are_read_and_left_alone(host: Host, four: list[str], tmp_path: pathlib.Path) -> None:
    (host.etc / "r0").rename(tmp_path / "moved")
    (host.etc / "r0").symlink_to(tmp_path / "moved")
    assert not host.prune()["changed"]
    assert host.left() == (sorted(four), ["e1", "e2", "e3", "e4"], ["m/1", "m/2", "m/3", "m/4"])


def test_roots_that_are_reached_by_a_link_are_the_same_roots(
    host: Host, four: list[str], tmp_path: pathlib.Path
) -> None:
    (tmp_path / "srv").symlink_to(host.models)
    (tmp_path / "opt").symlink_to(host.envs)
    host.prune(model_root=f"{tmp_path}/srv/", env_root=f"{tmp_path}//opt")
    assert host.left() == (sorted(four[2:]), ["e3", "e4"], ["m/3", "m/4"])


def test_without_any_release_nothing_is_unused(host: Host, four: list[str], tmp_path: pathlib.Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    for check in (True, False):
        pruned = host.prune(root=nowhere, check=check)
        assert not pruned["changed"]
        assert pruned["notes"] == [f"{nowhere} holds no release: environments and weights were left alone"]
    assert host.left()[1] == ["e1", "e2", "e3", "e4"]


def test_without_their_roots_only_releases_go(host: Host, four: list[str]) -> None:
    pruned = host.prune(env_root=None, model_root=None)
    assert len(pruned["releases"]) == 2 and (pruned["environments"], pruned["models"]) == ([], [])
    assert host.left()[1:] == (["e1", "e2", "e3", "e4"], ["m/1", "m/2", "m/3", "m/4"])


def test_a_release_that_says_nothing_never_counts_as_one_to_go_back_to(host: Host, four: list[str]) -> None:
    (host.etc / "r0" / "releases" / "0123456789ab").mkdir()
    assert f"{host.etc}/r0/releases/0123456789ab" in host.prune()["releases"]
    assert host.left()[0] == sorted(four[2:])


def test_a_release_that_is_needed_and_says_nothing_stops_it(host: Host, four: list[str]) -> None:
    current = host.etc / "r0" / "releases" / four[3]
    for name in ("release.json", "env", "model", "unit.conf"):
        (current / name).unlink()
    refused = host.prune()
    assert refused.failed
    assert refused["msg"] == f"{current} does not say which environment and weights it needs: stage it anew"
    assert len(refused["releases"]) == 2, "what went before is told"
    assert host.left()[1] == ["e1", "e2", "e3", "e4"]


def test_a_damaged_document_still_has_its_links(host: Host, four: list[str]) -> None:
    (host.etc / "r0" / "releases" / four[3] / "release.json").write_text("{")
    host.prune()
    assert host.left()[1:] == (["e3", "e4"], ["m/3", "m/4"])


def test_a_revision_that_another_run_works_on_is_left_and_told(host: Host, four: list[str]) -> None:
    workspace = host.models / ".incoming" / "m@1"
    workspace.mkdir(parents=True)
    with open(workspace / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pruned = host.prune()
    assert pruned["models"] == [f"{host.models}/m/2"]
    assert f"{host.models}/m/1: another run has been staging it" in pruned["notes"][0]


def test_what_a_download_left_goes_when_nobody_has_gone_on_with_it_for_a_week(host: Host, four: list[str]) -> None:
    begun = []
    for name, days in (("m@9", 8), ("m@4", 8), ("org-m@10", 8), ("m@11", 6)):
        workspace = host.models / ".incoming" / name
        partial = workspace / "copy-01234567" / ".cache" / "partial" / "model.safetensors"
        partial.parent.mkdir(parents=True)
        partial.write_text("z" * 1000)
        (workspace / "lock").touch()
        for path in (partial, *partial.parents[:3]):
            os.utime(path, (0, time.time() - days * 86400))
        begun.append(workspace)
    with (begun[0] / "lock").open() as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        foreseen = host.prune(check=True, keep=9)
        pruned = host.prune(keep=9)
    assert foreseen["models"] == [str(begun[1]), str(begun[0]), str(begun[2])]
    assert pruned["models"] == [str(begun[1]), str(begun[2])] and pruned["freed_bytes"] == 2000
    assert "another run has been staging it" in pruned["notes"][0] and f"{host.models}/m/9" in pruned["notes"][0]
    assert [(path / "copy-01234567").is_dir() for path in begun] == [True, False, False, True]
    assert "m/4" in host.left()[2]  # which is there, and stays
    assert host.prune(keep=9)["models"] == [str(begun[0])]
    assert not host.prune(keep=9)["changed"]


def test_what_a_killed_run_left_half_removed_goes(host: Host, four: list[str]) -> None:
    (host.envs / ".removed-e0" / "lib").mkdir(parents=True)
    host.prune()
    assert not (host.envs / ".removed-e0").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep": -1}, "keep is -1, needed is 0 or more"),
        ({"min_age": -1}, "min_age is -1, needed is 0 or more"),
        ({"env_root": "/"}, "'/' is no absolute path of a directory"),
        ({"model_root": "//"}, "'//' is no absolute path of a directory"),
        ({"protect": ["models"]}, "'models' is no absolute path of a directory"),
    ],
)
def test_what_cannot_be_meant_is_refused(host: Host, four: list[str], options: dict[str, Any], words: str) -> None:
    before = host.left()
    refused = host.prune(**options)
    assert refused.failed and words in refused["msg"]
    assert host.left() == before


# --- file systems of several hosts


@pytest.fixture
def mounts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Says what is mounted: pairs of a directory and a type, the root's first."""

    def mount(*found: tuple[str, str]) -> None:
        lines = [f"1 1 8:1 / {path} rw shared:1 - {kind} /dev/x rw\n" for path, kind in (("/", "ext4"), *found)]
        (tmp_path / "mountinfo").write_text("".join(lines))

    monkeypatch.setattr(vllm_prune, "_MOUNTS", tmp_path / "mountinfo")
    mount()
    return mount


def test_what_other_hosts_see_is_left_alone(host: Host, four: list[str], mounts: Callable[..., None]) -> None:
    mounts((str(host.models), "nfs4"))
    pruned = host.prune()
    assert pruned["environments"] and not pruned["models"]
    assert pruned["notes"] == [
        f"{host.models} lies on nfs4: what is there was left alone, since other hosts may use it"
    ]
    assert host.left()[2] == ["m/1", "m/2", "m/3", "m/4"]


def test_the_innermost_mount_and_of_two_the_later_one_counts(mounts: Callable[..., None]) -> None:
    mounts(("/srv", "nfs"), ("/srv/ä\\040b", "xfs"), ("/srvx", "cifs"), ("/srv/c", "nfs"), ("/srv/c", "btrfs"))
    found = {path: vllm_prune.file_system(pathlib.Path(path)) for path in ("/", "/srv/m", "/srv/ä b/m", "/srv/c/m")}
    assert found == {"/": "ext4", "/srv/m": "nfs", "/srv/ä b/m": "xfs", "/srv/c/m": "btrfs"}


def test_the_file_system_of_this_machine_is_known() -> None:
    assert vllm_prune.file_system(pathlib.Path("/proc")) == "proc"


def test_weights_of_the_store_are_recognised(host: Host, tmp_path: pathlib.Path) -> None:
    """Brought by the module that brings them everywhere, not by a look-alike of this test."""
    source = tmp_path / "source"
    source.mkdir()
    header = json.dumps({}).encode()
    (source / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (source / "tokenizer.json").write_text("{}")
    (source / "config.json").write_text(json.dumps({"architectures": ["Tiny"]}))
    request = model_store.Request("real", "2026-11-01", str(host.models), source=f"file://{source}", min_free_bytes=0)
    model_store.present(request)
    host.release(1)
    assert host.prune()["models"] == [str(request.path)]
    assert not request.path.exists()
