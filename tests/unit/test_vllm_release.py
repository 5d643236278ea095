"""Releases of a replica on its host: staged, switched, repaired, removed, by several runs at once."""

from __future__ import annotations

import json
import multiprocessing
import pathlib
import stat

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils._release.home import Home, Owner
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import release_from
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import release as subject

from tests import exposition


@pytest.fixture
def args(release_args):
    return release_args


@pytest.fixture
def keys(args):
    return args["secrets"]["api-key"]


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
    assert switched["switched"] and not staged["switched"]
    assert str((home / "current").readlink()) == f"releases/{staged['release']}"
    assert not (home / "staged").is_symlink()
    once_more = run_module("vllm_release", active)
    assert not once_more["changed"] and not once_more["switched"]
    again = run_module("vllm_release", args)
    assert (again["changed"], again["pending"], again["staged"]) == (False, False, "")

    second = changed_settings(args, **{"max-model-len": 2048})
    staged2 = run_module("vllm_release", second)
    assert staged2["pending"] and staged2["current"] == staged["release"] != staged2["release"]
    assert staged2["differences"] == [{"name": "max-model-len", "before": "1024", "after": "2048"}]
    only_state = {name: args[name] for name in ("replica", "root", "owner", "group", "service")}
    switched2 = run_module("vllm_release", {**only_state, "state": "active"})
    assert switched2["restart_needed"] and switched2["switched"] and switched2["current"] == staged2["release"]
    assert switched2["previous"] == staged["release"] == (home / "previous").readlink().name

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


def test_files_are_what_vllm_and_systemd_read(run_module, args, home, keys):
    release = run_module("vllm_release", args)["release"]
    directory = home / "releases" / release
    assert yaml.safe_load((directory / "config.yaml").read_text()) == {**args["settings"], "api-key": keys}
    assert (directory / "environment").read_text() == (
        f'LLMOPS_RELEASE="{release}"\nVLLM_HTTP_TIMEOUT_KEEP_ALIVE="75"\n'
    )
    assert (directory / "unit.conf").read_text() == args["unit"]
    assert str((directory / "env").readlink()) == args["env"]
    assert str((directory / "model").readlink()) == args["model"]
    for path in (home, home / "releases", directory):
        assert mode(path) == 0o750
    for name in ("config.yaml", "environment", "unit.conf", "release.json", "release.prom"):
        assert mode(directory / name) == 0o640
    document = json.loads((directory / "release.json").read_text())
    assert document["secrets"] == {"api-key": 2} and document["model_name"] == "tiny"


def test_what_it_serves_is_told_as_a_metric(run_module, args, home):
    args = {**args, "model_name": "tiny", "model_revision": "abc123", "version": "0.32.0"}
    release = run_module("vllm_release", args)["release"]
    labels = {"release": release, "model": "tiny", "model_version": "abc123", "vllm_version": "0.32.0", "name": "r0"}
    assert exposition.samples((home / "releases" / release / "release.prom").read_text()) == {
        "llmops_release_info": {frozenset(labels.items()): 1}
    }


def test_secrets_are_in_config_yaml_and_nowhere_else(run_module, args, home, keys):
    result = run_module("vllm_release", args)
    assert not any(key in json.dumps(result) for key in keys)
    config = next(part for part in result["diff"] if part["after_header"].startswith("r0 config.yaml"))
    assert 'api-key: ["VALUE_HIDDEN", "VALUE_HIDDEN"]' in config["after"]
    holders = [f.name for f in home.rglob("*") if f.is_file() and keys[0] in f.read_text()]
    assert holders == ["config.yaml"]


def test_secrets_of_the_environment_show_only_that_they_changed(run_module, args, home):
    told = []
    for value in ("sesame-one", "sesame-two"):
        environment = {"AWS_SECRET_ACCESS_KEY": value, "OTEL_EXPORTER_OTLP_HEADERS": value, "VLLM_X": "shown"}
        told.append(run_module("vllm_release", {**args, "environment": environment, "state": "active"}))
    changed = {row["name"]: (row["before"], row["after"]) for row in told[1]["differences"]}
    assert set(changed) == {"AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS"}
    assert all(before != after for before, after in changed.values())
    assert "sesame" not in json.dumps(told) and "shown" in json.dumps(told)
    assert "sesame-two" in (home / "current" / "environment").read_text()


def test_another_key_is_another_release_and_shows_only_as_a_fingerprint(run_module, args, keys):
    run_module("vllm_release", {**args, "state": "active"})
    result = run_module("vllm_release", {**args, "secrets": {"api-key": [keys[0], "third-key-0123456789abcdef01234"]}})
    assert result["pending"]
    assert [found["name"] for found in result["differences"]] == ["secrets-fingerprint"]


@pytest.mark.parametrize("replica", ["", "../x", "a/b", ".hidden", "x" * 40])
def test_a_name_that_is_no_file_name_is_refused(run_module, args, replica):
    result = run_module("vllm_release", {**args, "replica": replica})
    assert result.failed and "use a short name of letters" in result["msg"]


def by_name(args, name):
    return {key: args[key] for key in ("replica", "root", "owner", "group", "service")} | {
        "state": "active",
        "release": name,
    }


def links(home):
    return {name: (home / name).readlink().name for name in ("current", "previous", "staged") if (home / name).exists()}


@pytest.fixture
def pair(run_module, args):
    """Two releases that have been in force, one after the other."""
    new = changed_settings(args, port=8001)
    return [run_module("vllm_release", {**wish, "state": "active"})["release"] for wish in (args, new)]


@pytest.mark.parametrize("by", ["previous", "id"])
def test_who_goes_back_by_name_leaves_something_pending(run_module, args, home, pair, by):
    old, new = pair
    wish = by_name(args, old if by == "id" else "previous")
    foreseen = run_module("vllm_release", wish, check=True)
    assert foreseen["switched"] and links(home) == {"current": new, "previous": old}
    back = run_module("vllm_release", wish)
    assert back["switched"] and back["restart_needed"] and back["pending"]
    assert links(home) == {"current": old, "previous": new, "staged": new}
    assert [change["name"] for change in back["differences"]] == ["port"]
    again = run_module("vllm_release", changed_settings(args, port=8001))
    assert not again["changed"] and again["pending"], "a run of the site finds it staged"


def test_going_back_by_id_twice_changes_nothing_the_second_time(run_module, args, home, pair):
    run_module("vllm_release", by_name(args, pair[0]))
    assert not run_module("vllm_release", by_name(args, pair[0]))["changed"]
    assert links(home)["staged"] == pair[1]


@pytest.mark.parametrize("by", ["staged", "id"])
def test_going_on_by_name_leaves_nothing_pending(run_module, args, home, pair, by):
    third = run_module("vllm_release", changed_settings(args, port=8002))["release"]
    moved = run_module("vllm_release", by_name(args, third if by == "id" else "staged"))
    assert moved["switched"] and not moved["pending"]
    assert links(home) == {"current": third, "previous": pair[1]}


def test_a_release_that_fails_does_not_make_the_one_before_forget_its_own_way_back(run_module, args, home):
    """A and B were proven; C fails, and goes back to B. Who takes B back later means A, and not C."""

    def release(**wish):
        return run_module("vllm_release", {**args, "settings": None, **wish})

    def proven(port):
        assert run_module("vllm_release", {**changed_settings(args, port=port), "state": "active"})["changed"]
        return release(state="verified")

    first, second = proven(8001), proven(8002)
    assert second["previous"] == first["current"] == (home / "previous").readlink().name
    third = run_module("vllm_release", {**changed_settings(args, port=8003), "state": "active"})
    assert third["previous"] == second["current"], "what was proven last, while this one is not"
    assert release(state="active", release="previous")["current"] == second["current"]
    back = release(state="verified")
    assert (back["current"], back["previous"]) == (second["current"], first["current"])
    assert release(state="active", release="previous")["current"] == first["current"]
    assert release(state="verified")["previous"] == second["current"]


def test_a_release_of_before_it_had_a_metric_can_be_gone_back_to(run_module, args, home, pair):
    (home / "releases" / pair[0] / "release.prom").unlink()
    back = run_module("vllm_release", {**args, "settings": None, "state": "active", "release": "previous"})
    assert back["switched"] and back["current"] == pair[0]


@pytest.mark.parametrize("wish", [{"release": "previous"}, {"release": "current"}, {}])
@pytest.mark.parametrize("lost", ["env", "model", "config.yaml", "environment", "unit.conf", "release.json", "."])
def test_a_release_that_could_not_run_is_refused_before_anything_changes(run_module, args, home, pair, wish, lost):
    release = pair[0] if wish.get("release") == "previous" else pair[1]
    directory = home / "releases" / release
    before = links(home)
    if lost in ("env", "model"):
        pathlib.Path(args[lost]).rmdir()
        words = f"needs {lost} {args[lost]}, which is gone"
    elif lost == ".":
        directory.rename(directory.with_name("elsewhere"))
        words = f"is gone from {home}/releases"
    else:
        (directory / lost).unlink()
        words = f"is gone from {home}/releases" if lost == "release.json" else f"lacks {lost}"
    for check in (True, False):
        result = run_module("vllm_release", by_name(args, wish.get("release", "")), check=check)
        assert result.failed
        assert result["msg"] == f"release {release} of replica r0 {words}: stage it first"
        assert {name: (home / name).readlink().name for name in before} == before


@pytest.mark.parametrize("gone", ["env", "model"])
def test_a_release_that_is_described_is_refused_as_well(run_module, args, home, gone):
    pathlib.Path(args[gone]).rmdir()
    result = run_module("vllm_release", {**args, "state": "active"})
    assert result.failed and f"needs {gone} {args[gone]}, which is gone" in result["msg"]
    assert tree(home) == [".lock", "releases"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "nothing is staged for replica r0"),
        ("abcdefabcdef", "release abcdefabcdef of replica r0 is gone from "),
        ("previous", "replica r0 has no previous release"),
        ("staged", "replica r0 has no staged release"),
        ("../../x", "release is '../../x': give an id of 12 hexadecimal digits, or current or previous or staged"),
    ],
)
def test_a_name_that_means_no_release_is_told(run_module, args, home, name, words):
    assert words in run_module("vllm_release", by_name(args, name))["msg"]
    assert not home.exists()


def test_the_mark_of_a_release_that_answered_ends_with_the_next_switch(run_module, args, home):
    verified = {
        "replica": "r0",
        "root": args["root"],
        "state": "verified",
        "owner": args["owner"],
        "group": args["group"],
    }
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
    (home / ".tmp-current").symlink_to("releases/x")
    broken = home / "releases" / "0123456789ab"
    broken.mkdir()
    run_module("vllm_release", args)
    assert not (home / "releases" / ".tmp-abc").exists() and not (home / ".tmp-current").is_symlink()


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
    release = release_from({**args, "settings": settings})
    home = Home(args["root"], args["replica"], Owner(args["owner"], args["group"]))
    try:
        for turn in range(6):
            if number == 5 and turn % 2:
                subject.apply(home, subject.Wish("absent"))
            else:
                subject.apply(home, subject.Wish("active" if turn % 2 else "staged", release))
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
    assert not [name for name in tree(home) if ".tmp-" in name]
    for directory in (home / "releases").iterdir() if home.exists() else []:
        assert json.loads((directory / "release.json").read_text())["id"] == directory.name
    if writers == 5:
        assert (home / "current" / "config.yaml").exists()
