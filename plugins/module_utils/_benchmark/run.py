# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ``vllm bench serve`` of an installed environment with a recipe's load.

Options are those of vLLM 0.32. The client runs offline, without the proxies of this process, in a home that goes away.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._benchmark.recipes import Recipe
from ansible_collections.llmops.vllm.plugins.module_utils._errors import LlmopsError
from ansible_collections.llmops.vllm.plugins.module_utils._model.safetensors import TOKENIZERS
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.api import Replica, printable
from ansible_collections.llmops.vllm.plugins.module_utils._vllm.processes import cpu_seconds

RESULT = "result.json"
PERCENTILES = (50, 90, 99)
_LOOK = 0.5  # seconds between two readings of the client's CPU time
_LOG_TAIL = 1200


class BenchmarkError(LlmopsError):
    """The load could not be made, or nothing came of it."""


@dataclass(frozen=True)
class Client:
    """Who asks: the environment, and the tokenizer that counts prompts."""

    env: str
    tokenizer: str

    def check(self) -> None:
        """BenchmarkError when one of both is not there."""
        if not os.access(f"{self.env}/bin/vllm", os.X_OK):
            raise BenchmarkError(
                f"{self.env}/bin/vllm is not there: give as env the environment of the version that is served, "
                "such as /opt/vllm/env/0.32.0-1a2b3c4d"
            )
        if not any((Path(self.tokenizer) / name).is_file() for name in TOKENIZERS):
            raise BenchmarkError(
                f"{self.tokenizer} holds no tokenizer ({', '.join(TOKENIZERS)}): give as tokenizer the model's "
                "directory, or one with a copy of its small files; nothing is fetched from a hub"
            )


@dataclass(frozen=True)
class Ran:
    """How a client ended: what it wrote, and which part of a core it used while it asked (None: too short to tell)."""

    document: Mapping[str, Any]
    cpu_share: float | None


def command(client: Client, url: str, model: str, load: Recipe, seed: int, directory: str) -> list[str]:
    """Return the command. The key is not in it: the client reads it from its environment."""
    return [
        f"{client.env}/bin/vllm",
        *("bench", "serve"),
        *("--backend", "openai", "--base-url", url.rstrip("/"), "--endpoint", "/v1/completions"),
        *("--model", model, "--tokenizer", client.tokenizer),
        *_prompts(load),
        *("--num-prompts", str(load.requests), "--num-warmups", str(load.warmups), "--seed", str(seed)),
        # fixed lengths and greedy answers: the server alone makes the difference
        *("--ignore-eos", "--temperature", "0"),
        *_arrival(load),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", ",".join(map(str, PERCENTILES))),
        *(["--goodput", *(f"{name}:{limit:g}" for name, limit in load.goodput_ms.items())] if load.goodput_ms else []),
        *("--disable-tqdm", "--save-result", "--save-detailed"),
        *("--result-dir", directory, "--result-filename", RESULT),
    ]


def _prompts(load: Recipe) -> list[str]:
    if not load.conversations:
        sizes = {"input-len": load.input_tokens, "output-len": load.output_tokens}
        return ["--dataset-name", "random", *_options("random", sizes)]
    sizes = {
        "prefix-len": load.shared_tokens,
        "suffix-len": load.input_tokens - load.shared_tokens,
        "num-prefixes": load.conversations,
        "output-len": load.output_tokens,
    }
    return ["--dataset-name", "prefix_repetition", *_options("prefix-repetition", sizes)]


def _options(kind: str, sizes: Mapping[str, int]) -> list[str]:
    return [word for name, size in sizes.items() for word in (f"--{kind}-{name}", str(size))]


def _arrival(load: Recipe) -> list[str]:
    rate = ["--request-rate", f"{load.request_rate:g}", "--burstiness", f"{load.burstiness:g}"]
    bound = ["--max-concurrency", str(load.concurrency)]
    return (rate if load.request_rate else ["--request-rate", "inf"]) + (bound if load.concurrency else [])


def environment(api_key: str, ca_path: str | None, home: str) -> dict[str, str]:
    """Return the variables of the client."""
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": home,
        "TMPDIR": home,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
    }
    if api_key:
        variables["OPENAI_API_KEY"] = api_key
    if ca_path:
        variables["SSL_CERT_FILE"] = ca_path
    return variables


def check_served(replica: Replica, model: str, load: Recipe) -> None:
    """Ask what is served, before a client takes its half minute to start: the model must be there, and long enough."""
    listed = replica.document("GET", "/v1/models").get("data")
    entries = {str(e.get("id")): e for e in listed if isinstance(e, dict)} if isinstance(listed, list) else {}
    where = replica.where("GET", "/v1/models")
    if model not in entries:
        raise BenchmarkError(f"{where}: lists {', '.join(entries) or 'no model'}; {model} is missing")
    longest, needed = entries[model].get("max_model_len"), load.input_tokens + load.output_tokens
    if isinstance(longest, int) and longest < needed:
        raise BenchmarkError(
            f"{where}: {model} takes {longest} tokens, and the recipe {load.name} needs {needed}: lower input_tokens "
            "or output_tokens by the variable or option recipe, or raise max-model-len"
        )


def run(asked: Sequence[str], directory: str, api_key: str, ca_path: str | None, timeout: float) -> Ran:
    """Run the client and return what it found; BenchmarkError when it found nothing within the time limit."""
    home = tempfile.mkdtemp(prefix="llmops-benchmark-")
    result = Path(directory) / RESULT
    try:
        result.unlink(missing_ok=True)
        with (Path(home) / "log").open("w+", encoding="utf-8", errors="replace") as log:
            began = time.monotonic()
            readings, code = _watched(asked, environment(api_key, ca_path, home), log, began + timeout)
            log.seek(0)
            said = log.read()
    except OSError as problem:
        raise BenchmarkError(f"{asked[0]} cannot be run with results in {directory}: {problem}") from None
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if code is None:
        raise BenchmarkError(f"the benchmark did not end within {timeout:g} s and was stopped: lower recipe.requests")
    if code != 0:
        raise BenchmarkError(f"{' '.join(asked[:3])} ended with code {code}: {_tail(said)}")
    try:
        document = json.loads(result.read_text(encoding="utf-8"))
        duration = float(document["duration"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BenchmarkError(f"{result}: the client ended well and wrote no result that can be read") from None
    return Ran(document, _cpu_share(readings, duration))


def _watched(
    asked: Sequence[str], variables: Mapping[str, str], log: Any, end: float
) -> tuple[list[tuple[float, float]], int | None]:
    """The client's CPU time over time, and its exit code; None when it had to be stopped."""
    process = subprocess.Popen(
        list(asked),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(variables),
        cwd=variables["HOME"],
        start_new_session=True,
        umask=0o077,
    )
    readings: list[tuple[float, float]] = []
    try:
        while time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return readings, process.wait(timeout=_LOOK)
            with contextlib.suppress(OSError):
                readings.append((time.monotonic(), cpu_seconds(process.pid)))
        return readings, None
    finally:
        # a module that is stopped leaves no load behind
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _cpu_share(readings: Sequence[tuple[float, float]], duration: float) -> float | None:
    """The median part of a core in the last ``duration`` seconds: start and end have work of their own."""
    pairs = list(zip(readings, readings[1:]))
    since = readings[-1][0] - duration if readings else 0.0
    shares = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs if before[0] >= since]
    return round(statistics.median(shares), 2) if len(shares) >= 10 else None


def _tail(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return printable(" | ".join(lines[-4:])[-_LOG_TAIL:].encode(), _LOG_TAIL) or "it said nothing"
