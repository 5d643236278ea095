"""The flag catalogue: what it says, that it agrees with parsers, and that its files are what the tool makes."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest
import yaml
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import flags as _flags
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import probe, profiles
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import settings as vllm_settings
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.flag_history import REMOVED, SINCE

from tests.fakes.vllm.running import lay_out
from tools import flag_catalogue

ROOT = pathlib.Path(__file__).resolve().parents[2]
PINNED = yaml.safe_load((ROOT / "roles" / "vllm" / "defaults" / "main.yml").read_text())["vllm_version"]
INVENTORIES = sorted((ROOT / "inventories").rglob("*.yml")) + sorted((ROOT / "molecule").rglob("*.yml"))


def told(flags: dict[str, Any], version: str = "0.32.0") -> list[str]:
    return [f"{found['message']}: {found['mend']}" for found in _flags.problems(flags, version)]


# --- findings


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"max-nun-seqs": 16}, "max-nun-seqs is unknown to vLLM 0.32.0: write max-num-seqs"),
        ({"quux": False}, "quux is unknown to vLLM 0.32.0; vLLM drops an unknown key that is false without a word"),
        ({"swap_space": 4}, "unknown to vLLM 0.32.0: it was removed after 0.17.1: use kv-offloading-size (GiB"),
        ({"task": "embed"}, "it was removed after 0.12.0: use runner, and convert where a generative model"),
        ({"watchdog-config": {"timeout": 60}}, "it came with 0.33.0: upgrade vLLM to 0.33.0 or later, or leave"),
        ({"disable-log-requests": True}, "it was removed after 0.16.0: remove it"),
        ({"disable-prefix-caching": True}, "is unknown to vLLM 0.32.0: write enable-prefix-caching: false"),
        ({"max-num-b": 4096}, "max-num-b is an abbreviation; vLLM accepts it only until another flag begins alike"),
        ({"tp": 2}, "tp is a short form, which a configuration file cannot hold: write tensor-parallel-size"),
        ({"q": "awq"}, "q is a short form, which a configuration file cannot hold: write quantization"),
        ({"max-model-len": None}, "max-model-len is null, which vLLM reads as the text 'None'"),
        ({"enforce-eager": "yes"}, "enforce-eager is a switch; vLLM would take the value after it for the name"),
        ({"dtype": True}, "dtype needs a value, found true: give dtype its value"),
        ({"max-num-seqs": [1, 2]}, "max-num-seqs takes one value, found a list of 2: give one value"),
        ({"max-num-seqs": "many"}, 'max-num-seqs takes a whole number, found "many": give max-num-seqs a whole number'),
        ({"max-num-seqs": 8.0}, "max-num-seqs takes a whole number, found 8.0"),
        ({"max-num-seqs": "8k"}, 'max-num-seqs takes a whole number, found "8k"'),
        ({"max-num-seqs": {"a": 1}}, 'max-num-seqs takes a whole number, found {"a": 1}'),
        ({"cudagraph-capture-sizes": [1, "x"]}, 'cudagraph-capture-sizes takes a whole number, found [1, "x"]'),
        ({"gpu-memory-utilization": "most"}, 'gpu-memory-utilization takes a number, found "most"'),
        ({"max-model-len": "8Q"}, "or a size such as 8k (8000) or 8K (8192), or auto, found"),
        ({"max-num-batched-tokens": "1.5K"}, "max-num-batched-tokens takes a whole number or a size"),
        (
            {"max-num-batched-tokens": "auto"},
            "max-num-batched-tokens takes a whole number or a size such as 8k (8000) or 8",
        ),
        ({"compilation-config": "fast"}, 'compilation-config takes a mapping, found "fast": give compilation-config a'),
        ({"compilation-config": "[3]"}, 'compilation-config takes a mapping, found "[3]"'),
        ({"compilation-config": {"mod": 3}}, "mod is no key of compilation-config in vLLM 0.32.0: write mode"),
        ({"compilation-config.mod": 3}, "mod is no key of compilation-config in vLLM 0.32.0: write mode"),
        ({"quantization-config": {"q": 1}}, "remove it: quantization-config takes ignore, linear, moe, targets"),
        ({"speculative-config": "{model: x}"}, 'speculative-config takes JSON, found "{model: x}"'),
        ({"hf-overrides": "{a}"}, 'hf-overrides takes a text or a mapping, found "{a}"'),
        ({"allowed-origins": ["https://example.org"]}, 'allowed-origins takes JSON, found ["https://example.org"]'),
        ({"max-num-seqs.a": 3}, "max-num-seqs.a: max-num-seqs takes no keys: write max-num-seqs"),
        ({"enforce-eager.a": True}, "enforce-eager.a: enforce-eager takes no keys: write enforce-eager"),
        ({"kv-cache-dtype": "fp9"}, "invalid choice: 'fp9' (choose from 'auto', 'bfloat16', 'float16', 'fp8'"),
        ({"performance-mode": "interactive"}, "'throughput'): write interactivity"),
        ({"max-lora-rank": 24}, "invalid choice: 24 (choose from 1, 8, 16,"),
        ({"moe-backend": "warp"}, "invalid choice: 'warp' (choose from 'aiter'"),
        ({"gpu-memory-utilization": 1.7}, "gpu-memory-utilization must be 1 or less, found 1.7: lower gpu-memory"),
        (
            {"gpu-memory-utilization": 0},
            "gpu-memory-utilization must be above 0, found 0: raise gpu-memory-utilization",
        ),
        ({"watermark": "1"}, 'watermark must be below 1, found "1": lower watermark, or leave it out'),
        ({"stream-interval": 0}, "stream-interval must be 1 or more, found 0: raise stream-interval, or leave it out"),
        ({"max-num-seqs": 0}, "max-num-seqs must be 1 or more, found 0: raise max-num-seqs, or leave it out"),
        ({"max-model-len": -2}, "max-model-len must be -1 or more, found -2"),
    ],
)
def test_what_is_wrong_is_told_with_the_mend(flags: dict[str, Any], words: str) -> None:
    found = told({"port": 8000, **flags})
    assert len(found) == 1 and words in found[0], found


def test_a_finding_names_flag_and_value_as_the_check_on_the_host_does() -> None:
    assert _flags.problems({"max_num_seqs": "many", "tp": 2}, "0.32.0") == [
        probe.error(
            "tp", 2, "tp is a short form, which a configuration file cannot hold", "write tensor-parallel-size"
        ),
        probe.error(
            "max-num-seqs",
            "many",
            'max-num-seqs takes a whole number, found "many"',
            "give max-num-seqs a whole number",
        ),
    ]


@pytest.mark.parametrize(
    "flags",
    [
        {"max-model-len": "8k"},
        {"max-model-len": "16K"},
        {"max-model-len": "25.6k"},
        {"max-model-len": "auto"},
        {"max-model-len": -1},
        {"max_num_seqs": "8192"},
        {"kv-cache-memory-bytes": "80g"},
        {"max-num-queued-reqs": "None"},
        {"served-model-name": ["a", "b"]},
        {"served-model-name": "a"},
        {"max-num-seqs": [4]},
        {"seed": "-3"},
        {"gpu-memory-utilization": 1},
        {"device-memory-utilization": 0.9},
        {"no-enable-prefix-caching": True},
        {"enable-prefix-caching": False},
        {"disable-log-stats": False},
        {"hf-token": True},
        {"compilation-config": {"mode": 3}},
        {"compilation-config": '{"max_cudagraph_capture_size": 1k}'},
        {"compilation-config.mode": 3},
        {"compilation-config.cudagraph_capture_sizes+": "1,2"},
        {"speculative-config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"speculative-config.model": "x"},
        {"hf-overrides": {"rope_parameters": {}}},
        {"kv-transfer-config": "None"},
        {"allowed-origins": '["*"]'},
        {"moe-backend": "Batched-Triton"},
        {"reasoning-parser": "of_a_plugin"},
        {"tool-call-parser": "of_a_plugin"},
        {"load-format": "of_a_plugin"},
        {"quantization": "of_a_plugin"},
        {"lora-modules": ["a=/srv/a"]},
        {"max-lora-rank": "16"},
        {"max-cpu-loras": 0},
        {"served-model-name": []},
    ],
)
def test_no_false_alarm(flags: dict[str, Any]) -> None:
    assert told(flags) == []


def test_the_same_flag_is_judged_by_the_version() -> None:
    assert told({"disable-log-requests": True, "watchdog-config": {}}, "0.33.0") == []
    assert told({"disable-log-requests": False}, "0.33.0") == [
        "vLLM drops disable-log-requests: false silently: write enable-log-requests: true"
    ]
    assert told({"max-num-partial-prefills": 2}, "0.26.0") == []
    assert "removed after 0.26.0" in told({"max-num-partial-prefills": 2}, "0.27.0")[0]
    assert "it came with 0.29.0" in told({"max-num-queued-reqs": 9}, "0.28.0")[0]


# --- versions


def test_published_builds_count_as_their_version_and_others_are_refused_with_the_reason() -> None:
    for version in ("0.32.0", "0.32.0+cpu", "0.32.0+cu129", "0.32.0+rocm700"):
        known = _flags.catalogue(version)
        assert known is not None and known.version == "0.32.0" and _flags.why_not(version) == ""
    for version, words in (
        ("0.32.0+acme3", "vLLM 0.32.0+acme3 is a build of its own (acme3): only its own parser knows its flags"),
        ("0.12.0", f"the flags of vLLM 0.12.0 are not catalogued: known are {', '.join(_flags.versions())}"),
    ):
        assert _flags.catalogue(version) is None and _flags.why_not(version) == words
        with pytest.raises(_flags.FlagsError, match="vLLM 0."):
            _flags.problems({}, version)


def test_supported_are_the_versions_with_a_file_oldest_first() -> None:
    assert _flags.versions() == ["0.26.0", "0.27.0", "0.27.1", *(f"0.{minor}.0" for minor in range(28, 34))]
    assert PINNED in _flags.versions()


def test_a_fleet_of_200_is_judged_in_the_blink_of_an_eye() -> None:
    settings = {flag.name: flag.value for flag in profiles.PROFILES["long_context"].flags}
    _flags.catalogue(PINNED)
    began = time.process_time()
    for _turn in range(200):
        _flags.problems(settings, PINNED)
    assert time.process_time() - began < 0.5


# --- our own flags


def own_flags() -> dict[str, dict[str, Any]]:
    """Everything that profiles, inventories and the role itself set, by where it stands."""
    found: dict[str, dict[str, Any]] = {}
    for profile in profiles.PROFILES.values():
        found[profile.name] = {flag.name: flag.value for flag in (*profiles.COMMON, *profile.flags)}
    for path in INVENTORIES:
        for document in yaml.safe_load_all(path.read_text()):
            given = document.get("vllm_flags") if isinstance(document, dict) else None
            if given:
                found[str(path.relative_to(ROOT))] = given
    replica = {"name": "r0", "address": "192.0.2.1", "port": 8000, "model_name": "m", "model_revision": "a" * 40}
    replica |= {"tensor_parallel_size": 1, "gpus": [0], "profile": "streaming"}
    found["role"] = vllm_settings.settings([replica])[0]["settings"]
    return found


@pytest.mark.parametrize("version", _flags.versions())
@pytest.mark.parametrize("where", sorted(own_flags()))
def test_every_flag_that_we_set_passes_wherever_it_exists(where: str, version: str) -> None:
    known = _flags.catalogue(version)
    assert known is not None
    flags = {name: value for name, value in own_flags()[where].items() if f"--{name}" in known.options}
    assert flags and told(flags, version) == []


@pytest.mark.parametrize("where", sorted(own_flags()))
def test_every_flag_that_we_set_is_in_the_pinned_version(where: str) -> None:
    assert told(own_flags()[where], PINNED) == []


def test_inventories_with_flags_were_found() -> None:
    assert [where for where in own_flags() if where.startswith("inventories/")]


# --- the tool, on the fake vLLM whose parser is a real argparse parser


def environment(base: pathlib.Path) -> pathlib.Path:
    """An environment whose Python imports the fake vLLM laid out in base."""
    python = base / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH={base}/site exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return base / "env"


@pytest.fixture(scope="module")
def fake_env(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return environment(lay_out(tmp_path_factory.mktemp("fake")))


def made(env: pathlib.Path) -> dict[str, Any]:
    return flag_catalogue.with_history(flag_catalogue.document(flag_catalogue.described(env), "fake"))


def test_the_same_parser_gives_the_same_bytes(fake_env: pathlib.Path) -> None:
    first, second = (flag_catalogue.text(made(fake_env)) for _turn in range(2))
    assert first == second
    document = json.loads(first)
    assert document["version"] == "0.32.0" and document["made_from"] == "parser"
    assert document["flags"]["max-model-len"] == {"default": None, "kind": "value", "since": "", "type": "size"}
    assert document["flags"]["max-lora-rank"]["choices"] == [1, 8, 16, 32, 64, 128, 256, 320, 512]
    assert document["gone"]["swap-space"]["gone"] == "0.17.1"


CASES = [
    {"max-num-seqs": value} for value in (4, "4", "4k", "x", 1.5, True, False, [4], [4, 5], {"a": 1}, "", " 4 ", "1_0")
]
CASES += [{"max-model-len": value} for value in (1024, "1k", "1K", "1.5k", "k", "x", -1)]
CASES += [{"gpu-memory-utilization": value} for value in (0.9, "0.9", 1, "most", [0.5], {})]
CASES += [{"performance-mode": value} for value in ("balanced", "fast", ["balanced"], 3)]
CASES += [{"max-lora-rank": value} for value in (16, "16", 24, "x")]
CASES += [{"served-model-name": value} for value in ("a", ["a", "b"], 7)]
CASES += [{"compilation-config": value} for value in ({"mode": 3}, '{"mode": 3}', "{mode}", 3, "fast", [1])]
CASES += [{"enforce-eager": True}, {"enforce-eager": False}, {"no-enforce-eager": True}, {"max_num_seqs": 4}]
CASES += [{"max-num-seq-s": 4}, {"quux": 1}, {"swap-space": 4}, {"dtype": "half"}, {"dtype": 3}]


@pytest.fixture(scope="module")
def verdicts(fake_env: pathlib.Path) -> list[str]:
    """What the fake's parser, asked through the probe, says to each case; empty where it is taken."""
    script = """
import importlib.util, json, sys
from tools.flag_dump import load_probe
probe = load_probe(sys.argv[1])
judge = probe.Judge(probe.History({}, {}))
found = []
for case in json.loads(sys.argv[2]):
    errors, rest = probe.check_keys(case, judge.options, judge.version, judge.history)
    try:
        judge.parse(rest)
    except (probe.ParserRefused, ValueError) as problem:
        errors.append(str(problem))
    found.append(str(errors[0]) if errors else "")
print(json.dumps(found))
"""
    command = [str(fake_env / "bin" / "python"), "-c", script, str(flag_catalogue.PROBE), json.dumps(CASES)]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_catalogue_agrees_with_the_parser_that_it_was_made_from(
    fake_env: pathlib.Path, verdicts: list[str]
) -> None:
    known = _flags.from_document(made(fake_env))
    different = [
        (case, verdict, found)
        for case, verdict in zip(CASES, verdicts)
        if bool(found := _flags.judge(case, known)) != bool(verdict)
    ]
    assert different == []
    assert 20 < len([verdict for verdict in verdicts if verdict]) < len(CASES) - 20


def test_a_default_that_depends_on_the_surroundings_is_left_out(tmp_path: pathlib.Path) -> None:
    base = lay_out(tmp_path)
    launcher = base / "site" / "vllm" / "entrypoints" / "launchers" / "cli_args.py"
    machine = ["len(os.sched_getaffinity(0)) ** hash('x')", "os.environ['HOME']", "os.getcwd() + '/x'"]
    added = [f'    parser.add_argument("--own-{n}", default={default})' for n, default in enumerate(machine)]
    text = launcher.read_text().replace("import json\n", "import json\nimport os\n", 1)
    launcher.write_text(text.replace("    return parser\n", "\n".join([*added, "    return parser\n"])))
    flags = flag_catalogue.described(environment(base))["flags"]
    assert [flags[f"own-{n}"]["default"] for n in range(3)] == [None, None, None]
    assert flags["port"]["default"] == 8000


# --- what is stored


def test_files_and_page_are_what_the_tool_writes() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in flag_catalogue.wanted(flag_catalogue.stored()).items()
        if path.read_text() != text
    ]
    assert stale == [], "run `python -m tools.flag_catalogue`"


def test_the_history_says_what_the_parsers_show() -> None:
    assert flag_catalogue.unexplained(flag_catalogue.stored()) == []


def test_a_change_that_the_history_does_not_know_is_refused_by_name() -> None:
    newest = flag_catalogue.stored()[-1]
    flags = {**newest["flags"], "brand-new": {"kind": "switch"}}
    del flags["max-num-seqs"]
    assert flag_catalogue.unexplained([newest, {**newest, "version": "0.99.0", "flags": flags}]) == [
        "brand-new came with 0.99.0: add it to CAME",
        f"max-num-seqs was last in {newest['version']}: add it to REMOVED with what to do today",
    ]


def test_what_is_gone_points_at_flags_that_exist() -> None:
    newest = _flags.catalogue(_flags.versions()[-1])
    assert newest is not None
    for name, (_last, successor) in REMOVED.items():
        if successor.startswith("use "):
            flag = successor.split()[1].strip(",:")
            assert f"--{flag}" in newest.options, name
    assert not set(REMOVED) & set(newest.flags)
    assert set(SINCE) - set(REMOVED) <= set(newest.flags)
