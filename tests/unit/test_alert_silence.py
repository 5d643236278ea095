"""The module alert_silence: made, again, prolonged, ended, in check mode before; the pair, the login, the refusals."""

from __future__ import annotations

import json
import pathlib
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import certificates
from tests.debian_programs import among_its_files, answers, program, serving
from tests.fakes.alertmanager import Alertmanager
from tests.fakes.web import Web
from tests.ports import free_port

MATCHERS = [{"name": "group", "value": "health"}, {"name": "replica", "value": "gpu1/r0|gpu1/r1", "regex": True}]
WORDS = 'group="health", replica=~"gpu1/r0|gpu1/r1"'
CLOSED = "http://127.0.0.1:9"

Run = Callable[..., Any]


@pytest.fixture
def service() -> Iterator[Web]:
    with Web(Alertmanager()) as web:
        yield web


@pytest.fixture
def real(tmp_path: pathlib.Path) -> Iterator[str]:
    """The address of a real Alertmanager."""
    port = free_port()
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    command = [str(program("prometheus-alertmanager", "prometheus-alertmanager")), f"--config.file={tmp_path}/am.yml"]
    command += [f"--storage.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]
    command = [*among_its_files("prometheus-alertmanager"), *command, "--cluster.listen-address="]
    url = f"http://127.0.0.1:{port}"
    with serving(command, lambda: answers(f"{url}/-/ready"), tmp_path / "log", 30):
        yield url


def silences(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/silences", timeout=5) as answer:
        return [one for one in json.load(answer) if one["status"]["state"] != "expired"]


def story(run_module: Run, url: str) -> None:
    """Create, again, change, again, remove, again; each in check mode before."""

    def run(check: bool = False, **args: Any) -> Any:
        wish = {"urls": [url], "matchers": MATCHERS, "creator": "a test", "duration": 3600, **args}
        found = run_module("alert_silence", wish, check=check)
        assert not found.failed, found
        return found

    foreseen = run(check=True)
    assert (foreseen["changed"], foreseen["ids"], silences(url)) == (True, [], [])
    made = run(comment="why")
    there = silences(url)
    assert made["changed"] and made["diff"]["before"] == "" and made["diff"]["after"].startswith(f"{WORDS} until ")
    assert [one["id"] for one in there] == made["ids"]
    assert (there[0]["createdBy"], there[0]["comment"]) == ("a test", "why")
    again = run()
    assert (again["changed"], again["ids"], silences(url)) == (False, made["ids"], there)

    assert run(check=True, duration=7200)["changed"] and silences(url) == there
    longer = run(duration=7200)
    assert (longer["changed"], longer["ids"]) == (True, made["ids"])
    assert [one["id"] for one in silences(url)] == made["ids"] and silences(url)[0]["endsAt"] > there[0]["endsAt"]
    assert not run(duration=7200)["changed"]

    other = run(creator="another")
    assert other["changed"] and other["ids"] != made["ids"]
    assert run(check=True, state="absent")["changed"] and len(silences(url)) == 2
    ended = run(state="absent")
    assert (ended["changed"], ended["ids"], ended["diff"]["after"]) == (True, made["ids"], "")
    assert [one["id"] for one in silences(url)] == other["ids"]
    assert not run(state="absent")["changed"]
    # what ended does not come back as the same one
    anew = run()
    assert anew["changed"] and anew["ids"] != made["ids"]


def test_a_silence_is_made_prolonged_and_ended(run_module: Run, service: Web) -> None:
    story(run_module, service.url)


def test_a_real_alertmanager_takes_it_the_same(run_module: Run, real: str) -> None:
    story(run_module, real)


def test_matchers_that_must_not_match_and_their_order(run_module: Run, real: str) -> None:
    unlike = [{"name": "pool", "value": "a", "equal": False}, {"name": "zone", "value": "x.*", "regex": True}]
    unlike.append({"name": "group", "value": "b|c", "regex": True, "equal": False})
    made = run_module("alert_silence", {"urls": [real], "matchers": unlike})
    assert 'pool!="a", zone=~"x.*", group!~"b|c"' in made["diff"]["after"]
    again = run_module("alert_silence", {"urls": [real], "matchers": unlike[::-1]})
    assert (again["changed"], again["ids"]) == (False, made["ids"])


def test_one_alertmanager_of_a_pair_is_enough(run_module: Run, service: Web) -> None:
    found = run_module("alert_silence", {"urls": [CLOSED, service.url], "matchers": MATCHERS})
    assert (found["changed"], found["url"], found["reached"]) == (True, service.url, True)


@pytest.mark.parametrize("state", ["present", "absent"])
def test_without_an_answer_it_fails_or_warns(run_module: Run, service: Web, state: str) -> None:
    service.down = True
    args = {"urls": [CLOSED, service.url], "matchers": MATCHERS, "state": state}
    failed = run_module("alert_silence", args)
    assert failed.failed
    assert f"GET {CLOSED}/api/v2/silences: " in failed["msg"] and "Connection refused" in failed["msg"]
    assert f"GET {service.url}/api/v2/silences: HTTP 503: down" in failed["msg"]
    warned = run_module("alert_silence", {**args, "required": False})
    assert not warned.failed and not warned["changed"] and warned["reached"] is False


def test_login(run_module: Run) -> None:
    with Web(Alertmanager(), login=("ops", "correct horse")) as service:
        args = {"urls": [service.url], "matchers": MATCHERS, "username": "ops"}
        wrong = run_module("alert_silence", {**args, "password": "battery staple"})
        assert wrong.failed and "HTTP 401" in wrong["msg"] and "battery" not in str(wrong)
        assert run_module("alert_silence", {**args, "password": "correct horse"})["changed"]


def test_only_a_certificate_of_the_authority_is_believed(run_module: Run, tmp_path: pathlib.Path) -> None:
    for stem in ("mine", "other"):
        certificates.write(tmp_path, stem, name="localhost", days=90)
    with Web(Alertmanager(), certificate=tmp_path / "mine.crt") as service:
        args = {"urls": [service.url], "matchers": MATCHERS}
        for wrong in ({}, {"ca_path": str(tmp_path / "other.crt")}):
            refused = run_module("alert_silence", {**args, **wrong})
            assert refused.failed and "CERTIFICATE_VERIFY_FAILED" in refused["msg"]
        assert run_module("alert_silence", {**args, "ca_path": str(tmp_path / "mine.crt")})["changed"]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"matchers": []}, "matchers is empty: a silence of everything is refused"),
        ({"creator": " "}, "creator is empty"),
        ({"duration": 0}, "duration is 0: seconds above 0"),
        ({"urls": []}, "urls is empty"),
        ({"urls": ["192.0.2.31:9093"]}, "'192.0.2.31:9093' is no address: give one such as https://"),
        ({"urls": ["http://me:secret@192.0.2.31"]}, "http://192.0.2.31 holds a login: give it as username"),
        ({"urls": ["https://192.0.2.31"], "ca_path": "/no/such.crt"}, "ca_path /no/such.crt: "),
        ({"matchers": [{"name": "a", "value": ""}]}, "HTTP 400: silence invalid: at least one matcher"),
    ],
)
def test_what_cannot_be_meant_is_refused(run_module: Run, service: Web, args: dict[str, Any], expected: str) -> None:
    found = run_module("alert_silence", {"urls": [service.url], "matchers": MATCHERS, **args})
    assert found.failed and expected in found["msg"] and "secret" not in found["msg"]


@pytest.mark.parametrize("answer", [b"<html>", b"", {"status": "success"}, [1], [{"id": "x"}]])
def test_a_service_that_is_no_alertmanager(run_module: Run, answer: Any) -> None:
    with Web(lambda method, path, sent: (200, answer)) as service:
        found = run_module("alert_silence", {"urls": [service.url], "matchers": MATCHERS})
    assert found.failed and f"GET {service.url}/api/v2/silences: answered no " in found["msg"]
