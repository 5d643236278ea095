"""The helper that writes NGINX's upstream groups as root: what it refuses, what it writes, how it goes back."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._agent import nginx_apply
from ansible_collections.llmops.vllm.plugins.module_utils._agent.model import Peer, View
from ansible_collections.llmops.vllm.plugins.module_utils._agent.nginx_apply import ApplyError, Commands

A = Peer("gpu1/r0", "default", "192.0.2.21", 8000, "up")
B = Peer("gpu2/r0", "default", "2001:db8::22", 8000, "drain", 0.5, 12.5)
C = Peer("gpu3/r0", "big.Pool", "192.0.2.23", 8001, "down")
VIEW = View((A, B, C))
OK = Commands(("true",), ("true",))


def text(**changes: Any) -> bytes:
    """Return the text of a view of one peer with these values, with the digest that belongs to it."""
    return View((dataclasses.replace(A, **changes),)).text().encode()


def test_a_view_becomes_lines_of_nginx() -> None:
    assert nginx_apply.render(nginx_apply.validate(VIEW.text().encode())) == {
        "view.map": f'"" "{VIEW.id}";\n',
        "llm_default.conf": "server 192.0.2.21:8000 max_fails=0 weight=10;\n"
        "server [2001:db8::22]:8000 max_fails=0 weight=5 down;\n",
        # none of the pool is up
        "llm_big.Pool.conf": "server 192.0.2.23:8001 max_fails=0 weight=10;\n",
    }


def test_a_drained_replica_stays_out_when_none_is_up() -> None:
    view = View((dataclasses.replace(A, state="drain"), dataclasses.replace(B, state="down")))
    lines = nginx_apply.render(view)["llm_default.conf"].splitlines()
    assert [line.endswith(" down;") for line in lines] == [True, False]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"address": "192.0.2.21:80; } include /etc/shadow; #"}, "address"),
        ({"address": "localhost"}, "address"),
        ({"address": "unix:/run/x"}, "address"),
        ({"address": "fe80::1%eth0;"}, "address"),
        ({"address": "192.0.2.21\n"}, "address"),
        ({"address": 3221225985}, "address"),
        ({"port": 0}, "port"),
        ({"port": "80"}, "port"),
        ({"port": True}, "port"),
        ({"port": 80.0}, "port"),
        ({"pool": "../../x"}, "pool"),
        ({"pool": "a;b"}, "pool"),
        ({"pool": "a\n"}, "pool"),
        ({"pool": ["a"]}, "pool"),
        ({"id": "a\nb"}, "id"),
        ({"id": {}}, "id"),
        ({"state": "up; }"}, "state"),
        ({"weight": 0}, "weight"),
        ({"weight": 1e9}, "weight"),
        ({"weight": "1; }"}, "weight"),
        ({"weight": float("nan")}, "weight"),
    ],
)
def test_a_value_without_its_narrow_form_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ApplyError, match=f"^peer 1 has no valid {reason}$"):
        nginx_apply.validate(text(**changes))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (b"", "is no view"),
        (b"\xff", "is no view"),
        (b"[]", "is no view of this version"),
        (b"[" * 100000, "is no view"),
        (b"{}", "is no view of this version"),
        (VIEW.text().replace('"version": 1', '"version": 2').encode(), "is no view of this version"),
        (VIEW.text().replace('"peers"', '"more": 1, "peers"').encode(), "is no view of this version"),
        (VIEW.text().replace('"port"', '"more": 1, "port"').encode(), "is no view of this version"),
        (json.dumps({**json.loads(VIEW.text()), "peers": 7}).encode(), "is no view"),
        (json.dumps({**json.loads(VIEW.text()), "peers": [7]}).encode(), "is no view of this version"),
        (VIEW.text().replace(VIEW.id, "../../../etc").encode(), "its id is not its digest"),
        (View((A, A)).text().encode(), "peer 2 has no valid id, which an earlier one has"),
        (View((A, dataclasses.replace(B, pool="Default"))).text().encode(), "two pools have one name to NGINX"),
    ],
)
def test_what_is_no_view_is_refused(found: bytes, reason: str) -> None:
    with pytest.raises(ApplyError, match=f"^{reason}"):
        nginx_apply.validate(found)


def test_only_a_plain_file_is_read(tmp_path: pathlib.Path) -> None:
    secret, link, pipe = (tmp_path / name for name in ("secret", "link", "pipe"))
    secret.write_text(VIEW.text())
    link.symlink_to(secret)
    os.mkfifo(pipe)
    for path in (link, pipe, tmp_path, tmp_path / "none"):
        with pytest.raises(ApplyError, match=str(path)):
            nginx_apply.read(path)
    assert nginx_apply.read(secret) == VIEW


def current(place: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (place / "current").iterdir()}


def test_a_refused_view_leaves_the_former_one(tmp_path: pathlib.Path) -> None:
    source, place = tmp_path / "view.json", tmp_path / "place"
    place.mkdir()
    source.write_text(VIEW.text())
    assert nginx_apply.apply(source, place, OK) == [VIEW.id]
    assert current(place) == nginx_apply.render(VIEW)
    other = View((A,))
    source.write_text(other.text())
    refusing = Commands(
        ("sh", "-c", f"grep -q {other.id} {place}/current/view.map && echo no good >&2; exit 1"), OK.reload
    )
    with pytest.raises(ApplyError, match="status 1: no good"):
        nginx_apply.apply(source, place, refusing)
    assert current(place) == nginx_apply.render(VIEW)
    assert nginx_apply.apply(source, place, OK) == [other.id]
    assert current(place) == nginx_apply.render(other)


def test_a_refused_first_view_leaves_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "view.json").write_text(VIEW.text())
    with pytest.raises(ApplyError):
        nginx_apply.apply(tmp_path / "view.json", tmp_path, Commands(("false",), OK.reload))
    assert not (tmp_path / "current").is_symlink()


def test_a_failed_reload_is_told_and_made_up_for(tmp_path: pathlib.Path) -> None:
    (tmp_path / "view.json").write_text(VIEW.text())
    with pytest.raises(ApplyError, match="^false: status 1"):
        nginx_apply.apply(tmp_path / "view.json", tmp_path, Commands(OK.check, ("false",)))
    mark = tmp_path / "reloaded"
    nginx_apply.apply(tmp_path / "view.json", tmp_path, Commands(OK.check, ("touch", str(mark))))
    assert mark.exists()


def test_a_view_that_comes_meanwhile_is_not_missed(tmp_path: pathlib.Path) -> None:
    source, next_one, place = tmp_path / "view.json", tmp_path / "next", tmp_path / "place"
    place.mkdir()
    source.write_text(VIEW.text())
    next_one.write_text(View((A,)).text())
    arriving = Commands(OK.check, ("sh", "-c", f"test ! -e {next_one} || mv {next_one} {source}"))
    assert nginx_apply.apply(source, place, arriving) == [VIEW.id, View((A,)).id]


def test_files_of_older_views_are_removed(tmp_path: pathlib.Path) -> None:
    source, place = tmp_path / "view.json", tmp_path / "place"
    place.mkdir()
    views = [View((dataclasses.replace(A, port=port),)) for port in (1, 2, 3)]
    for view in views:
        source.write_text(view.text())
        nginx_apply.apply(source, place, OK)
    assert {path.name for path in place.iterdir()} == {"lock", "current", views[1].id, views[2].id}


def test_the_command_says_why_on_standard_error(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "view.json"
    source.write_text("{")
    assert nginx_apply.main([str(source), str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{source}: is no view; NGINX keeps its former view\n"
    assert nginx_apply.main([str(source), str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err
