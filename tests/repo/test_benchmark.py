"""``llmops.vllm.benchmark`` as an operator runs it, by real ansible, two small agents and two fake vLLMs."""

from __future__ import annotations

import json
import pathlib
import sys
import zipfile
from collections.abc import Iterator

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._release.home import Home, Owner
from ansible_collections.llmops.vllm.plugins.module_utils._release.meaning import release_from
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.release import Wish, apply

from tests.fakes.vllm import build
from tests.fakes.vllm.running import KEY, Fake, lay_out, starter

from . import ansible_once
from .small_fleet import Fleet, needs_namespaces

pytestmark = needs_namespaces
ALL = {"llmops_model_name": "m", "llmops_model_source": "file:///srv/tiny", "llmops_model_revision": "a"}
RECIPE = {"input_tokens": 32, "output_tokens": 8, "requests": 24, "concurrency": 4, "warmups": 1}
VERSION = "0.32.0+fake"


def environment(base: pathlib.Path) -> pathlib.Path:
    """The fake vLLM as an environment of its own, as the role lays one out."""
    env = base / "env"
    packages = env / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    with zipfile.ZipFile(build.build(base)) as wheel:
        wheel.extractall(packages)
    program = env / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -m vllm.entrypoints.cli.main "$@"\n')
    program.chmod(0o755)
    return env


def serve(root: pathlib.Path, env: pathlib.Path, model: pathlib.Path) -> None:
    """A release in force."""
    given = {"settings": {"max-num-seqs": 4}, "env": str(env), "model": str(model), "model_name": "m"}
    given |= {"model_revision": "a", "version": VERSION, "environment": {}, "secrets": {}, "unit": ""}
    root.mkdir()
    home = Home(str(root), "r0", Owner("root", "root"))
    apply(home, Wish("staged", release_from(given)))
    apply(home, Wish("active"))


class Served(Fleet):
    """The small fleet, with a fake vLLM behind each replica of pool chat, and gpu3 beside them."""

    def __init__(self, base: pathlib.Path, fakes: dict[str, Fake], site: pathlib.Path) -> None:
        super().__init__(base)
        self.fakes = fakes
        env = environment(base)
        for variables in self.balancers.values():
            variables |= {"llmops_backend_keys": [KEY]}
        for name, variables in self.servers.items():
            variables |= {"ansible_connection": "local", "ansible_become": False, "vllm_gpus": 0, **ALL}
            variables |= {"ansible_python_interpreter": sys.executable, "llmops_address": "127.0.0.1"}
            variables |= {"llmops_backend_keys": [KEY], "vllm_releases_root": str(base / f"etc-{name}")}
            if name in fakes:
                variables |= {"vllm_port": fakes[name].port}
                serve(base / f"etc-{name}", env, site / "a")
        self.start("lb1", "lb2")

    def benchmark(self, *options: str, **given: object) -> ansible_once.Ended:
        variables = {"llmops_benchmark_recipe": RECIPE, "llmops_benchmark_pools": "chat", **given}
        return self.play("benchmark", "-e", json.dumps(variables), *options)

    def kept(self) -> list[dict[str, object]]:
        return [json.loads(path.read_text()) for path in sorted((self.base / "benchmarks").glob("*.json"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return lay_out(tmp_path_factory.mktemp("fake"))


@pytest.fixture
def fleet(tmp_path: pathlib.Path, site: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    with starter(site, request.node.name) as begin:
        quick = {"FAKE_VLLM_TTFT_MS": "5", "FAKE_VLLM_ITL_MS": "2"}
        fakes = {name: begin(quick) for name in ("gpu1", "gpu2")}
        made = Served(tmp_path, fakes, site)
        yield made
        made.stop(*made.agents)


def asked(fake: Fake) -> float:
    return fake.metric('vllm:prompt_tokens_total{engine="0",model_name="m"}')


def test_a_drained_replica_is_measured_twice_and_compared(fleet: Served) -> None:
    for agent in fleet.agents.values():
        agent.store.set(["gpu1/r0"], "drained", "measure", "alice")
    foreseen = fleet.benchmark("--check", llmops_benchmark_target="replica")
    assert foreseen.rc == 0, foreseen.out
    assert "LOAD ON PRODUCTION: gpu2 will measure gpu1/r0" in foreseen.out
    assert asked(fleet.fakes["gpu1"]) == 0 and fleet.kept() == []
    first = fleet.benchmark(llmops_benchmark_target="replica", llmops_benchmark_expected={})
    assert first.rc == 0, first.out
    assert "Against the last run: not comparable: it is the first run of baseline in pool chat" in first.out
    assert "no figure yet" in first.out and "24 answers" in first.out
    second = fleet.benchmark(
        llmops_benchmark_target="replica", llmops_benchmark_expected={"baseline": {"output_throughput": 0.001}}
    )
    assert second.rc == 0, second.out
    assert "better than expected" in second.out and "Against the last run (20" in second.out
    one, two = fleet.kept()
    assert one["figures"]["completed"] == 24 and two["last"]["with"]["time"] == one["time"]
    assert (two["measured"], two["client"], two["version"], two["target"]) == (["gpu1/r0"], "gpu2", VERSION, "replica")
    assert asked(fleet.fakes["gpu1"]) == 2 * 25 * 32 and asked(fleet.fakes["gpu2"]) == 0
    assert KEY not in first.out + second.out + json.dumps(fleet.kept())


def test_a_pool_is_measured_through_its_address_from_a_host_outside(fleet: Served) -> None:
    where = fleet.fakes["gpu1"].url
    none = fleet.benchmark(llmops_benchmark_url=where)
    assert none.rc != 0 and "no key of llmops_client_keys leads to chat" in " ".join(none.out.split())
    done = fleet.benchmark(llmops_benchmark_url=where, llmops_benchmark_key=KEY)
    assert done.rc == 0, done.out
    assert "Pool chat (2 replicas, release " in done.out and "48 answers" in done.out
    (kept,) = fleet.kept()
    assert (kept["client"], kept["replicas"], kept["measured"]) == ("gpu3", 2, ["gpu1/r0", "gpu2/r0"])
    assert asked(fleet.fakes["gpu1"]) == 50 * 32


@pytest.mark.parametrize(
    ("options", "given", "words"),
    [
        (("--limit", "gpu1"), {}, "--limit is gpu1: a benchmark must see every balancer"),
        ((), {"llmops_benchmark_pools": "chta"}, "llmops_benchmark_pools names chta, which is no pool: there are chat"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_host_is_asked(
    fleet: Served, options: tuple[str, ...], given: dict[str, object], words: str
) -> None:
    ended = fleet.benchmark(*options, **given)
    assert ended.rc != 0 and words in " ".join(ended.out.split())
    assert "(2/5)" not in ended.out


def test_a_sick_pool_and_one_in_a_rollout_are_left_alone(fleet: Served) -> None:
    fleet.agents["lb2"].store.take_lease("chat", "rollout 20260101T000000Z-1 bob@ops2 00000000.1.1", 120)
    fleet.fakes["gpu2"].kill()
    ended = fleet.benchmark(llmops_benchmark_url=fleet.fakes["gpu1"].url, llmops_benchmark_key=KEY)
    said = " ".join(ended.out.split())
    assert ended.rc != 0 and "(4/5)" not in ended.out
    assert "pool chat: lb2 says that rollout 20260101T000000Z-1 bob@ops2" in said and "a rollout runs" in said
    assert "pool chat: gpu2/r0 is down: GET http://127.0.0.1:" in said
    assert asked(fleet.fakes["gpu1"]) == 0
