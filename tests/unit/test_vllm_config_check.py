from __future__ import annotations

import argparse
import json
import os
import pathlib
import tempfile
import time

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._vllm import probe
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.flag_history import REMOVED, SINCE

HISTORY = probe.History(REMOVED, SINCE)


@pytest.fixture
def options():
    """Options in every shape that vLLM's parser has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--compilation-config", "-cc", type=json.loads)
    parser.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)
    parser.add_argument("--disable-log-stats", action="store_true")
    parser.add_argument("--hf-token", nargs="?", const=True)
    parser.add_argument("--config")
    return probe.options_of(parser)


@pytest.mark.parametrize(
    ("key", "value", "message", "mend"),
    [
        ("quux-flag", 3, "quux-flag is unknown to vLLM 0.32.0", "remove it"),
        ("max-nun-seqs", 16, "max-nun-seqs is unknown to vLLM 0.32.0", "write max-num-seqs"),
        (
            "swap_space",
            4,
            "swap-space is unknown to vLLM 0.32.0: it was removed after 0.17.1",
            "use kv-offloading-size (GiB of host memory for the KV cache)",
        ),
        ("disable-log-requests", False, "it was removed after 0.16", "remove it: requests are not logged"),
        ("no-such-key", False, "vLLM drops an unknown key that is false without a word", "remove it"),
        ("max-num-b", 4096, "max-num-b is an abbreviation", "write max-num-batched-tokens"),
        ("max-num-seqs", None, "max-num-seqs is null, which vLLM reads as the text 'None'", "leave max-num-seqs out"),
        ("tp", 2, "tp is a short form, which a configuration file cannot hold", "write tensor-parallel-size"),
        ("cc", {"mode": 3}, "cc is a short form", "write compilation-config"),
        ("max-num-seqs", False, "found false, which vLLM drops silently", "leave max-num-seqs out"),
        ("max-num-seqs", True, "max-num-seqs needs a value, found true", "give max-num-seqs its value"),
        ("max-num-seqs", [1, 2], "max-num-seqs takes one value, found a list of 2", "give one value"),
        ("max-num-seqs", -1, "max-num-seqs must be 1 or more, found -1", "raise max-num-seqs"),
        ("no-enable-prefix-caching", False, "vLLM drops no-enable-prefix-caching: false silently", "write enable-"),
        ("enable-prefix-caching", "yes", "would take the value after it for the name of a model", "true or"),
        ("disable-log-stats", "true", "disable-log-stats is a switch", "write disable-log-stats: true"),
        ("disable-prefix-caching", True, "is unknown to vLLM 0.32.0", "write enable-prefix-caching: false"),
        ("enable-log-stats", True, "enable-log-stats is unknown to vLLM 0.32.0", "write disable-log-stats"),
        ("watchdog-config", {}, "unknown to vLLM 0.32.0: it came with 0.33.0", "upgrade vLLM to 0.33.0 or later, or"),
        ("hf-token", False, "hf-token needs a value, found false, which vLLM drops silently", "leave hf-token out"),
        ("hf-token", ["a", "b"], "hf-token takes one value, found a list of 2", "give one value"),
        ("config", "/x.yaml", "config cannot stand inside the configuration file", "remove it"),
    ],
)
def test_what_is_wrong_with_a_name_is_told_with_the_mend(options, key, value, message, mend):
    errors, rest = probe.check_keys({key: value, "max-model-len": 5}, options, "0.32.0", HISTORY)
    assert len(errors) == 1 and rest == {"max-model-len": 5}
    assert message in errors[0]["message"] and mend in errors[0]["mend"]
    assert errors[0]["flag"] == key.replace("_", "-") and errors[0]["value"] == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_num_seqs", 16),
        ("max-num-seqs", "8k"),
        ("max-model-len", -1),
        ("served-model-name", ["a", "b"]),
        ("max-num-seqs", [4]),
        ("enable_prefix_caching", False),
        ("no-enable-prefix-caching", True),
        ("disable-log-stats", False),
        ("compilation-config", {"mode": 3}),
        ("compilation-config.mode", 3),
        ("hf-token", True),
        ("hf-token", "hf_x"),
    ],
)
def test_both_spellings_and_every_shape_of_value_are_accepted(options, key, value):
    errors, rest = probe.check_keys({key: value}, options, "0.32.0", HISTORY)
    assert errors == [] and rest == {key.replace("_", "-"): value}


class EnableDisable(argparse.BooleanOptionalAction):
    """As vLLM 0.33 pairs its flags: a second negation is shown, the first one stays and is hidden."""

    def __init__(self, option_strings, dest, **rest):
        super().__init__(option_strings, dest, **rest)
        self.option_strings = [*self.option_strings, *(name.replace("enable", "disable") for name in option_strings)]


def test_a_negation_that_is_false_is_told_also_where_vllm_pairs_enable_with_disable():
    parser = argparse.ArgumentParser()
    shown = parser.add_argument("--enable-lora", action=EnableDisable)
    shown.option_strings = ["--enable-lora", "--disable-lora"]
    options = probe.options_of(parser)
    for good in ({"enable-lora": False}, {"disable-lora": True}, {"no-enable-lora": True}):
        assert probe.check_keys(good, options, "0.33.0", HISTORY) == ([], good)
    for name in ("disable-lora", "no-enable-lora"):
        errors, _unused = probe.check_keys({name: False}, options, "0.33.0", HISTORY)
        assert errors == [
            probe.error(name, False, f"vLLM drops {name}: false silently", "write enable-lora: true"),
        ]


def test_a_flag_given_in_both_spellings_is_told(options):
    errors, _unused = probe.check_keys({"max-num-seqs": 1, "max_num_seqs": 2}, options, "0.32.0", HISTORY)
    assert "given twice" in errors[0]["message"]


PYDANTIC = (
    "1 validation error for ModelConfig\n  Value error, User-specified max_model_len (99999) is greater than the "
    "derived max_model_len (max_position_embeddings=2048.0 or model_max_length=None in model's config.json). To allow "
    "overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be "
    "used with extreme caution. [type=value_error, input_value=ArgsKwargs((), {'model': 'm'}), input_type=ArgsKwargs]\n"
    "    For further information visit https://errors.pydantic.dev/2.12/v/value_error"
)
PARSERS = "apertus,deepseek_r1,deepseek_v3,hermes,llama3_json,llama4_pythonic,mistral," + ",".join(
    f"p{n}" for n in range(99)
)


@pytest.mark.parametrize(  # messages as vLLM 0.32.0 gave them
    ("raw", "settings", "flag", "message", "mend"),
    [
        (
            PYDANTIC,
            {"max-model-len": 99999},
            "max-model-len",
            "User-specified max_model_len (99999) is greater than the derived max_model_len "
            "(max_position_embeddings=2048.0 or model_max_length=None in model's config.json).",
            "set max-model-len to 2048 or less",
        ),
        (
            "Total number of attention heads (4) must be divisible by tensor parallel size (3).",
            {"tensor-parallel-size": 3},
            "tensor-parallel-size",
            "Total number of attention heads (4) must be divisible by tensor parallel size (3).",
            "set tensor-parallel-size to a divisor of 4, or take a model with other heads",
        ),
        (
            "argument --max-num-seqs: invalid int value: 'abc'",
            {"max-num-seqs": "abc"},
            "max-num-seqs",
            "invalid int value: 'abc'",
            "give a number",
        ),
        (
            "argument --kv-cache-dtype: invalid choice: 'fp9' (choose from 'auto', 'bfloat16', 'fp8')",
            {"kv-cache-dtype": "fp9"},
            "kv-cache-dtype",
            "invalid choice: 'fp9' (choose from 'auto', 'bfloat16', 'fp8')",
            "take one of the choices named in the message",
        ),
        (
            "argument --performance-mode: invalid choice: 'interactive' (choose from 'balanced', 'interactivity')",
            {"performance-mode": "interactive"},
            "performance-mode",
            "invalid choice: 'interactive' (choose from 'balanced', 'interactivity')",
            "write interactivity",
        ),
        (
            f"invalid tool call parser: llama_json (chose from {{ {PARSERS} }})",
            {"enable-auto-tool-choice": True, "tool-call-parser": "llama_json"},
            "tool-call-parser",
            None,
            "write llama3_json",
        ),
        (
            "Reasoning parser 'deepseek_r2' not found. Available parsers: deepseek_r1, deepseek_v3, qwen3",
            {"reasoning-parser": "deepseek_r2"},
            "reasoning-parser",
            "Reasoning parser 'deepseek_r2' not found. Available parsers: deepseek_r1, deepseek_v3, qwen3",
            "write deepseek_r1 or write deepseek_v3",
        ),
        (
            "Error: --enable-auto-tool-choice requires --tool-call-parser",
            {"enable-auto-tool-choice": True},
            "enable-auto-tool-choice",
            "--enable-auto-tool-choice requires --tool-call-parser",
            "set tool-call-parser, or remove enable-auto-tool-choice",
        ),
        (
            "argument --compilation-config/-cc: 1 validation error for CompilationConfig\nmod\n  Unexpected keyword "
            "argument [type=unexpected_keyword_argument, input_value=3, input_type=int]",
            {"compilation-config": {"mod": 3}},
            "compilation-config",
            "mod Unexpected keyword argument",
            "remove the key that the message names",
        ),
        (
            "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (16).",
            {"max-num-seqs": 16, "max-num-batched-tokens": 8},
            "max-num-batched-tokens",
            "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (16).",
            "raise max-num-batched-tokens or lower max-num-seqs",
        ),
        (
            "gpu_memory_utilization: Input should be less than or equal to 1",
            {"gpu-memory-utilization": 1.7},
            "gpu-memory-utilization",
            "gpu_memory_utilization: Input should be less than or equal to 1",
            "set it to 1 or less",
        ),
        (
            "Cannot find the config file for awq",
            {"quantization": "awq"},
            "quantization",
            "Cannot find the config file for awq",
            "the model is not quantized with awq: remove quantization",
        ),
        (
            "Sleep mode is not supported on current platform.",
            {"enable-sleep-mode": True},
            "enable-sleep-mode",
            "Sleep mode is not supported on current platform.",
            "remove enable-sleep-mode: this platform cannot do it",
        ),
        ("something quite new", {"port": 1}, "", "something quite new", "leave it out to get vLLM's default"),
    ],
)
def test_the_useful_line_of_a_message_with_flag_and_mend(raw, settings, flag, message, mend):
    found = probe.finding(raw, settings)
    assert found["flag"] == flag and found["value"] == settings.get(flag)
    assert mend in found["mend"]
    assert message is None or found["message"] == message
    assert len(found["message"]) <= probe.MESSAGE_LIMIT


def test_one_configuration_does_not_colour_the_next():
    class Parser:
        default = {"reasoning_parser": ""}

        def parse_args(self, words):
            assert words[0] == "--config" and json.loads(pathlib.Path(words[1]).read_text()) == {"port": 1}
            return argparse.Namespace(structured_outputs_config=self.default)

    judge = probe.Judge.__new__(probe.Judge)
    judge.parser = Parser()
    judge.parse({"port": 1}).structured_outputs_config["reasoning_parser"] = "written by vLLM"
    assert judge.parse({"port": 1}).structured_outputs_config == {"reasoning_parser": ""}


def model(tmp_path, **files):
    directory = tmp_path / "model"
    directory.mkdir()
    for name, mode in {"config.json": 0o644, **files}.items():
        (directory / name.replace("_safetensors", ".safetensors")).write_text("{}")
        (directory / name.replace("_safetensors", ".safetensors")).chmod(mode)
    return directory


def test_a_model_that_is_missing_or_incomplete_is_told(tmp_path):
    assert probe.weights_problem({"model": str(model(tmp_path))}, "vllm") is None
    assert probe.weights_problem({"model": "org/name"}, "vllm") is None
    (tmp_path / "empty").mkdir()
    for path, words in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "empty", "holds no config.json"),
        (tmp_path / "model" / "config.json", "is not a directory"),
    ):
        assert words in probe.weights_problem({"model": str(path)}, "vllm")["message"]
    assert "no model is named" in probe.weights_problem({}, "vllm")["message"]


@pytest.mark.parametrize("spelling", ["fr={}", '{{"name": "fr", "path": "{}", "base_model_name": "m"}}'])
def test_an_adapter_that_is_missing_or_incomplete_is_told(tmp_path, spelling):
    adapter = tmp_path / "adapter"
    settings = {"model": str(model(tmp_path)), "lora_modules": ["hub=org/name", spelling.format(adapter)]}
    missing = probe.weights_problem(settings, "vllm")
    assert missing["flag"] == "lora-modules" and missing["value"] == f"fr={adapter}"
    assert f"adapter directory {adapter} does not exist" in missing["message"]
    adapter.mkdir()
    assert "holds no adapter_config.json" in probe.weights_problem(settings, "vllm")["message"]
    (adapter / "adapter_config.json").write_text("{}")
    assert probe.weights_problem(settings, "vllm") is None


def test_an_adapter_without_lora_is_told():
    (found,) = probe.adapter_errors({"lora-modules": "fr=/srv/fr"}, None)
    assert (found["value"], found["mend"]) == ("fr=/srv/fr", "write enable-lora: true")


@pytest.mark.parametrize(
    ("said", "mend"),
    [
        ("LoRA rank 64 is greater than max_lora_rank 16.", "set max-lora-rank to 64, or to the next of"),
        ("vLLM does not yet support DoRA.", "convert the adapter to a plain LoRA"),
        ("Missing required configuration fields: {'r'}", "complete the adapter's adapter_config.json"),
    ],
)
def test_what_vllm_says_of_an_adapter_has_a_mend(said, mend):
    assert mend in probe.mend_for(said)


# --- the process around it, with a Python that is no vLLM

FAKE = """#!/bin/sh
echo run >> {log}
exec python3 - <<'END'
{body}
END
"""


@pytest.fixture
def env(tmp_path):
    """Writes an environment whose ``bin/python`` runs another program; tells how often it was run."""
    log = tmp_path / "runs"
    directory = tmp_path / "env"
    (directory / "bin").mkdir(parents=True)

    def write(body):
        python = directory / "bin" / "python"
        python.write_text(FAKE.format(log=log, body=body))
        python.chmod(0o755)
        return str(directory)

    write.runs = lambda: len(log.read_text().splitlines()) if log.exists() else 0
    write.path = directory
    return write


def answers(*lines):
    return "\n".join(f"print({json.dumps(json.dumps(line))})" for line in lines)


def one(tmp_path, **settings):
    if not (tmp_path / "model").exists():
        model(tmp_path)
    return {"name": "r0", "settings": {"model": str(tmp_path / "model"), **settings}}


GOOD = answers({"stage": "import"}, {"name": "r0", "errors": [], "effective": {"max_model_len": 1024}})


def test_a_good_result_is_remembered_and_costs_nothing_the_second_time(run_module, env, tmp_path):
    args = {"env": env(GOOD), "configs": [one(tmp_path)], "cache_dir": str(tmp_path / "cache"), "gpu_type": "H100"}
    first = run_module("vllm_config_check", args)
    assert first["ok"] and first["checked"] and not first["changed"] and not first["results"][0]["cached"]
    began = time.monotonic()
    second = run_module("vllm_config_check", args)
    assert time.monotonic() - began < 1 and env.runs() == 1
    assert second["results"][0]["cached"] and second["results"][0]["effective"] == {"max_model_len": 1024}


@pytest.mark.parametrize("what", ["settings", "model", "adapter", "gpu_type", "driver", "env", "variables", "user"])
def test_whatever_could_change_the_verdict_asks_anew(run_module, env, tmp_path, what):
    adapter = tmp_path / "adapter" / "adapter_config.json"
    adapter.parent.mkdir()
    adapter.write_text("{}")
    configs = [one(tmp_path, **{"lora-modules": [f"fr={adapter.parent}"]})]
    args = {"env": env(GOOD), "configs": configs, "cache_dir": str(tmp_path / "cache")}
    (env.path / ".llmops-complete").write_text("digest-1")
    run_module("vllm_config_check", args)
    if what == "settings":
        args["configs"] = [one(tmp_path, port=8001)]
    elif what == "model":
        (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    elif what == "adapter":
        adapter.write_text('{"r": 8}')
    elif what == "env":
        (env.path / ".llmops-complete").write_text("digest-2")
    elif what == "variables":
        args["configs"][0]["environment"] = {"VLLM_X": "1"}
    else:
        args[what] = "root" if what == "user" else "other"
    assert not run_module("vllm_config_check", args)["results"][0]["cached"] and env.runs() == 2


def test_a_bad_result_fails_with_words_and_is_not_remembered(run_module, env, tmp_path):
    found = probe.error("max-num-seqs", "abc", "invalid int value: 'abc'", "give a number")
    args = {
        "env": env(answers({"name": "r0", "errors": [found], "effective": {}})),
        "configs": [one(tmp_path)],
        "cache_dir": str(tmp_path / "cache"),
    }
    result = run_module("vllm_config_check", args)
    assert result.failed and result["msg"] == "r0: max-num-seqs=\"abc\": invalid int value: 'abc': give a number"
    reported = run_module("vllm_config_check", {**args, "report_only": True})
    assert not reported.failed and not reported["ok"] and env.runs() == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (answers({"stage": "import"}) + "\nimport sys; sys.exit(3)", "ended with code 3 while vLLM was imported"),
        ("import sys; sys.exit('Killed by something')", "while Python started: Killed by something"),
        (
            answers({"stage": "import"}, {"broken": "ImportError: libnuma.so.1: cannot open"}),
            "cannot be imported: ImportError: libnuma.so.1: cannot open: install the environment again",
        ),
        ("print('not json')", "ended with code 0 while Python started: it said nothing"),
    ],
)
def test_a_check_that_breaks_says_where(run_module, env, tmp_path, body, words):
    result = run_module("vllm_config_check", {"env": env(body), "configs": [one(tmp_path)]})
    assert result.failed and words in result["msg"]


def test_a_check_that_hangs_is_ended_with_all_its_children(run_module, env, tmp_path):
    pid_file = tmp_path / "pid"
    body = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        'print(\'{"stage": "import"}\', flush=True)\n'
        'print(\'{"stage": "r0"}\', flush=True)\n'
        "time.sleep(60)"
    )
    began = time.monotonic()
    result = run_module("vllm_config_check", {"env": env(body), "configs": [one(tmp_path)], "timeout": 1})
    assert time.monotonic() - began < 10
    assert "the check did not end within 1 s; it stood at the configuration r0: raise timeout" in result["msg"]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _alive(int(pid_file.read_text())):
        time.sleep(0.05)
    assert not _alive(int(pid_file.read_text()))


def _alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_check_mode_on_a_bare_host_says_not_checked_and_never_ok(run_module, tmp_path):
    args = {"env": str(tmp_path / "none"), "user": "no-such-user", "configs": [one(tmp_path)]}
    result = run_module("vllm_config_check", args, check=True)
    assert not result.failed and result["skipped"]
    assert (result["ok"], result["checked"]) == (False, False)
    assert result["msg"] == f"not checked: the environment {tmp_path}/none does not exist yet"
    assert "install the environment" in run_module("vllm_config_check", args)["msg"]


def test_check_mode_without_the_model_says_not_checked_and_writes_nothing(run_module, env, tmp_path):
    without = {"r1": {"model": "/srv/none"}, "r2": {**one(tmp_path)["settings"], "lora-modules": ["fr=/srv/none"]}}
    configs = [one(tmp_path), *({"name": name, "settings": settings} for name, settings in without.items())]
    args = {"env": env(GOOD), "configs": configs, "cache_dir": str(tmp_path / "cache")}
    result = run_module("vllm_config_check", args, check=True)
    assert [(r["ok"], r["checked"]) for r in result["results"]] == [(True, True), (False, False), (False, False)]
    assert not result["ok"] and "not all weights of r1, r2 are on this host yet" in result["msg"]
    assert not (tmp_path / "cache").exists()


def test_two_configurations_of_one_name_and_an_unknown_user_are_refused(run_module, env, tmp_path):
    args = {"env": env(GOOD), "configs": [one(tmp_path), one(tmp_path)]}
    assert "configs names r0 more than once" in run_module("vllm_config_check", args)["msg"]
    if os.geteuid() == 0:
        args = {**args, "configs": [one(tmp_path)], "user": "no-such-user"}
        assert "user no-such-user does not exist" in run_module("vllm_config_check", args)["msg"]


# --- the real probe under a real Python without vLLM: everything that is said before the import


@pytest.fixture
def python_env(tmp_path):
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to("/usr/bin/python3")
    return str(tmp_path / "env")


def test_the_probe_tells_of_the_model_before_it_imports_vllm(run_module, python_env, tmp_path):
    configs = [{"name": "r0", "settings": {"model": str(tmp_path / "none")}}]
    result = run_module("vllm_config_check", {"env": python_env, "configs": configs})
    assert result.failed
    assert f'r0: model="{tmp_path}/none": model directory {tmp_path}/none does not exist' in result["msg"]


def test_an_environment_without_vllm_is_told(run_module, python_env, tmp_path):
    result = run_module("vllm_config_check", {"env": python_env, "configs": [one(tmp_path)]})
    assert "cannot be imported" in result["msg"] and "vllm.entrypoints" in result["msg"]


@pytest.fixture
def open_path():
    """A directory that every user may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as path:
        pathlib.Path(path).chmod(0o755)
        yield pathlib.Path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("blocked", "words"),
    [
        ("directory", "user nobody may not read the model directory"),
        ("config.json", "config.json (mode 0600): make the files of the model readable"),
        ("model.safetensors", "model.safetensors (mode 0600)"),
    ],
)
def test_a_model_that_the_service_user_may_not_read(run_module, open_path, blocked, words):
    (open_path / "env" / "bin").mkdir(parents=True)
    (open_path / "env" / "bin" / "python").symlink_to("/usr/bin/python3")
    directory = model(open_path, model_safetensors=0o644)
    directory.chmod(0o700) if blocked == "directory" else (directory / blocked).chmod(0o600)
    configs = [{"name": "r0", "settings": {"model": str(directory)}}]
    args = {"env": str(open_path / "env"), "configs": configs, "user": "nobody"}
    result = run_module("vllm_config_check", args)
    assert result.failed and words in result["msg"]
