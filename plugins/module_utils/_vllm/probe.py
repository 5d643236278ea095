# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges vLLM settings with the parser and the engine configuration of the installed vLLM.

The text of this file is run by ``<environment>/bin/python -``: it imports nothing but the standard library at the
top, and vLLM only after everything that can be said without it has been said. Functions that need no vLLM are tested
on the controller.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import fnmatch
import importlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Where vLLM keeps its parts: newest known place first, then the older ones.
PLACES: dict[str, tuple[str, ...]] = {
    "make_arg_parser": (
        "vllm.entrypoints.launchers.cli_args",
        "vllm.entrypoints.common.cli_args",
        "vllm.entrypoints.openai.cli_args",
    ),
    "validate_parsed_serve_args": (
        "vllm.entrypoints.launchers.cli_args",
        "vllm.entrypoints.common.cli_args",
        "vllm.entrypoints.openai.cli_args",
    ),
    "validate_api_server_args": (
        "vllm.entrypoints.launchers.launcher",
        "vllm.entrypoints.common.launcher",
        "vllm.entrypoints.openai.api_server",
    ),
    "FlexibleArgumentParser": ("vllm.utils.argparse_utils", "vllm.utils"),
    "AsyncEngineArgs": ("vllm.engine.arg_utils",),
    "UsageContext": ("vllm.usage.usage_lib",),
    "PEFTHelper": ("vllm.lora.peft_helper",),
}

# The first pattern found in vLLM's message gives the mend; \1 is its first group.
MENDS: tuple[tuple[str, str], ...] = (
    (r"max_model_len.*?(?:max_position_embeddings|model_max_length)\D{0,3}(\d+)", r"set max-model-len to \1 or less"),
    (
        r"Total number of attention heads \((\d+)\) must be divisible",
        r"set tensor-parallel-size to a divisor of \1, or take a model with other heads",
    ),
    (
        r"max_num_batched_tokens \(\d+\) is smaller than max_model_len",
        "raise max-num-batched-tokens to max-model-len or leave chunked prefill on",
    ),
    (
        r"max_num_batched_tokens \(\d+\) must be greater than or equal to max_num_seqs",
        "raise max-num-batched-tokens or lower max-num-seqs",
    ),
    (r"enable-auto-tool-choice requires", "set tool-call-parser, or remove enable-auto-tool-choice"),
    (r"invalid (?:tool call|reasoning) parser|parser '\S*' not found", "take one of the parsers named in the message"),
    (r"invalid (?:int|float|human_readable_int\w*) value", "give a number"),
    (r"invalid choice", "take one of the choices named in the message"),
    (r"expected one argument", "give the flag a value"),
    (r"Input should be greater than or equal to (\S+)", r"set it to \1 or more"),
    (r"Input should be less than or equal to (\S+)", r"set it to \1 or less"),
    (r"Input should be greater than (\S+)", r"set it above \1"),
    (r"Unexpected keyword argument", "remove the key that the message names"),
    (r"Invalid JSON", "write a mapping instead of a text"),
    (r"Cannot find the config file for (\S+)", r"the model is not quantized with \1: remove quantization"),
    (r"Couldn't instantiate the backend tokenizer", "stage the tokenizer files with the model"),
    (r"chat template .* doesn't exist", "name a file that exists on this host"),
    (r"sleep mode is not supported", "remove enable-sleep-mode: this platform cannot do it"),
    (r"trust_remote_code", "set trust-remote-code only for a model whose revision is pinned and whose code was read"),
    (
        r"(?:cached snapshot folder|offline mode|LocalEntryNotFound)",
        "stage the model on this host and name its directory",
    ),
    (
        r"LoRA rank (\d+) is greater than max_lora_rank",
        r"set max-lora-rank to \1, or to the next of 8, 16, 32, 64, 128, 256, 320, 512",
    ),
    (
        r"modules_to_save|DoRA|[Ll]o[Rr][Aa][_ ]bias|Adapter bias|init_lora_weights|aLoRA|layer_replication|QALoRA",
        "convert the adapter to a plain LoRA, or merge it into the model and serve that",
    ),
    (r"Missing required configuration fields", "complete the adapter's adapter_config.json"),
    (r"world size|[Nn]ot enough (?:GPUs|devices)", "lower tensor-parallel-size, or give the replica more GPUs"),
)

ARGUMENT_ERROR = re.compile(r"^argument (?P<flags>\S+): (?P<text>.*)$", re.DOTALL)
MESSAGE_LIMIT = 400

# Numbers that the parser takes below 1 and the engine then reports under another name.
POSITIVE_FLAGS = frozenset(
    """max-num-seqs max-num-batched-tokens tensor-parallel-size pipeline-parallel-size data-parallel-size
    block-size""".split()
)


@dataclass(frozen=True)
class Option:
    """What the parser knows about one spelling of a flag."""

    name: str  # long name without dashes
    # "pair" (--x and its negation), "switch" (--x only), "value" (one), "maybe" (one, or --x alone), "list" (several)
    kind: str


@dataclass(frozen=True)
class History:
    """How flags came and went, for flags that the parser at hand does not have."""

    removed: Mapping[str, Sequence[str]]  # flag: the last version that had it, and what to do today
    since: Mapping[str, str]  # flag: the first version that has it


def error(flag: str, value: Any, message: str, mend: str) -> dict[str, Any]:
    """One finding, in the shape that the module returns."""
    return {"flag": flag, "value": value, "message": message, "mend": mend}


def flag_name(key: str) -> str:
    """``max_num_seqs`` -> ``max-num-seqs``; what follows a dot names a JSON key and stays."""
    base, dot, rest = str(key).partition(".")
    return base.lstrip("-").replace("_", "-") + dot + rest


def options_of(parser: Any) -> dict[str, Option]:
    """Every exact option string of an argparse parser."""
    table: dict[str, Option] = {}
    for spelling, action in parser._option_string_actions.items():
        longs = [name for name in action.option_strings if name.startswith("--") and not name.startswith("--no-")]
        longs = longs or [name for name in action.option_strings if name.startswith("--")]
        if not longs:
            continue
        kind = "value"
        if action.nargs == 0:
            # 0.33 pairs --enable-x with --disable-x and keeps --no-enable-x out of the action's own list
            kind = "pair" if f"--no-{longs[0][2:]}" in parser._option_string_actions else "switch"
        elif action.nargs == "?":
            kind = "maybe"
        elif action.nargs in ("*", "+") or isinstance(action.nargs, int):
            kind = "list"
        table[spelling] = Option(longs[0][2:], kind)
    return table


def check_keys(
    settings: Mapping[str, Any], options: Mapping[str, Option], version: str, history: History
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Findings about the names, and the settings (long names, dashes) that the parser may judge further."""
    errors: list[dict[str, Any]] = []
    good: dict[str, Any] = {}
    for key, value in settings.items():
        name = flag_name(key)
        found = _check_key(name, value, options, version, history)
        if found is None and name in good:
            found = error(name, value, f"{name} is given twice, once with '-' and once with '_'", "give it once")
        if found is None and not (isinstance(value, list) and not value):
            good[name] = value
        elif found is not None:
            errors.append(found)
    return errors, good


def _check_key(
    name: str, value: Any, options: Mapping[str, Option], version: str, history: History
) -> dict[str, Any] | None:
    base = name.partition(".")[0]
    option = options.get("--" + base)
    if base == "config":
        return error(name, value, "config cannot stand inside the configuration file", "remove it")
    if option is None:
        return _unknown(name, base, value, options, version, history)
    if value is None:
        return error(name, None, f"{name} is null, which vLLM reads as the text 'None'", f"leave {name} out")
    if option.kind in ("pair", "switch"):
        if not isinstance(value, bool):
            text = f"{name} is a switch; vLLM would take the value after it for the name of a model"
            return error(name, value, text, f"write {name}: true or {name}: false")
        if not value and option.kind == "pair" and f"--no-{base}" not in options:
            return error(name, value, f"vLLM drops {name}: false silently", f"write {option.name}: true")
        return None
    if isinstance(value, bool) and not (value and option.kind == "maybe"):
        text = f"{name} needs a value, found {json.dumps(value)}"
        text += "" if value else ", which vLLM drops silently"
        return error(name, value, text, f"give {name} its value" if value else f"leave {name} out")
    if isinstance(value, list) and option.kind in ("value", "maybe") and len(value) != 1:
        return error(name, value, f"{name} takes one value, found a list of {len(value)}", "give one value")
    if base in POSITIVE_FLAGS and isinstance(value, int) and value < 1:
        return error(name, value, f"{name} must be 1 or more, found {value}", f"raise {name}, or leave it out")
    return None


def _unknown(
    name: str, base: str, value: Any, options: Mapping[str, Option], version: str, history: History
) -> dict[str, Any]:
    if base in history.removed:
        last, successor = history.removed[base]
        return error(name, value, f"{name} is unknown to vLLM {version}: it was removed after {last}", successor)
    since = history.since.get(base)
    if since and release(version) < release(since):
        text = f"{name} is unknown to vLLM {version}: it came with {since}"
        return error(name, value, text, f"upgrade vLLM to {since} or later, or leave {name} out")
    short = options.get("-" + base)
    if short is not None:
        return error(name, value, f"{name} is a short form, which a configuration file cannot hold", _write(short.name))
    opposite = _opposite(base)
    if isinstance(value, bool) and opposite and getattr(options.get(f"--{opposite}"), "kind", "") == "pair":
        mend = f"write {opposite}: {json.dumps(not value)}"
        return error(name, value, f"{name} is unknown to vLLM {version}", mend)
    longs = sorted({spelling[2:] for spelling in options if spelling.startswith("--")})
    starts = [known for known in longs if known.startswith(base)]
    if starts and len(base) >= 3:
        text = f"{name} is an abbreviation; vLLM accepts it only until another flag begins alike"
        return error(name, value, text, " or ".join(_write(known) for known in starts[:3]))
    close = difflib.get_close_matches(base, longs, n=2, cutoff=0.75)
    mend = " or ".join(_write(known) for known in close) if close else "remove it"
    text = f"{name} is unknown to vLLM {version}"
    if value is False:
        text += "; vLLM drops an unknown key that is false without a word"
    return error(name, value, text, mend)


def _opposite(base: str) -> str:
    """``disable-x`` -> ``enable-x`` and back; empty for other names."""
    before, dash, rest = base.partition("-")
    turned = {"disable": "enable", "enable": "disable"}.get(before, "")
    return turned + dash + rest if turned else ""


def _write(name: str) -> str:
    return f"write {name}"


def release(version: str) -> tuple[int, ...]:
    """``0.32.0+cpu`` -> ``(0, 32, 0)``."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0])[:3])


def shorten(text: str) -> str:
    """The useful line of what vLLM or pydantic raised."""
    text = str(text).strip()
    text = re.sub(r"^\d+ validation errors? for \w+\s*", "", text)
    text = re.sub(r"\s*\[type=\w+, input_value=.*", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*For further information visit \S+", "", text)
    text = re.sub(r"^(?:\w+\n\s+)?(?:Value error, |Assertion failed, |Error: )", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]:
        text = text[1:-1]
    # the second half of vLLM's length message repeats how to override it, which is not what an operator wants
    text = re.sub(r" VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution.*", "", text)
    text = re.sub(r" To allow overriding this maximum, set the env var .*", "", text)
    text = re.sub(r" If you (?:want|intend) to .*", "", text) if len(text) > MESSAGE_LIMIT else text
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 4].rstrip() + " ..."


def choices_in(text: str) -> list[str]:
    """The choices that argparse or vLLM lists in a message."""
    patterns = (r"chose from \{ ?(.*?) ?\}", r"choose from (.*?)\)\s*$", r"Available parsers: (.*?)\W*$")
    found = next(filter(None, (re.search(pattern, text) for pattern in patterns)), None)
    return [choice.strip().strip("'") for choice in found.group(1).split(",")] if found else []


def mend_for(message: str, value: Any = None) -> str:
    """What to do about a message of vLLM, where we know it."""
    close = difflib.get_close_matches(str(value), choices_in(message), n=2, cutoff=0.7)
    if close:
        return " or ".join(_write(choice) for choice in close)
    for pattern, mend in MENDS:
        found = re.search(pattern, message, re.IGNORECASE)
        if found:
            return found.expand(mend)
    return "change this flag, or leave it out to get vLLM's default"


def blamed_flag(message: str, settings: Mapping[str, Any]) -> str:
    """The flag of ``settings`` that a message speaks of; the one named first, the longest where two begin alike."""
    spots: list[tuple[int, int, str]] = []
    text = message.replace("--", "").replace("-", "_")
    words = {name: name.partition(".")[0].replace("-", "_") for name in settings}
    for name, word in words.items():
        found = re.search(rf"(?<![a-z0-9_]){re.escape(word)}(?![a-z0-9_])", text)
        if found:
            spots.append((found.start(), -len(word), name))
    if spots:
        return min(spots)[2]
    hints = {
        "tensor parallel size": "tensor-parallel-size",
        "pipeline parallel size": "pipeline-parallel-size",
        "reasoning parser": "reasoning-parser",
        "tool call parser": "tool-call-parser",
        "sleep mode": "enable-sleep-mode",
        "cached snapshot folder": "model",
        "backend tokenizer": "model",
    }
    hinted = next((flag for phrase, flag in hints.items() if phrase in message.lower() and flag in settings), "")
    if hinted:
        return hinted
    named = [name for name, value in settings.items() if isinstance(value, str) and len(value) > 2 and value in message]
    return named[0] if len(named) == 1 else ""


def finding(raw: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A message of vLLM as a finding: which flag, which value, the useful line, the mend."""
    flag = ""
    argument = ARGUMENT_ERROR.match(raw.strip())
    if argument:
        names = [flag_name(spelling) for spelling in argument.group("flags").split("/")]
        flag = next((name for name in names if name in settings), "")
        raw = argument.group("text") if flag else raw
    message = shorten(raw)
    flag = flag or blamed_flag(message, settings)
    return error(flag, settings.get(flag), message, mend_for(re.sub(r"\s+", " ", raw), settings.get(flag)))


def weights_problem(settings: Mapping[str, Any], user: str) -> dict[str, Any] | None:
    """What keeps the user who runs this from reading the model, or an adapter; None when nothing does."""
    path = str(settings.get("model") or "")
    if not path:
        return error("model", None, "no model is named", "set model to the directory of the staged weights")
    problem = _directory_problem("model", path, path, user, ("config.json", "params.json", "*.gguf"))
    for name, place in adapters_of(settings):
        problem = problem or _directory_problem("adapter", f"{name}={place}", place, user, ("adapter_config.json",))
    return problem


def adapters_of(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and path of each adapter of ``lora-modules``, in both spellings of vLLM: ``name=path``, and JSON."""
    written = next((value for key, value in settings.items() if flag_name(key) == "lora-modules"), None) or []
    found = []
    for entry in written if isinstance(written, list) else [written]:
        name, _equals, path = str(entry).partition("=")
        if name.startswith("{"):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # vLLM's parser says what is wrong with it
                told = json.loads(entry)
                found.append((str(told["name"]), str(told["path"])))
        else:
            found.append((name, path))
    return found


def _directory_problem(what: str, value: str, path: str, user: str, wanted: Sequence[str]) -> dict[str, Any] | None:
    """What keeps the user from reading the directory of a ``what``, which must hold one of the ``wanted`` files."""
    if not path.startswith("/"):
        return None
    flag = "model" if what == "model" else "lora-modules"
    mend = "stage it with the role llm_model, or correct the path"
    directory = Path(path)
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return error(flag, value, f"{what} directory {path} does not exist", mend)
    except NotADirectoryError:
        return error(flag, value, f"{path} is not a directory", f"name the directory that holds {wanted[0]}")
    except PermissionError:
        text = f"user {user} may not read the {what} directory {path}{_blocked_at(directory)}"
        return error(flag, value, text, "give the service user read access to every directory of the path")
    if not any(fnmatch.filter(names, pattern) for pattern in wanted):
        return error(flag, value, f"{what} directory {path} holds no {wanted[0]}", mend)
    for name in names:
        file = directory / name
        if file.is_file() and not os.access(file, os.R_OK):
            mode = stat.S_IMODE(file.stat().st_mode)
            text = f"user {user} may not read {file} (mode {mode:04o})"
            return error(flag, value, text, f"make the files of the {what} readable, mode 0644")
    return None


def _blocked_at(directory: Path) -> str:
    for parent in reversed([directory, *directory.parents]):
        if not os.access(parent, os.X_OK | os.R_OK if parent == directory else os.X_OK):
            with contextlib.suppress(OSError):
                return f": {parent} has mode {stat.S_IMODE(parent.stat().st_mode):04o}"
            return ""
    return ""


def find(name: str) -> Any:
    """A part of vLLM by its name, wherever this version keeps it."""
    for place in PLACES[name]:
        try:
            return getattr(importlib.import_module(place), name)
        except (ModuleNotFoundError, AttributeError) as problem:
            if isinstance(problem, ModuleNotFoundError) and not str(problem.name).startswith("vllm"):
                raise
    raise LookupError(f"this vLLM has no {name} in {', '.join(PLACES[name])}: its version is not known to the check")


class ParserRefused(Exception):
    """What argparse would have printed before exit 2."""


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for one configuration and puts the old ones back."""
    before = dict(os.environ)
    os.environ.update({str(name): str(value) for name, value in values.items()})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Judge:
    """vLLM, imported once for many configurations."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.parser = find("make_arg_parser")(find("FlexibleArgumentParser")())
        self.parser.error = self._refuse
        self.options = options_of(self.parser)
        self.version = str(importlib.import_module("vllm").__version__)

    @staticmethod
    def _refuse(message: str) -> None:
        raise ParserRefused(message)

    def parse(self, settings: Mapping[str, Any]) -> Any:
        """The namespace that ``vllm serve --config`` would make of these settings."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            json.dump(settings, file)  # JSON is YAML, and vLLM reads it with yaml.safe_load
            file.flush()
            args = self.parser.parse_args(["--config", file.name])
        # vLLM writes into the parser's default objects: without a copy one configuration would colour the next
        return type(args)(**copy.deepcopy(vars(args)))

    def judge(self, settings: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Findings and effective values of one configuration."""
        errors, rest = check_keys(settings, self.options, self.version, self.history)
        args = None
        while args is None:
            try:
                args = self.parse(rest)
            except (Exception, SystemExit) as problem:
                found = finding(text_of(problem), rest)
                errors.append(found)
                if found["flag"] not in rest:
                    return errors, {}
                del rest[found["flag"]]
        if errors:
            return errors, {}
        try:
            find("validate_parsed_serve_args")(args)
            if rest.keys() & {"enable-auto-tool-choice", "tool-call-parser", "reasoning-parser"}:
                find("validate_api_server_args")(args)
            config = find("AsyncEngineArgs").from_cli_args(args)
            config = config.create_engine_config(usage_context=find("UsageContext").OPENAI_API_SERVER)
        except (Exception, SystemExit) as problem:
            return [finding(text_of(problem), rest)], {}
        errors = adapter_errors(rest, getattr(config, "lora_config", None))
        return errors, {} if errors else effective(config, args)


def adapter_errors(settings: Mapping[str, Any], config: Any) -> list[dict[str, Any]]:
    """Findings about adapters, as vLLM's worker would raise them: at the end of a start, when the model is loaded."""
    errors = []
    for name, path in adapters_of(settings):
        value = f"{name}={path}"
        if config is None:
            text = "lora-modules names an adapter, and enable-lora is not set"
            errors.append(error("lora-modules", value, text, "write enable-lora: true"))
        elif path.startswith("/"):
            try:
                find("PEFTHelper").from_local_dir(path, None).validate_legal(config)
            except Exception as problem:  # noqa: BLE001 - whatever vLLM says of it
                text = text_of(problem)
                errors.append(error("lora-modules", value, shorten(text), mend_for(text)))
    return errors


def text_of(problem: BaseException) -> str:
    """The words of an exception; pydantic's first error without its frame."""
    errors = getattr(problem, "errors", None)
    if callable(errors):
        with contextlib.suppress(Exception):
            first = errors()[0]
            where = ".".join(str(part) for part in first.get("loc", ()))
            message = re.sub(r"^(?:Value error|Assertion failed), ", "", str(first["msg"]))
            return f"{where}: {message}" if where and where not in message else message
    if isinstance(problem, KeyError) and problem.args:
        return str(problem.args[0])
    return str(problem) or type(problem).__name__


def effective(config: Any, args: Any) -> dict[str, Any]:
    """The values that decide size and speed, as vLLM resolved them."""
    wanted: dict[str, tuple[Any, tuple[str, ...]]] = {
        "max_model_len": (config.model_config, ("max_model_len",)),
        "dtype": (config.model_config, ("dtype",)),
        "quantization": (config.model_config, ("quantization",)),
        "served_model_name": (args, ("served_model_name",)),
        "max_num_seqs": (config.scheduler_config, ("max_num_seqs",)),
        "max_num_batched_tokens": (config.scheduler_config, ("max_num_batched_tokens",)),
        "enable_chunked_prefill": (
            config.scheduler_config,
            ("enable_chunked_prefill", "chunked_prefill_enabled"),
        ),
        "async_scheduling": (config.scheduler_config, ("async_scheduling",)),
        "gpu_memory_utilization": (config.cache_config, ("gpu_memory_utilization",)),
        "kv_cache_memory_bytes": (config.cache_config, ("kv_cache_memory_bytes",)),
        "kv_cache_dtype": (config.cache_config, ("cache_dtype",)),
        "enable_prefix_caching": (config.cache_config, ("enable_prefix_caching",)),
        "tensor_parallel_size": (config.parallel_config, ("tensor_parallel_size",)),
        "pipeline_parallel_size": (config.parallel_config, ("pipeline_parallel_size",)),
        "data_parallel_size": (config.parallel_config, ("data_parallel_size",)),
        "max_num_queued_reqs": (args, ("max_num_queued_reqs",)),
        "shutdown_timeout": (args, ("shutdown_timeout",)),
        "host": (args, ("host",)),
        "port": (args, ("port",)),
    }
    values: dict[str, Any] = {}
    for name, (owner, attributes) in wanted.items():
        for attribute in attributes:
            if hasattr(owner, attribute):
                values[name] = plain(getattr(owner, attribute))
                break
    return values


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value).replace("torch.", "")


def main(request_text: str) -> int:
    """Reads the request, writes one JSON line per configuration and stage to the first standard output."""
    request = json.loads(request_text)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vLLM prints goes to the log, the answers keep their own channel

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    waiting = []
    for config in request["configs"]:
        problem = weights_problem(config["settings"], request["user"])
        if problem:
            say(name=config["name"], errors=[problem], effective={})
        else:
            waiting.append(config)
    if not waiting:
        return 0
    say(stage="import")
    # The first configuration's environment is there before the import: some of vLLM reads it only once.
    with environment({**waiting[0]["environment"], **request["environment"]}):
        try:
            judge = Judge(History(**request["history"]))
        except (Exception, SystemExit) as problem:
            say(broken=f"{type(problem).__name__}: {shorten(text_of(problem))}")
            return 1
    for config in waiting:
        say(stage=config["name"])
        with environment({**config["environment"], **request["environment"]}):
            errors, values = judge.judge(config["settings"])
        say(name=config["name"], errors=errors, effective=values)
    return 0
