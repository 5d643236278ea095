"""The watch of a canary, with pages of metrics over real sockets and a clock that is turned by hand."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import replace

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary import Limits
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_reading import (
    FINISHED,
    CanaryError,
    Counts,
    total,
)
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_run import Run, Wish, record_from
from ansible_collections.llmops.vllm.plugins.module_utils._gate.canary_watch import watched
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import ApiError

PLAIN = {
    "time_to_first_token_seconds": "ttft",
    "request_queue_time_seconds": "queue",
    "inter_token_latency_seconds": "itl",
    "request_generation_tokens": "output",
    "request_prompt_tokens": "prompt",
}


def requests(count, ttft=0.2, itl=0.02, failed=0):
    """What so many requests of 11 tokens count up."""
    c = Counts(ttft_sum=ttft * count, ttft_count=count, queue_count=count, itl_sum=itl * 10 * count)
    c = replace(c, itl_count=10 * count, output_sum=11 * count, output_count=count, steps=11 * count, stop=count)
    return replace(c, prompt_sum=7 * count, prompt_count=count, served=count, failed=failed)


class Server:
    """A replica that shows what it is told to have counted."""

    def __init__(self, name):
        self.name, self.counts, self.running, self.born, self.status = name, requests(1000), 0, 100.0, 200
        self.models, self.each = ["m", "m@0123456789ab"], Counts()
        shown = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                body = shown.page() if self.path == "/metrics" else json.dumps(shown.list())
                self.send_response(shown.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def list(self):
        return {"data": [{"id": name, "root": "/srv/m"} for name in self.models]}

    def page(self):
        c = self.counts
        rows = {
            f"vllm:{name}_{end}": getattr(c, f"{key}_{end}") for name, key in PLAIN.items() for end in ("sum", "count")
        }
        rows |= {"vllm:num_requests_running": self.running, "vllm:num_requests_waiting": 0}
        rows |= {"vllm:iteration_tokens_total_count": c.steps, "process_start_time_seconds": self.born}
        rows |= {f'vllm:request_success_total{{finished_reason="{reason}"}}': getattr(c, reason) for reason in FINISHED}
        for status, key in {"2xx": "served", "5xx": "failed"}.items():
            rows[f'http_requests_total{{handler="/v1/completions",method="POST",status="{status}"}}'] = getattr(c, key)
        return "".join(f"{name} {value}\n" for name, value in rows.items())

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Lab:
    """Three replicas, g1 new, g2 and g3 old, and time that passes only when somebody sleeps."""

    def __init__(self):
        self.servers = {name: Server(name) for name in ("g1", "g2", "g3")}
        self.now, self.at = 5000.0, {}

    def sleep(self, seconds):
        """Time passes: every replica counts what comes in a second; things happen that were planned."""
        for _second in range(round(seconds)):
            self.now += 1
            for server in self.servers.values():
                server.counts = total([server.counts, server.each])
            for happens in self.at.pop(self.now - 5000, []):
                happens()

    def run(self, new=("g1",), old=("g2", "g3"), record=None, watch=None, limits=None, **wish):
        def side(names):
            return watched([{"id": name, "url": self.servers[name].url} for name in names], "", 5)

        wished = Wish(limits=limits or Limits(), **wish)
        return Run(side(new), side(old), wished, record=record, watch=watch, clock=lambda: self.now, sleep=self.sleep)


@pytest.fixture
def lab():
    lab = Lab()
    yield lab
    for server in lab.servers.values():
        server.close()


def traffic(lab, **each):
    for name, counts in each.items():
        lab.servers[name].each = counts


def test_the_first_requests_of_a_new_replica_are_not_compared(lab):
    traffic(lab, g1=requests(5, ttft=9.0), g2=requests(5), g3=requests(5))  # cold
    lab.at[10] = [lambda: traffic(lab, g1=requests(5))]
    found = lab.run().compare()
    assert found.verdict == "not_worse", found.msg
    assert found.elapsed == 70  # 50 requests in 10 s, and a soak of 60 s
    assert (found.new.counts.ttft_count, found.old.counts.ttft_count) == (300, 600)
    assert found.msg.startswith("not worse: TTFT 200 ms against 200 ms over 300 requests at the new and 600 at the old")
    assert found.old.replicas == ("g2", "g3")
    assert lab.run(ignore=0, soak=0, timeout=60).compare().verdict == "not_worse"


def test_what_was_counted_before_the_watch_is_not_compared(lab):
    lab.servers["g1"].counts = requests(1000, ttft=9.0, failed=500)
    traffic(lab, g1=requests(5), g2=requests(5), g3=requests(5))
    assert lab.run().compare().verdict == "not_worse"


def test_latency_is_judged_at_the_end_of_the_soak(lab):
    traffic(lab, g1=requests(50, ttft=0.5), g2=requests(50), g3=requests(50))
    found = lab.run(soak=120).compare()
    assert found.verdict == "worse" and found.elapsed == 125
    assert "TTFT 500 ms against 200 ms (2.5 times, 300 ms more) over 6000 requests at the new" in found.msg
    assert any(line.startswith("10 s: soaking, so far worse: TTFT") for line in found.progress)


def test_errors_end_the_soak_at_once(lab):
    traffic(lab, g1=requests(10, failed=1), g2=requests(10), g3=requests(10))
    found = lab.run(soak=600).compare()
    assert found.verdict == "worse" and found.elapsed <= 20
    assert "errors 10 of 110 against 0 of 200 (9.09 % against 0.00 %)" in found.msg


def test_errors_among_the_first_requests_count_as_no_cold_cache_makes_them(lab):
    traffic(lab, g1=requests(1, failed=1), g2=requests(5), g3=requests(5))
    found = lab.run().compare()
    assert found.verdict == "worse" and found.elapsed <= 10
    assert found.msg.startswith("worse: errors 5 of 10 against 0 of 50")


@pytest.mark.parametrize(
    ("each", "words"),
    [
        (0, "of the first 50 requests, which are ignored, came: g1 0; since the watch began 0 requests came"),
        (0.125, "first tokens of 25 requests at the new and 50 at the old (100 are needed)"),
    ],
)
def test_too_little_traffic_is_said_at_the_end_of_the_time(lab, each, words):
    traffic(lab, g1=requests(each), g2=requests(each), g3=requests(each))
    found = lab.run(timeout=600).compare()
    assert found.verdict == "not_enough_traffic" and found.elapsed == 600
    assert f"not enough traffic: {words}" in found.msg
    assert 55 <= len(found.progress) <= 61


def test_failures_too_few_to_judge_are_told(lab):
    traffic(lab, g1=Counts(failed=2), g2=requests(5), g3=requests(5))
    lab.at[1] = [lambda: traffic(lab, g1=Counts(), g2=Counts(), g3=Counts())]
    found = lab.run().compare()
    assert found.verdict == "not_enough_traffic"
    assert found.msg.endswith("since the watch began 2 requests came and 2 of them failed")


def test_a_new_replica_that_ends_is_worse(lab):
    traffic(lab, g1=requests(5), g2=requests(5), g3=requests(5))
    lab.at[20] = [lab.servers["g1"].close]
    found = lab.run().compare()
    assert found.verdict == "worse" and found.elapsed <= 40
    assert "worse: g1 does not answer: GET http://127.0.0.1:" in found.msg and "refused" in found.msg


@pytest.mark.parametrize("change", [{"born": 170.0}, {"counts": requests(3)}])
def test_a_new_replica_that_starts_anew_is_worse(lab, change):
    traffic(lab, g1=requests(5), g2=requests(5), g3=requests(5))
    lab.at[30] = [lambda: vars(lab.servers["g1"]).update(change)]
    found = lab.run().compare()
    assert found.verdict == "worse" and found.msg == "worse: g1 was started anew while it was watched"


def test_a_new_replica_that_makes_no_step_is_worse(lab):
    traffic(lab, g1=requests(5), g2=requests(5), g3=requests(5))
    lab.at[25] = [lambda: traffic(lab, g1=Counts()), lambda: vars(lab.servers["g1"]).update(running=4)]
    found = lab.run().compare()
    assert found.verdict == "worse" and found.elapsed == 55
    assert "g1 does not generate: 4 requests run and 0 wait, and no engine step was made for 30 s" in found.msg


def test_an_idle_replica_does_not_stand_still(lab):
    assert lab.run(timeout=120).compare().verdict == "not_enough_traffic"


def test_one_answer_that_is_missing_matters_not(lab):
    traffic(lab, g1=requests(5), g2=requests(5), g3=requests(5))
    for second, status in {20: 500, 30: 200}.items():
        lab.at[second] = [lambda status=status: vars(lab.servers["g1"]).update(status=status)]
    assert lab.run().compare().verdict == "not_worse"


def test_an_old_replica_that_ends_is_left_out(lab):
    traffic(lab, g1=requests(5), g2=requests(5), g3=requests(5, ttft=0.01))
    lab.at[30] = [lab.servers["g3"].close]
    found = lab.run().compare()
    assert found.verdict == "not_worse" and found.old.replicas == ("g2",)
    assert found.notes[0].startswith("g3 does not answer")


def test_the_record_counts_where_no_old_replica_is_left(lab):
    traffic(lab, g1=requests(5, ttft=0.4), g2=requests(5), g3=requests(5))
    found, record = lab.run(new=(), soak=30).note_down()
    assert found.verdict == "recorded" and found.elapsed == 30
    assert found.msg == "recorded 300 requests at 2 replicas (100 are needed)"
    assert record["replicas"] == ["g2", "g3"] and record["model"]["revision"] == "0123456789ab"
    record = record_from(json.loads(json.dumps(record)))
    alone = lab.run(old=(), record=record).compare()
    assert alone.verdict == "worse" and alone.result()["against"] == "record"
    assert "over 300 requests at the new and 300 at the old" in alone.msg
    # where old replicas answer, they count: the hour is the same
    assert lab.run(record=record).compare().result()["against"] == "old"
    for name in ("g2", "g3"):
        lab.servers[name].close()
    left = lab.run(record=record).compare()
    assert left.verdict == "worse" and left.result()["against"] == "record"
    nobody = lab.run().compare()
    assert nobody.verdict == "not_enough_traffic" and "no old replica is left to compare with (g2 does" in nobody.msg


def test_a_replica_with_nobody_beside_it_is_watched_to_the_end_of_the_soak(lab):
    """As after a reboot of a host, or in a pool of one: that there is nobody to compare with is no fault of its own."""
    traffic(lab, g1=requests(5))
    found = lab.run(old=(), soak=30).compare()
    assert (found.verdict, found.elapsed) == ("not_enough_traffic", 30)
    assert "there is nobody to compare with; since the watch began 150 requests came and 0 of them failed" in found.msg
    assert found.result()["against"] == ""
    lab.at[40] = [lab.servers["g1"].close]
    assert lab.run(old=(), soak=30).compare().verdict == "worse"


def test_a_record_of_too_little_traffic_is_told_and_does_not_decide(lab):
    traffic(lab, g1=requests(5, ttft=5.0), g2=requests(0.1))
    found, record = lab.run(new=(), timeout=120).note_down()
    assert found.verdict == "not_enough_traffic"
    assert found.msg == "not enough traffic: recorded 12 requests at 2 replicas (100 are needed)"
    assert lab.run(old=(), record=record_from(record), timeout=120).compare().verdict == "not_enough_traffic"


def test_a_watch_in_parts_is_the_same_watch(lab):
    traffic(lab, g1=requests(5, ttft=9.0), g2=requests(5), g3=requests(5))
    lab.at[10] = [lambda: traffic(lab, g1=requests(5))]
    watch, parts = None, 0
    while True:
        found = lab.run(watch=watch, return_after=20).compare()
        if found.verdict != "watching":
            break
        watch, parts = json.loads(json.dumps(found.watch)), parts + 1
        assert found.msg.startswith("watching: ")
        lab.sleep(1)  # what the caller does meanwhile
    assert parts == 3 and found.verdict == "not_worse"
    assert found.new.counts.ttft_count == 300 + 5 * parts  # traffic of the pauses counts, their seconds do not
    assert found.elapsed == 70


def test_a_replica_that_ended_between_two_parts_is_noticed(lab):
    found = lab.run(return_after=10).compare()
    lab.servers["g1"].born = 900.0
    assert lab.run(watch=found.watch).compare().msg == "worse: g1 was started anew while it was watched"


def test_answers_that_are_missing_in_several_parts_are_counted_together(lab):
    watch = lab.run(return_after=1).compare().watch
    lab.servers["g1"].close()
    said = [lab.run(watch=watch, return_after=1).compare()]
    while said[-1].verdict == "watching":
        said.append(lab.run(watch=said[-1].watch, return_after=1).compare())
    assert len(said) == 3 and "worse: g1 does not answer" in said[-1].msg


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda lab: lab.run(new=()).compare(), "new names no replica"),
        (lambda lab: lab.run(new=(), old=()).note_down(), "there is nothing to record"),
        (lambda lab: lab.run(new=("g1", "g2")), "g2 is named twice: a replica is either new or old"),
        (lambda lab: lab.run(soak=700), "timeout is 600, needed is 700 or more"),
        (lambda lab: lab.run(interval=0), "interval is 0, needed is 0.01 or more"),
        (lambda lab: lab.run(watch={"version": 2}), "watch is not what an earlier call"),
        (
            lambda lab: lab.run(old=("g3",), watch=lab.run(return_after=1).compare().watch),
            "watch is of g1, g2, g3, but new and old name g1, g3",
        ),
        (lambda lab: record_from({"version": 1}), "record is not what state=recorded returned"),
        (lambda lab: record_from({"version": 1, "counts": {}}), "record.counts is not what an earlier call"),
    ],
)
def test_what_cannot_be_compared_is_refused(lab, call, words):
    with pytest.raises(CanaryError, match=words):
        call(lab)


def test_a_key_that_is_not_accepted_ends_it(lab):
    lab.servers["g2"].status = 401
    with pytest.raises(ApiError, match="does not accept the key in api_key"):
        lab.run().compare()


def test_nobody_to_record_is_told(lab):
    for name in ("g2", "g3"):
        lab.servers[name].close()
    with pytest.raises(CanaryError, match="nothing can be recorded: g2 does not answer"):
        lab.run(new=()).note_down()
