"""The module vllm_benchmark: results of real vLLM, and the fake's client against the fake server over real sockets."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
import time
import zipfile

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark import run as runs
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import Recipe, recipe
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.result import doubts, figures
from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.run import BenchmarkError, Client, Ran

from tests.fakes.vllm import build
from tests.fakes.vllm.running import KEY
from tests.ports import free_port

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
SMALL = {"input_tokens": 32, "output_tokens": 8, "requests": 24, "concurrency": 4, "warmups": 1}
LOAD = recipe("baseline", {**SMALL, "requests": 40, "goodput_ms": {"ttft": 45, "tpot": 50}})


def real(name):
    return json.loads((DATA / f"bench_serve_0.32.0_{name}.json").read_text())


# --- what a result says ----------------------------------------------------------------------------------------------


def test_figures_of_a_real_run():
    found = figures(real("random"), LOAD)
    assert (found["completed"], found["failed"], found["short"]) == (40, 0, 0)
    assert (found["output_tokens"], found["output_throughput"]) == (320, 201.432)
    assert found["ttft_ms"] == {"p50": 42.91, "p90": 54.09, "p99": 71.89}
    assert found["tpot_ms"]["p50"] == 14.92 and found["e2e_ms"]["p90"] == 196.67 and found["itl_ms"]["p99"] == 75.28


def test_good_are_whole_answers_within_all_limits():
    document = real("random")
    slow = sum(ttft > 0.045 for ttft in document["ttfts"])
    found = figures(document, LOAD)
    assert 0 < slow < 40 and found["good_share"] == (40 - slow) / 40
    assert found["request_goodput"] == pytest.approx((40 - slow) / document["duration"], abs=0.001)
    # vLLM's own count, with the limits that the run was given
    own = figures(document, LOAD.changed({"goodput_ms": {"ttft": 500, "tpot": 50}}))
    assert own["request_goodput"] == pytest.approx(document["request_goodput"], abs=0.001)
    without = figures(document, LOAD.changed({"goodput_ms": {}}))
    assert (without["request_goodput"], without["good_share"]) == (None, None)


def test_answers_that_broke_off_are_seen_though_vllm_counts_them_as_completed():
    document = real("cut")
    assert (document["completed"], document["failed"]) == (20, 0)  # what vLLM's client says of 20 broken streams
    found = figures(document, LOAD)
    assert found["short"] == 20 and found["good_share"] == 0
    (told,) = doubts(Ran(document, None), LOAD, found)
    assert told.startswith("20 of 20 answers broke off before their 8 tokens")


def test_no_answer_at_all_is_an_error_with_the_reasons():
    with pytest.raises(BenchmarkError, match="none of 20 requests succeeded: 20 x Internal Server Error"):
        figures(real("failed"), LOAD)


def test_failed_requests_are_told_with_their_most_frequent_reasons():
    document = real("random")
    document |= {"completed": 37, "failed": 3}
    document["errors"][:3] = ["Service Unavailable", "Traceback (most recent call last):\n  File x\nOSError: gone", ""]
    document["errors"][2] = "Service Unavailable"
    found = figures(document, LOAD)
    told = doubts(Ran(document, None), LOAD, found)
    assert "3 of 40 requests failed: 2 x Service Unavailable; 1 x OSError: gone" in told


def test_another_form_is_said_to_be_one():
    document = real("random")
    del document["output_lens"]
    with pytest.raises(BenchmarkError, match=r"another form than that of vLLM 0.32 \(KeyError: 'output_lens'\)"):
        figures(document, LOAD)


@pytest.mark.parametrize(("share", "told"), [(None, 0), (0.5, 0), (0.89, 0), (0.9, 1), (1.0, 1)])
def test_a_client_that_is_the_bottleneck_is_said_to_be_one(share, told):
    document = real("random")
    said = [text for text in doubts(Ran(document, share), LOAD, figures(document, LOAD)) if "of a core" in text]
    assert len(said) == told


def test_a_client_that_sends_later_than_planned_is_seen():
    prefix = {"input_tokens": 72, "shared_tokens": 64, "conversations": 4, "request_rate": 10, "concurrency": 0}
    load = LOAD.changed(prefix)
    document = real("prefix")
    found = figures(document, load)
    assert not [text for text in doubts(Ran(document, None), load, found) if "planned" in text]
    late = {**document, "start_times": [start * 1.0 for start in document["start_times"]]}
    late["start_times"][-1] += 3
    (told,) = [text for text in doubts(Ran(late, None), load, found) if "planned" in text]
    assert "planned for 4 s" in told


def test_prompts_of_another_length_are_seen():
    document = real("random")  # the fake's server counts bytes, and random bytes are not all letters
    document["total_input_tokens"] = 40 * 48
    told = doubts(Ran(document, None), LOAD, figures(document, LOAD))
    assert "prompts had 48 tokens on average, asked were 32: the local tokenizer is not the server's" in told


# --- the client ------------------------------------------------------------------------------------------------------


def words(load: Recipe) -> str:
    return " ".join(runs.command(Client("/e", "/m"), "http://192.0.2.1:8000/", "m", load, 7, "/r"))


def test_the_command_has_the_recipe():
    said = words(LOAD)
    assert said.startswith("/e/bin/vllm bench serve --backend openai --base-url http://192.0.2.1:8000 --endpoint /v1/c")
    assert "--dataset-name random --random-input-len 32 --random-output-len 8 --num-prompts 40 --num-warmups 1" in said
    assert "--request-rate inf --max-concurrency 4" in said and "--burstiness" not in said
    assert "--goodput ttft:45 tpot:50 --disable-tqdm" in said and "--ignore-eos --temperature 0" in said
    turns = words(recipe("multi_turn"))
    assert "--prefix-repetition-prefix-len 2048 --prefix-repetition-suffix-len 128" in turns
    assert "--prefix-repetition-num-prefixes 20 --prefix-repetition-output-len 256" in turns
    assert "--request-rate 2 --burstiness 0.7" in turns and "--max-concurrency" not in turns
    assert "--goodput" not in words(recipe("batch", {"goodput_ms": {}}))


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """The fake vLLM as an environment of its own, as an installer lays it out."""
    place = tmp_path_factory.mktemp("env")
    packages = place / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    with zipfile.ZipFile(build.build(place)) as wheel:
        wheel.extractall(packages)
    program(place, f'PYTHONPATH={packages} exec {sys.executable} -m vllm.entrypoints.cli.main "$@"')
    return place


def program(place: pathlib.Path, line: str) -> pathlib.Path:
    path = place / "bin" / "vllm"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return place


@pytest.fixture
def fake(start):
    return start({"FAKE_VLLM_TTFT_MS": "5", "FAKE_VLLM_ITL_MS": "2"})


def args(fake, env, site, **more):
    given = {"env": str(env), "url": fake.url, "model": "m", "tokenizer": str(site / "a"), "api_key": KEY}
    return {**given, "recipe": SMALL, "timeout": 60, **more}


def test_a_replica_is_measured(run_module, fake, env, site, tmp_path):
    result = run_module("vllm_benchmark", args(fake, env, site, version="0.32.0+fake", result_dir=str(tmp_path / "r")))
    assert not result.failed and not result["changed"], result
    found = result["figures"]
    assert (found["completed"], found["failed"], found["short"], found["output_tokens"]) == (24, 0, 0, 192)
    assert found["ttft_ms"]["p50"] >= 5 and found["good_share"] == 1 and result["doubts"] == []
    assert (result["version"], result["replicas"], result["recipe"]["name"]) == ("0.32.0+fake", 1, "baseline")
    assert fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}') == 25 * 32  # one of them warmed up
    assert json.loads((tmp_path / "r" / "result.json").read_text())["completed"] == 24
    assert KEY not in json.dumps(result)


def test_builds_of_a_version_are_not_told_apart(run_module, fake, env, site):
    result = run_module("vllm_benchmark", args(fake, env, site, version="0.32.0"), check=True)
    assert not result.failed and result["version"] == "0.32.0+fake"


def test_conversations_share_their_beginning(run_module, fake, env, site):
    turns = {"shared_tokens": 24, "conversations": 3, "request_rate": 200, "concurrency": 0}
    result = run_module("vllm_benchmark", args(fake, env, site, profile="multi_turn", recipe={**SMALL, **turns}))
    assert not result.failed, result
    assert result["figures"]["completed"] == 24 and result["figures"]["input_tokens"] == 24 * 32


def test_each_run_asks_other_prompts_unless_told_otherwise(run_module, fake, env, site):
    first = run_module("vllm_benchmark", args(fake, env, site), check=True)
    assert abs(first["seed"] - time.time()) < 60
    assert run_module("vllm_benchmark", args(fake, env, site, seed=7), check=True)["seed"] == 7


def test_check_mode_says_the_command_and_asks_nothing(run_module, fake, env, site, tmp_path):
    given = args(fake, env, site, replicas=2, result_dir=str(tmp_path / "r"))
    result = run_module("vllm_benchmark", given, check=True)
    assert result["skipped"] and result["msg"] == f"48 requests would be asked of {fake.url}"
    assert "--num-prompts 48" in " ".join(result["command"]) and KEY not in json.dumps(result)
    assert not (tmp_path / "r").exists()
    assert fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}') == 0


def test_broken_streams_of_a_run_are_told(run_module, fake, env, site):
    fake.fault("sse_error")
    result = run_module("vllm_benchmark", args(fake, env, site))
    assert result["figures"]["short"] == 24 and result["figures"]["good_share"] == 0
    assert result["doubts"] and "24 of 24 answers broke off" in result["doubts"][0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"env": "/nowhere"}, "/nowhere/bin/vllm is not there: give as env the environment of the version"),
        ({"tokenizer": "/"}, "/ holds no tokenizer (tokenizer.json, "),
        ({"version": "0.33.0"}, "holds vLLM 0.32.0+fake, and 0.33.0 serves: give its environment"),
        ({"model": "other"}, "/v1/models: lists m, m@a; other is missing"),
        ({"api_key": "wrong"}, "answered 401: the replica does not accept the key"),
        ({"recipe": {}, "profile": "long_context"}, "m takes 4096 tokens, and the recipe long_context needs 24512"),
        ({"recipe": {"requests": "x"}}, "recipe.requests is 'x'"),
        ({"url": f"http://127.0.0.1:{free_port()}"}, "connection refused"),
        ({"url": "https://127.0.0.1:1", "ca_path": "/nowhere.crt"}, "ca_path /nowhere.crt: "),
        ({"result_dir": "/proc/no"}, "/proc/no"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_any_load(run_module, fake, env, site, given, words):
    result = run_module("vllm_benchmark", {**args(fake, env, site), **given})
    assert result.failed and words in result["msg"], result


def test_a_server_that_fails_everything_is_an_error(run_module, fake, env, site):
    fake.fault("error_500")
    result = run_module("vllm_benchmark", args(fake, env, site))
    assert result.failed and "none of 24 requests succeeded: 24 x Internal Server Error" in result["msg"]


def test_a_client_that_does_not_end_is_stopped_and_leaves_nothing(run_module, fake, site, tmp_path):
    slow = program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    result = run_module("vllm_benchmark", args(fake, slow, site, timeout=1))
    assert result.failed and "the benchmark did not end within 1 s and was stopped" in result["msg"]
    with pytest.raises(ProcessLookupError):
        os.killpg(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "echo 'vllm bench serve: error: unrecognized arguments: --num-warmups 8' >&2; exit 2",
            "ended with code 2: vllm",
        ),
        ("exit 3", "ended with code 3: it said nothing"),
        ("exit 0", "the client ended well and wrote no result that can be read"),
    ],
)
def test_how_a_client_failed_is_told(run_module, fake, site, tmp_path, line, words):
    result = run_module("vllm_benchmark", args(fake, program(tmp_path, line), site))
    assert result.failed and words in result["msg"], result


def test_the_client_gets_the_key_by_its_environment_and_no_proxy(run_module, fake, site, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.9:3128")
    # written where the test looks: the home of the client goes away
    run_module(
        "vllm_benchmark", args(fake, program(tmp_path, f"env > {tmp_path}/seen; exit 1"), site, ca_path="/c.crt")
    )
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert seen["OPENAI_API_KEY"] == KEY and seen["SSL_CERT_FILE"] == "/c.crt" and seen["HF_HUB_OFFLINE"] == "1"
    assert "HTTPS_PROXY" not in seen and not pathlib.Path(seen["HOME"]).exists()


@pytest.mark.parametrize(("busy", "share"), [(0.3, 0.3), (1.0, 1.0)])
def test_the_share_of_a_core_leaves_out_how_the_client_begins_and_ends(busy, share):
    # half a minute of start with a whole core, then 20 s of asking
    start = [(second, second * 1.0) for second in range(31)]
    asked = [(30 + second, 30 + second * busy) for second in range(1, 21)]
    assert runs._cpu_share([*start, *asked], 20.0) == share


def test_too_short_a_run_says_nothing_of_the_client():
    assert runs._cpu_share([(n / 2, n / 2) for n in range(100)], 3.0) is None
    assert runs._cpu_share([], 3.0) is None
