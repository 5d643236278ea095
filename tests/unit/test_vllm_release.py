from __future__ import annotations

import grp
import json
import multiprocessing
import os
import pathlib
import pwd
import stat

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils import _release_home, _release_meaning
from ansible_collections.llmops.vllm.plugins.module_utils import _vllm_release as subject

KEYS = ["first-key-0123456789abcdef0123456789", "second-key-0123456789abcdef012345678"]
ME = pwd.getpwuid(os.geteuid()).pw_name
MY_GROUP = grp.getgrgid(os.getegid()).gr_name


@pytest.fixture
def args(tmp_path):
    for name in ("env", "model"):
        (tmp_path / name).mkdir()
    return {
        "replica": "r0",
        "root": str(tmp_path / "etc" / "vllm"),
        "settings": {"model": str(tmp_path / "model"), "max-model-len": 1024, "port": 8000},
        "environment": {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": 75},
        "unit": "[Service]\nTimeoutStopSec=90\n",
        "env": str(tmp_path / "env"),
        "model": str(tmp_path / "model"),
        "model_name": "tiny",
        "model_revision": "a" * 40,
        "version": "0.32.0",
        "secrets": {"api-key": KEYS},
        "owner": ME,
        "group": MY_GROUP,
        "service": "",
    }


@pytest.fixture
def home(args):
    return pathlib.Path(args["root"]) / "r0"


def tree(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*")) if path.exists() else []


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def changed_settings(args, **settings):
    return {**args, "settings": {**args["settings"], **settings}}


def test_stage_activate_stage_anew_and_remove_each_twice_and_in_check_mode(run_module, args, home):
    foreseen = run_module("vllm_release", args, check=True)
    assert foreseen["changed"] and foreseen["pending"] and not home.exists()

    staged = run_module("vllm_release", args)
    assert staged["changed"] and staged["pending"]
    assert staged["release"] == foreseen["release"] == staged["staged"]
    assert (staged["current"], staged["previous"]) == ("", "")
    assert str((home / "staged").readlink()) == f"releases/{staged['release']}"
    assert not run_module("vllm_release", args)["changed"]

    active = {**args, "state": "active"}
    seen = run_module("vllm_release", active, check=True)
    assert seen["changed"] and seen["current"] == staged["release"] and not (home / "current").exists()
    switched = run_module("vllm_release", active)
    assert switched["changed"] and not switched["pending"] and not switched["restart_needed"]
    assert str((home / "current").readlink()) == f"releases/{staged['release']}"
    assert not (home / "staged").is_symlink()
    assert not run_module("vllm_release", active)["changed"]
    again = run_module("vllm_release", args)
    assert (again["changed"], again["pending"], again["staged"]) == (False, False, "")

    second = changed_settings(args, **{"max-model-len": 2048})
    staged2 = run_module("vllm_release", second)
    assert staged2["pending"] and staged2["current"] == staged["release"] != staged2["release"]
    assert staged2["differences"] == [{"name": "max-model-len", "before": "1024", "after": "2048"}]
    only_state = {name: args[name] for name in ("replica", "root", "owner", "group", "service")}
    switched2 = run_module("vllm_release", {**only_state, "state": "active"})
    assert switched2["restart_needed"] and switched2["current"] == staged2["release"]
    assert switched2["previous"] == staged["release"] == (home / "previous").readlink().name

    back = run_module("vllm_release", {**only_state, "state": "active", "release": staged["release"]})
    assert (back["current"], back["previous"]) == (staged["release"], staged2["release"])

    absent = {**only_state, "state": "absent"}
    assert run_module("vllm_release", absent, check=True)["changed"] and home.exists()
    assert run_module("vllm_release", absent)["changed"]
    assert list(home.parent.iterdir()) == []
    assert not run_module("vllm_release", absent)["changed"]


def test_check_mode_on_a_bare_host_needs_no_user_no_group_no_directory(run_module, args, tmp_path):
    bare = {**args, "owner": "no-such-user", "group": "no-such-group", "env": "/opt/none", "model": "/srv/none"}
    for state in ("staged", "active"):
        result = run_module("vllm_release", {**bare, "state": state}, check=True)
        assert result["changed"] and len(result["release"]) == 12 and result["diff"]
    assert not run_module("vllm_release", {**bare, "state": "absent"}, check=True)["changed"]
    assert not (tmp_path / "etc").exists()
    failed = run_module("vllm_release", bare)
    assert failed.failed and "no-such-user, which is no user of this host: create it first" in failed["msg"]


def test_files_are_what_vllm_and_systemd_read(run_module, args, home):
    release = run_module("vllm_release", args)["release"]
    directory = home / "releases" / release
    assert yaml.safe_load((directory / "config.yaml").read_text()) == {**args["settings"], "api-key": KEYS}
    assert (directory / "environment").read_text() == (
        f'LLMOPS_RELEASE="{release}"\nVLLM_HTTP_TIMEOUT_KEEP_ALIVE="75"\n'
    )
    assert (directory / "unit.conf").read_text() == args["unit"]
    assert str((directory / "env").readlink()) == args["env"]
    assert str((directory / "model").readlink()) == args["model"]
    for path in (home, home / "releases", directory):
        assert mode(path) == 0o750
    for name in ("config.yaml", "environment", "unit.conf", "release.json"):
        assert mode(directory / name) == 0o640
    document = json.loads((directory / "release.json").read_text())
    assert document["secrets"] == {"api-key": 2} and document["model_name"] == "tiny"


def test_secrets_are_in_config_yaml_and_nowhere_else(run_module, args, home):
    result = run_module("vllm_release", args)
    assert not any(key in json.dumps(result) for key in KEYS)
    config = next(part for part in result["diff"] if part["after_header"].startswith("r0 config.yaml"))
    assert 'api-key: ["VALUE_HIDDEN", "VALUE_HIDDEN"]' in config["after"]
    holders = [f.name for f in home.rglob("*") if f.is_file() and KEYS[0] in f.read_text()]
    assert holders == ["config.yaml"]


def test_another_key_is_another_release_and_shows_only_as_a_fingerprint(run_module, args):
    run_module("vllm_release", {**args, "state": "active"})
    result = run_module("vllm_release", {**args, "secrets": {"api-key": [KEYS[0], "third-key-0123456789abcdef01234"]}})
    assert result["pending"]
    assert [found["name"] for found in result["differences"]] == ["secrets-fingerprint"]


@pytest.mark.parametrize("replica", ["", "../x", "a/b", ".hidden", "x" * 40])
def test_a_name_that_is_no_file_name_is_refused(run_module, args, replica):
    result = run_module("vllm_release", {**args, "replica": replica})
    assert result.failed and "use a short name of letters" in result["msg"]


@pytest.mark.parametrize("gone", ["env", "model"])
def test_a_release_whose_parts_are_gone_is_not_activated(run_module, args, gone):
    run_module("vllm_release", args)
    pathlib.Path(args[gone]).rmdir()
    result = run_module("vllm_release", {**args, "state": "active"})
    assert result.failed and f"needs {gone} {args[gone]}, which is gone" in result["msg"]


def test_nothing_staged_and_an_unknown_release_are_told(run_module, args):
    bare = {name: args[name] for name in ("replica", "root", "owner", "group", "service")}
    assert "nothing is staged for replica r0" in run_module("vllm_release", {**bare, "state": "active"})["msg"]
    unknown = run_module("vllm_release", {**bare, "state": "active", "release": "abcdefabcdef"})
    assert "replica r0 has no release abcdefabcdef" in unknown["msg"]


def test_the_mark_of_a_release_that_answered_ends_with_the_next_switch(run_module, args, home):
    verified = {"replica": "r0", "root": args["root"], "state": "verified", "owner": ME, "group": MY_GROUP}
    refused = run_module("vllm_release", verified)
    assert refused.failed and "no release in force" in refused["msg"]

    first = run_module("vllm_release", {**args, "state": "active"})
    assert not first["verified"]
    assert run_module("vllm_release", verified, check=True)["changed"] and not (home / "verified").exists()
    assert run_module("vllm_release", verified)["changed"]
    assert not run_module("vllm_release", verified)["changed"]
    assert run_module("vllm_release", args)["verified"]

    other = run_module("vllm_release", {**changed_settings(args, port=8001), "state": "active"})
    assert not other["verified"]


def test_a_file_edited_by_hand_is_put_right(run_module, args, home):
    release = run_module("vllm_release", {**args, "state": "active"})["release"]
    config = home / "releases" / release / "config.yaml"
    good = config.read_text()
    config.write_text("port: 1\n")
    config.chmod(0o644)
    foreseen = run_module("vllm_release", args, check=True)
    assert foreseen["changed"] and config.read_text() == "port: 1\n"
    result = run_module("vllm_release", args)
    assert result["changed"] and result["repaired"] == ["config.yaml"] and result["restart_needed"]
    assert config.read_text() == good and mode(config) == 0o640
    assert not run_module("vllm_release", args)["changed"]


def test_going_back_in_the_inventory_unstages_the_candidate(run_module, args, home):
    run_module("vllm_release", {**args, "state": "active"})
    run_module("vllm_release", changed_settings(args, port=8001))
    result = run_module("vllm_release", args)
    assert result["changed"] and not result["pending"] and not (home / "staged").is_symlink()


def test_left_overs_of_a_killed_run_go_away(run_module, args, home):
    run_module("vllm_release", args)
    (home / "releases" / ".tmp-abc").mkdir()
    (home / "releases" / ".tmp-abc" / "config.yaml").write_text("x")
    (home / ".link-current").symlink_to("releases/x")
    broken = home / "releases" / "0123456789ab"
    broken.mkdir()
    run_module("vllm_release", args)
    assert not (home / "releases" / ".tmp-abc").exists() and not (home / ".link-current").is_symlink()


def test_the_running_release_tells_whether_a_restart_is_missing(run_module, args, monkeypatch):
    first = run_module("vllm_release", {**args, "state": "active"})["release"]
    monkeypatch.setattr(subject, "running_release", lambda unit: first if unit == "vllm@r0.service" else "")
    args.pop("service")
    second = {**changed_settings(args, port=8001), "state": "active"}
    assert run_module("vllm_release", second)["restart_needed"]
    again = run_module("vllm_release", second)  # the run before was killed before it restarted anything
    assert (again["changed"], again["restart_needed"], again["running"]) == (False, True, first)


def _stage(args, number, results):
    settings = {**args["settings"], "port": 8000 + number % 3}
    release = subject.release_from({**args, "settings": settings})
    home = subject.Home(args["root"], args["replica"], subject.Owner(args["owner"], args["group"]))
    try:
        for turn in range(6):
            if number == 5 and turn % 2:
                subject.apply(home, "absent", None)
            else:
                subject.apply(home, "active" if turn % 2 else "staged", release, keep=10)
        results.put("")
    except BaseException as problem:  # the parent shows it
        results.put(f"{type(problem).__name__}: {problem}")


@pytest.mark.parametrize("writers", [5, 6])
def test_runs_in_parallel_do_not_break_each_other(args, home, writers):
    results = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=_stage, args=(args, n, results)) for n in range(writers)]
    for process in processes:
        process.start()
    told = [results.get(timeout=60) for _turn in processes]
    for process in processes:
        process.join()
    assert told == [""] * writers
    assert not [name for name in tree(home) if ".tmp-" in name or ".link-" in name]
    for directory in (home / "releases").iterdir() if home.exists() else []:
        assert json.loads((directory / "release.json").read_text())["id"] == directory.name
    if writers == 5:
        assert (home / "current" / "config.yaml").exists()
