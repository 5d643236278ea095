"""The check that panels are alive, and the preview: on a Prometheus of a few lines, whose answers each test chooses."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import struct
import threading
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tools.dashboards import build, live, source
from tools.dashboards.preview import __main__ as preview
from tools.dashboards.preview import browser, data, page, shrink, units
from tools.dashboards.prometheus import Prometheus, PrometheusError
from tools.dashboards.variables import Span, fill, resolve, seconds

SPAN = Span(start=1000.0, end=1900.0, step=10.0, scrape=10.0)
NAN = "NaN"


class Answers:
    """FAKE of Prometheus' HTTP interface: one series for each query, unless ``empty`` says that there is none."""

    def __init__(self) -> None:
        self.empty: Callable[[str], bool] = lambda expr: False
        self.value = "0.5"
        self.result: list[dict[str, Any]] = []  # of every query, instead of that series
        self.asked: list[str] = []
        self.logins: list[str | None] = []
        self.address = ""

    def reply(self, path: str, words: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        expr = words.get("query", words.get("match[]", [""]))[0]
        self.asked.append(expr)
        if "/label/" in path:
            values = [] if self.empty(expr) else ["a/r0", "b/r0"]
            return 200, {"status": "success", "data": values}
        if expr == "broken(":
            return 400, {"status": "error", "error": "parse error: unclosed left parenthesis"}
        labels = {"pool": "chat", "replica": "a/r0", "le": "0.5", "job": "vllm"}
        over_time = path.endswith("query_range")
        values = (
            {"values": [[at, self.value] for at in range(1000, 1901, 10)]}
            if over_time
            else {"value": [1900, self.value]}
        )
        result = [] if self.empty(expr) else [{"metric": labels, **values}]
        result = self.result or result
        return 200, {"status": "success", "data": {"resultType": "matrix" if over_time else "vector", "result": result}}


@pytest.fixture
def prometheus() -> Iterator[Answers]:
    answers = Answers()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            answers.logins.append(self.headers.get("Authorization"))
            address = urllib.parse.urlsplit(self.path)
            status, body = answers.reply(address.path, urllib.parse.parse_qs(address.query))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answers.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield answers
    server.shutdown()


def states(prometheus: Answers, name: str) -> dict[str, live.Finding]:
    return {one.panel: one for one in live.findings(name, Prometheus(prometheus.address), SPAN)}


def test_a_panel_is_alive_when_all_its_queries_return_a_value(prometheus: Answers) -> None:
    assert {one.state for one in states(prometheus, "fleet").values()} == {"alive"}


def test_a_panel_is_dead_when_one_of_its_queries_returns_nothing(prometheus: Answers) -> None:
    prometheus.empty = lambda expr: "limit_itl" in expr
    dead = [one for one in states(prometheus, "fleet").values() if one.state == "dead"]
    assert [one.panel for one in dead] == ["Time between tokens, p99"]
    assert dead[0].why == 'no data: max by (pool) (llmops_limit_itl_p99_seconds{pool=~".*"})'


def test_no_number_is_no_data(prometheus: Answers) -> None:
    prometheus.value = NAN
    assert {one.state for one in states(prometheus, "rollout").values()} == {"dead"}


def test_a_panel_without_its_exporter_is_absent_and_not_dead(prometheus: Answers) -> None:
    prometheus.empty = lambda expr: "fabric" in expr
    fabric = states(prometheus, "gpu")["Fabric"]
    assert (fabric.state, fabric.why) == ("absent", "there is no nvidia_smi_fabric_state")


def test_a_panel_whose_exporter_is_there_is_dead(prometheus: Answers) -> None:
    prometheus.empty = lambda expr: expr.startswith("gpu:fabric")
    assert states(prometheus, "gpu")["Fabric"].state == "dead"


def test_a_dashboard_whose_variable_has_no_values_is_dead(prometheus: Answers) -> None:
    prometheus.empty = lambda expr: 'job="vllm"' in expr
    found = states(prometheus, "replica")
    assert list(found) == ["(variables)"]
    assert found["(variables)"].why == 'variable pool: no series for up{job="vllm"}'


@pytest.mark.parametrize(("empty", "status"), [(False, 0), (True, 1)])
def test_dead_panels_end_the_check_with_1(
    prometheus: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty: bool, status: int
) -> None:
    prometheus.empty = lambda expr: empty
    monkeypatch.setattr("sys.argv", ["live", "--prometheus", prometheus.address, "--dashboard", "rollout"])
    assert live.main() == status
    told = capsys.readouterr().out.splitlines()[-1]
    count = len(source.dashboard("rollout").panels)
    assert told == (
        "1 panels: 0 alive, 0 absent, 1 dead" if empty else f"{count} panels: {count} alive, 0 absent, 0 dead"
    )


def test_a_dead_panel_is_asked_again_until_the_wait_is_over(
    prometheus: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    prometheus.empty = lambda expr: not begun
    monkeypatch.setattr(live.time, "sleep", begun.append)
    monkeypatch.setenv("PROMETHEUS_URL", prometheus.address)
    monkeypatch.setattr("sys.argv", ["live", "--wait", "6m"])
    assert live.main() == 0
    assert begun == [live.PAUSE]


def test_an_error_of_prometheus_names_the_reason_and_the_query(prometheus: Answers) -> None:
    with pytest.raises(PrometheusError, match=r"/api/v1/query: parse error: unclosed left parenthesis: broken\("):
        Prometheus(prometheus.address).instant("broken(", 1900)


def test_the_login_in_an_address_is_used_and_not_told(prometheus: Answers) -> None:
    asked = Prometheus(prometheus.address.replace("http://", "http://ops:pa%40ss@"))
    with pytest.raises(PrometheusError) as refused:
        asked.instant("broken(", 1900)
    assert prometheus.logins == [f"Basic {base64.b64encode(b'ops:pa@ss').decode()}"]
    assert "ss@" not in str(refused.value) and "ops" not in str(refused.value)


def test_a_prometheus_that_does_not_answer_is_named() -> None:
    with pytest.raises(PrometheusError, match="GET http://127.0.0.1:1/api/v1/query: .*refused"):
        Prometheus("http://127.0.0.1:1").instant("up", 0)


def test_variables_are_resolved_one_after_the_other(prometheus: Answers) -> None:
    listed = build.made(source.dashboard("replica"))["templating"]["list"]
    texts = resolve(listed, {"pool": ["chat.a"], "replica": ["a/r0", "b/r0"]}, Prometheus(prometheus.address), SPAN)
    assert prometheus.asked == ['up{job="vllm"}', 'up{job="vllm",pool=~"chat\\\\.a"}']
    assert fill('x{replica=~"$replica"}[$__rate_interval]', texts) == 'x{replica=~"(a/r0|b/r0)"}[40s]'


def test_a_rate_spans_a_step_and_a_scrape_where_steps_are_long() -> None:
    assert Span(0, 86400, step=300, scrape=10).texts()["__rate_interval"] == "310s"


def test_what_is_no_variable_stays() -> None:
    assert fill('label_replace(up, "file", "$1", "file", "(.+)")', {"pool": "a"}).count("$1") == 1


@pytest.mark.parametrize(("text", "value"), [("90s", 90), ("15m", 900), ("6h", 21600), ("30d", 2592000)])
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


def test_a_slip_in_a_duration_is_explained() -> None:
    with pytest.raises(ValueError, match="15 min: a duration is a number and one of s, m, h, d"):
        seconds("15 min")


@pytest.mark.parametrize(
    ("unit", "value", "decimals", "text"),
    [
        ("short", 0, None, "0"),
        ("short", 12345, None, "12.3 K"),
        ("short", 999, None, "999"),
        ("reqps", 5.861, None, "5.86 req/s"),
        ("percentunit", 0.00727, None, "0.727%"),
        ("percentunit", 1, 2, "100.00%"),
        ("s", 0.0212, None, "21.2 ms"),
        ("s", 0, None, "0 s"),
        ("s", 5270400, None, "61 days"),
        ("currencyUSD", 21.354, 2, "$21.35"),
        ("bytes", 2.1e9, None, "1.96 GiB"),
        ("Bps", 650000, None, "650 kB/s"),
        ("hertz", 1.98e9, None, "1.98 GHz"),
        ("watt", 412.4, None, "412 W"),
        ("celsius", 78, None, "78 °C"),
        ("s", float("nan"), None, "no data"),
    ],
)
def test_values_are_written_with_their_unit(unit: str, value: float, decimals: int | None, text: str) -> None:
    assert units.shown(unit, value, decimals) == text


@pytest.mark.parametrize(
    ("unit", "low", "high", "texts"),
    [
        ("percentunit", 0, 1, ["0%", "25%", "50%", "75%", "100%"]),
        ("s", 0, 0.1, ["0 s", "25 ms", "50 ms", "75 ms", "100 ms"]),
        ("currencyUSD", 0, 21, ["$0", "$10", "$20"]),
        ("short", -2, 2, ["-2", "-1", "0", "1", "2"]),
    ],
)
def test_axes_have_round_numbers(unit: str, low: float, high: float, texts: list[str]) -> None:
    assert [text for _at, text in units.ticks(unit, low, high, 4)] == texts


@pytest.mark.parametrize("name", source.NAMES)
@pytest.mark.parametrize("empty", [False, True], ids=["with data", "without data"])
def test_every_panel_is_drawn(prometheus: Answers, name: str, empty: bool) -> None:
    made, asked = build.made(source.dashboard(name)), Prometheus(prometheus.address)
    texts = resolve(made["templating"]["list"], {}, asked, SPAN)
    prometheus.empty = lambda expr: empty
    regions = data.regions(made, asked, SPAN, texts)
    panels = {one["id"]: data.shown(one, asked, SPAN, texts, regions) for one in made["panels"] if one["type"] != "row"}
    text, height = page.page(made, panels, {})
    assert text.count('<div class="panel"') == len(panels)
    assert text.count("No data") == (len(panels) if empty else 0)
    assert regions == ([] if empty else [(1000.0, 1900.0)])
    assert 600 < height < 4000 and "a preview, not Grafana" in text


def test_a_picture_is_taken_by_the_browser_and_made_smaller(
    prometheus: Answers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    sample, program = tmp_path / "sample.png", tmp_path / "browser"
    sample.write_bytes(png(40, 40))
    program.write_text(
        f'#!/bin/sh\nfor word; do case $word in --screenshot=*) cp {sample} "${{word#*=}}";; esac; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PROMETHEUS_URL", prometheus.address)
    words = ["--out", str(tmp_path / "out"), "--browser", str(program)]
    monkeypatch.setattr("sys.argv", ["preview", *words, "--dashboard", "rollout", "--variable", "pool=chat"])
    assert preview.main() == 0
    assert capsys.readouterr().out == f"{tmp_path}/out/llmops-rollout.png\n"
    assert any('pool=~"chat"' in expr for expr in prometheus.asked)
    assert (tmp_path / "out" / "llmops-rollout.png").stat().st_size < sample.stat().st_size


def test_without_a_browser_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(browser.BrowserError, match="install chromium, or name a browser with --browser"):
        browser.find()


def test_a_browser_that_writes_nothing_is_told_with_its_words(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "browser"
    program.write_text("#!/bin/sh\necho no display >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(browser.BrowserError, match=r"wrote no picture \(exit status 3\): no display"):
        browser.picture(str(program), "<p>", 10, 10, tmp_path / "x.png")


def test_a_native_histogram_is_drawn_as_its_classic_buckets_would_be(prometheus: Answers) -> None:
    prometheus.result = [
        {
            "metric": {"pool": "chat"},
            "histograms": [
                [1000, {"count": "5", "sum": "3", "buckets": [[3, "0", "0.5", "4"], [0, "1", "+Inf", "1"]]}],
                [1010, {"count": "3", "sum": "2", "buckets": [[0, "0.5", "1", "3"]]}],
            ],
        }
    ]
    found = Prometheus(prometheus.address).range("increase(h[1m])", 1000, 1010, 10)
    assert {one.labels["le"]: one.values for one in found} == {
        "0.5": [(1000, 4), (1010, 0)],
        "1": [(1000, 4), (1010, 3)],
        "inf": [(1000, 5), (1010, 3)],
    }
    assert {one.labels["pool"] for one in found} == {"chat"}


@pytest.mark.parametrize("form", range(5), ids="none sub up average paeth".split())
def test_a_smaller_picture_has_the_same_points(tmp_path: pathlib.Path, form: int) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(16, 16, form))
    before = shrink._points(path.read_bytes())
    shrink.shrink(path)
    assert palette_points(path.read_bytes()) == before[2] == [[colour(x, y) for x in range(16)] for y in range(16)]


def test_more_colours_than_fit_become_the_nearest(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png(16, 17))  # 16 more than fit: the last row becomes the one above
    before = shrink._points(path.read_bytes())[2]
    shrink.shrink(path)
    after = palette_points(path.read_bytes())
    off = [
        max(abs(a - b) for a, b in zip(one, other)) for row, new in zip(before, after) for one, other in zip(row, new)
    ]
    assert max(off) == 6


def colour(x: int, y: int) -> bytes:
    return bytes((x * 6 % 256, y * 6 % 256, 90))


def png(width: int, height: int, form: int = 0) -> bytes:
    """A PNG of 24 bits whose rows have one of the five filters, worked out by the specification's own words."""
    rows, above = b"", bytes(width * 3)
    for y in range(height):
        row = b"".join(colour(x, y) for x in range(width))
        guesses = []
        for at in range(len(row)):
            left, corner = (row[at - 3], above[at - 3]) if at >= 3 else (0, 0)
            up = above[at]
            nearest = min((left, up, corner), key=lambda one: abs(left + up - corner - one))
            guesses.append((0, left, up, (left + up) // 2, nearest)[form])
        rows += bytes([form]) + bytes((value - guess) % 256 for value, guess in zip(row, guesses))
        above = row
    body = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows, 0))]
    return shrink._MAGIC + b"".join(shrink._chunk(name, text) for name, text in [*body, (b"IEND", b"")])


def palette_points(text: bytes) -> list[list[bytes]]:
    chunks = dict(shrink._chunks(text))
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    palette, packed = chunks[b"PLTE"], zlib.decompress(chunks[b"IDAT"])
    rows = [packed[start + 1 : start + 1 + width] for start in range(0, height * (width + 1), width + 1)]
    return [[palette[3 * index : 3 * index + 3] for index in row] for row in rows]
