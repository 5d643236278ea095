"""The log exporter's program in a real mtail: what lines of the balancer's logs become."""

from __future__ import annotations

import pathlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests import debian_programs, exporters_role, log_exporter
from tests.fakes.vllm.running import await_that
from tests.log_exporter import FORMS, NAMES, Exporter, broken, line, tries
from tests.repo import documented_commands

SAMPLES = pathlib.Path(__file__).resolve().parent / "log_exporter"
A, B = "192.0.2.21:8000", "[2001:db8::22]:8000"
ANSWERED = (A, "200", "0.001", "0.050")


@pytest.fixture(params=FORMS)
def exporter(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Exporter]:
    with Exporter(tmp_path, request.param, tmp_path / "access.log", tmp_path / "error.log") as exporter:
        yield exporter


@pytest.fixture
def lua(tmp_path: pathlib.Path) -> Iterator[Exporter]:
    with Exporter(tmp_path, "lua", tmp_path / "access.log", tmp_path / "error.log") as exporter:
        yield exporter


@pytest.fixture
def native(tmp_path: pathlib.Path) -> Iterator[Exporter]:
    with Exporter(tmp_path, "native", tmp_path / "access.log", tmp_path / "error.log") as exporter:
        yield exporter


def counters(exporter: Exporter) -> dict[str, float]:
    """Values without zeros, without our common start and end of names, without histograms but their counts."""
    return {
        re.sub(r"^llmops_balancer_|_total(?={)", "", name): value
        for name, value in exporter.values().items()
        if value and not re.search(r"_(sum|bucket){", name)
    }


# Written by NGINX 1.22 with the role's configuration and two replicas behind it, in 26 situations.
WRITTEN = {
    "lua": {
        'broken_streams{pool="default"}': 4,
        'client_aborts{pool="default"}': 2,
        'client_requests{client="c",pool="default"}': 22,
        'client_requests{client="none",pool="none"}': 3,
        'client_requests{client="o",pool="other"}': 1,
        'first_byte_seconds_count{endpoint="127.0.0.1:8001",pool="default"}': 11,
        'first_byte_seconds_count{endpoint="127.0.0.1:8002",pool="default"}': 4,
        'request_seconds_count{pool="default"}': 22,
        'request_seconds_count{pool="none"}': 3,
        'request_seconds_count{pool="other"}': 1,
        'requests{pool="default",status="200"}': 14,
        'requests{pool="default",status="404"}': 2,
        'requests{pool="default",status="405"}': 1,
        'requests{pool="default",status="499"}': 1,
        'requests{pool="default",status="500"}': 1,
        'requests{pool="default",status="502"}': 1,
        'requests{pool="default",status="503"}': 1,
        'requests{pool="default",status="9"}': 1,
        'requests{pool="none",status="400"}': 1,
        'requests{pool="none",status="401"}': 1,
        'requests{pool="none",status="404"}': 1,
        'requests{pool="other",status="503"}': 1,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="200"}': 11,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="500"}': 1,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="502"}': 1,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="200"}': 4,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="500"}': 2,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="502"}': 1,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="503"}': 1,
        'retries{pool="default"}': 3,
        'sent_bytes{pool="default"}': 4730,
        'sent_bytes{pool="none"}': 1029,
        'sent_bytes{pool="other"}': 372,
    },
    "native": {
        'broken_streams{pool="default"}': 4,
        'client_aborts{pool="default"}': 2,
        'client_requests{client="c",pool="default"}': 22,
        'client_requests{client="none",pool="none"}': 3,
        'client_requests{client="o",pool="other"}': 1,
        'first_byte_seconds_count{endpoint="127.0.0.1:8001",pool="default"}': 5,
        'first_byte_seconds_count{endpoint="127.0.0.1:8002",pool="default"}': 10,
        'request_seconds_count{pool="default"}': 22,
        'request_seconds_count{pool="none"}': 3,
        'request_seconds_count{pool="other"}': 1,
        'requests{pool="default",status="200"}': 14,
        'requests{pool="default",status="404"}': 2,
        'requests{pool="default",status="405"}': 1,
        'requests{pool="default",status="499"}': 1,
        'requests{pool="default",status="500"}': 1,
        'requests{pool="default",status="502"}': 1,
        'requests{pool="default",status="503"}': 1,
        'requests{pool="default",status="9"}': 1,
        'requests{pool="none",status="400"}': 1,
        'requests{pool="none",status="401"}': 1,
        'requests{pool="none",status="404"}': 1,
        'requests{pool="other",status="502"}': 1,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="200"}': 5,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="500"}': 3,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="502"}': 3,
        'responses{endpoint="127.0.0.1:8001",pool="default",status="503"}': 1,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="200"}': 10,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="500"}': 1,
        'responses{endpoint="127.0.0.1:8002",pool="default",status="502"}': 1,
        'retries{pool="default"}': 6,
        'sent_bytes{pool="default"}': 4644,
        'sent_bytes{pool="none"}': 1029,
        'sent_bytes{pool="other"}': 347,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_logs_of_a_real_nginx(form: str, tmp_path: pathlib.Path) -> None:
    with Exporter(tmp_path, form, tmp_path / "access.log", tmp_path / "error.log") as exporter:
        exporter.feed(exporter.access, *(SAMPLES / f"{form}-access.log").read_text().splitlines())
        errors = (SAMPLES / f"{form}-error.log").read_text().splitlines()
        if form == "native":
            exporter.feed(exporter.errors, *errors)
        assert counters(exporter) == WRITTEN[form]


def test_a_request_is_counted_in_each_metric_of_the_contract(exporter: Exporter) -> None:
    exporter.feed(exporter.access, line(**tries(ANSWERED), llm_end="eof"))
    found = {re.sub(r"(_count|_sum|_bucket)?{.*", "", name) for name in exporter.values()}
    assert found == NAMES
    assert counters(exporter) == {
        'client_requests{client="front",pool="chat"}': 1,
        f'first_byte_seconds_count{{endpoint="{A}",pool="chat"}}': 1,
        'request_seconds_count{pool="chat"}': 1,
        'requests{pool="chat",status="200"}': 1,
        f'responses{{endpoint="{A}",pool="chat",status="200"}}': 1,
        'sent_bytes{pool="chat"}': 180,
    }


@pytest.mark.parametrize(
    ("values", "client", "pool"),
    [
        ({"llm_pool": ""}, "front", "none"),  # its header named no pool
        ({"llm_client": ""}, "none", "none"),  # 401: the log names the pool that it would have got
        ({"llm_client": "", "llm_pool": ""}, "none", "none"),
        ({"llm_pool": "big.Pool_2"}, "front", "big.Pool_2"),
    ],
)
def test_pool_of_a_request(exporter: Exporter, values: dict[str, str], client: str, pool: str) -> None:
    exporter.feed(exporter.access, line(**values))
    assert [name for name in counters(exporter) if name.startswith("client")] == [
        f'client_requests{{client="{client}",pool="{pool}"}}'
    ]


def test_each_try_counts_where_it_was_made(exporter: Exporter) -> None:
    first, second = (A, "502", "-", "-"), (B, "200", "0.001", "2.500")
    exporter.feed(exporter.access, line(**tries(first, second), llm_end="done"))
    values = exporter.values()
    assert values['llmops_balancer_retries_total{pool="chat"}'] == 1
    assert values[f'llmops_balancer_responses_total{{endpoint="{A}",pool="chat",status="502"}}'] == 1
    assert values[f'llmops_balancer_responses_total{{endpoint="{B}",pool="chat",status="200"}}'] == 1
    assert values[f'llmops_balancer_first_byte_seconds_sum{{endpoint="{B}",pool="chat"}}'] == 2.5
    assert not [name for name in values if A in name and "first_byte" in name]
    assert values['llmops_balancer_client_requests_total{client="front",pool="chat"}'] == 1


def test_tries_of_two_upstreams_are_told_apart(exporter: Exporter) -> None:
    values = tries((A, "500", "0.001", "0.002"), (B, "200", "0.001", "0.002"))
    exporter.feed(exporter.access, line(**{name: text.replace(", ", " : ") for name, text in values.items()}))
    assert {name: value for name, value in counters(exporter).items() if name.startswith(("resp", "retr"))} == {
        f'responses{{endpoint="{A}",pool="chat",status="500"}}': 1,
        f'responses{{endpoint="{B}",pool="chat",status="200"}}': 1,
        'retries{pool="chat"}': 1,
    }


def test_eight_tries_are_told_apart(exporter: Exporter) -> None:
    each = [(f"192.0.2.{number}:8000", "500", "0.001", "0.002") for number in range(8)]
    exporter.feed(exporter.access, line(**tries(*each)))
    found = counters(exporter)
    assert found['retries{pool="chat"}'] == 7
    assert len([name for name in found if name.startswith("responses")]) == 8


def test_nobody_left_is_no_try(exporter: Exporter) -> None:
    """Native: the group's name. Lua: the last address once more, without a connection."""
    exporter.feed(
        exporter.access,
        line(**tries((A, "502", "0.001", "-"), ("llm_chat", "502", "-", "-")), llm_status=502),
        line(**tries((A, "502", "0.001", "-"), (A, "502", "-", "-")), llm_status=502),
        line(**tries(("llm_chat", "502", "-", "-")), llm_status=502),
    )
    found = counters(exporter)
    assert found[f'responses{{endpoint="{A}",pool="chat",status="502"}}'] == 2
    assert [name for name in found if "llm_chat" in name or name.startswith("retries")] == []


def test_the_client_left(exporter: Exporter) -> None:
    before = line(**tries((A, "-", "0.001", "-")), llm_status=499, request_completion="", bytes_sent=0)
    exporter.feed(exporter.access, before, line(**tries(ANSWERED), request_completion=""))
    found = counters(exporter)
    assert found['client_aborts{pool="chat"}'] == 2
    assert 'broken_streams{pool="chat"}' not in found
    assert [name for name in found if name.startswith("responses")] == [
        f'responses{{endpoint="{A}",pool="chat",status="200"}}'
    ]


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"llm_end": "", **tries(ANSWERED)}, 1),
        ({"llm_end": "error", **tries(ANSWERED)}, 1),
        ({"llm_end": "", **tries((A, "500", "0.001", "0.001"), (B, "200", "0.001", "0.002"))}, 1),
        ({"llm_end": "eof", **tries(ANSWERED)}, 0),
        ({"llm_end": "done", **tries(ANSWERED)}, 0),
        ({"llm_end": "", **tries(ANSWERED), "request_completion": ""}, 0),  # the client left
        ({"llm_end": "", "llm_status": 404}, 0),  # an answer of the balancer's own
        ({"llm_end": "", **tries((A, "502", "-", "-")), "llm_status": 502}, 0),  # nothing had begun
    ],
)
def test_answer_without_its_end_is_broken_in_the_lua_form(lua: Exporter, values: dict[str, str], count: int) -> None:
    """The runbook of the alert looks for the same lines."""
    lua.feed(lua.access, line(**values))
    assert counters(lua).get('broken_streams{pool="chat"}', 0) == count
    command = documented_commands.BROKEN.replace("/var/log/nginx/llm_access.log", shlex.quote(str(lua.access)))
    found = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True)
    assert len(found.stdout.splitlines()) == count


@pytest.mark.parametrize(
    ("reason", "count"),
    [
        ("upstream prematurely closed connection while reading upstream", 1),
        ("upstream prematurely closed connection while sending to client", 1),
        ("upstream timed out (110: Connection timed out) while reading upstream", 1),
        ("recv() failed (104: Connection reset by peer) while reading upstream", 1),
        ("readv() failed (104: Connection reset by peer) while reading upstream", 1),
        ("upstream sent invalid chunked response while reading upstream", 1),
        ("upstream prematurely closed connection while reading response header from upstream", 0),
        ("connect() failed (111: Connection refused) while connecting to upstream", 0),
        ("no live upstreams while connecting to upstream", 0),
    ],
)
def test_error_log_tells_broken_streams_in_the_native_form(native: Exporter, reason: str, count: int) -> None:
    native.feed(native.access, line(**tries(ANSWERED)))
    native.feed(native.errors, broken(A, reason))
    assert counters(native).get('broken_streams{pool="chat"}', 0) == count


def test_stream_that_breaks_before_its_replica_is_known_counts_for_the_pool_that_it_turns_out_to_have(
    native: Exporter,
) -> None:
    native.feed(native.errors, broken(A), broken(A), broken(B))
    assert counters(native) == {}
    native.feed(native.access, line(**tries(ANSWERED)))
    native.feed(native.access, line(**tries(ANSWERED)))
    assert counters(native)['broken_streams{pool="chat"}'] == 2


def test_broken_stream_counts_once_in_the_lua_form_though_both_logs_tell_it(lua: Exporter) -> None:
    """The lua form leaves the error log alone, so a test gives it to mtail by the other name."""
    lua.feed(lua.access, line(**tries(ANSWERED), llm_end="eof"), broken(A), line(**tries(ANSWERED)))
    assert counters(lua)['broken_streams{pool="chat"}'] == 1


def test_series_of_rare_events_begin_at_zero(exporter: Exporter) -> None:
    exporter.feed(exporter.access, line(**tries(ANSWERED), llm_end="eof"))
    values = exporter.values()
    for name in ("retries", "client_aborts", "broken_streams"):
        assert values[f'llmops_balancer_{name}_total{{pool="chat"}}'] == 0
    for status in ("500", "502", "503", "504"):
        assert values[f'llmops_balancer_requests_total{{pool="chat",status="{status}"}}'] == 0


def test_no_time_at_all_has_a_bucket(exporter: Exporter) -> None:
    exporter.feed(exporter.access, line(**tries((A, "200", "0.000", "0.000")), request_time="0.000", llm_end="eof"))
    values = exporter.values()
    for name, labels in (("request_seconds", 'pool="chat"'), ("first_byte_seconds", f'endpoint="{A}",pool="chat"')):
        buckets = [value for key, value in values.items() if key.startswith(f"llmops_balancer_{name}_bucket")]
        assert set(buckets) == {1}
        assert f'llmops_balancer_{name}_bucket{{{labels},le="1"}}' in values  # the limit of the alerts is a boundary


GARBAGE = [
    "",
    "{}",
    '"',
    "\\",
    line()[:-40],  # cut
    line()[1:],
    " " + line(),
    line(llm_status="-"),
    line(request_time="x"),
    '192.0.2.99 - - [30/Nov/2026:01:06:11 +0000] "GET / HTTP/1.1" 200 12 "-" "-"',
]


def test_lines_of_another_kind_are_passed_over(exporter: Exporter) -> None:
    exporter.feed(exporter.access, *GARBAGE)
    assert exporter.values() == {}
    exporter.feed(exporter.access, line())
    assert counters(exporter)['requests{pool="chat",status="200"}'] == 1
    assert "mtail_prog_runtime_errors_total" not in exporter.text()


def test_client_cannot_write_fields(exporter: Exporter) -> None:
    """NGINX escapes what a client chose: quotes, backslashes, control characters."""
    forged = line(llm_pool="forged", llm_status=500, **tries(("192.0.2.66:1", "500", "0.001", "0.002")))
    for text in (forged, forged[1:], '","status":500,"up":"192.0.2.66:1","up_status":"500","up_conn":"-","ttfb":"-",'):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        exporter.feed(exporter.access, line(uri="/" + escaped, request_method=escaped, llm_status=404))
    assert {name for name in counters(exporter) if not name.startswith(("sent", "request_seconds"))} == {
        'client_requests{client="front",pool="chat"}',
        'requests{pool="chat",status="404"}',
    }


def test_client_cannot_write_errors(native: Exporter) -> None:
    native.feed(native.access, line(**tries(ANSWERED)), line(**tries((B, "200", "0.001", "0.002")), llm_pool="other"))
    own = broken(A).replace("/v1/completions HTTP", f'/v1/completions?",upstream:"http://{B}/" HTTP', 1)
    native.feed(native.errors, f'{own}, referrer: "x", upstream: "http://{B}/v1/completions"')
    harmless = broken(A, "open() failed").replace("example.com", broken(B))
    native.feed(native.errors, harmless, harmless.replace("open() failed", f"broken {broken(B)}"))
    found = counters(native)
    assert found['broken_streams{pool="chat"}'] == 1
    assert 'broken_streams{pool="other"}' not in found


def test_rotated_logs_are_followed(exporter: Exporter) -> None:
    """The role's last check asks for the number of logs that are open."""
    for turn in range(3):
        exporter.feed(exporter.access, line(), line())
        assert counters(exporter)['requests{pool="chat",status="200"}'] == 2 * turn + 2
        assert exporter.state()["log_count"] == len(exporter.logs)
        exporter.rotate()


def test_a_new_program_is_read_without_forgetting_what_was_counted(lua: Exporter) -> None:
    lua.feed(lua.access, line())
    lua.write(log_exporter.program("lua") + "# changed\n")
    lua.process.send_signal(signal.SIGHUP)
    await_that(lambda: 'mtail_prog_loads_total{prog="llm_balancer.mtail"} 2' in lua.text(), "mtail has read it")
    lua.feed(lua.access, line())
    assert counters(lua)['requests{pool="chat",status="200"}'] == 2


def checker() -> str:
    """The command with which the role checks the program, for the mtail of the tests."""
    mtail = str(debian_programs.program("mtail", "mtail"))
    command: str = exporters_role.VARS["__llm_exporters_mtail_checker"]
    return command.replace("PROGRAM", mtail)


@pytest.mark.parametrize(
    ("change", "right"),
    [((" {", " {"), True), ((" {", " {{"), False), (("[pool]++", "[nobody]++"), False), (("(?P<pool>", "("), False)],
)
@pytest.mark.parametrize("form", FORMS)
def test_role_checks_the_program_before_it_is_in_force(
    form: str, change: tuple[str, str], right: bool, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "source").write_text(log_exporter.program(form).replace(*change, 1))
    words = shlex.split(checker() % (tmp_path / "source"))
    done = subprocess.run(words, capture_output=True, text=True, env={"TMPDIR": str(tmp_path)}, check=False)
    assert (done.returncode == 0) is right, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
