"""Compares the capacity library with vLLM itself, for models that are only a ``config.json``.

``python -m benchmarks.capacity --env DIRECTORY_OF_A_VLLM_ENVIRONMENT > benchmarks/capacity/RESULTS.md``; the
environment is vLLM's CPU build, as the demo's hosts have it. Nothing is timed. vLLM builds the models without memory
and lays out their caches; the last ones are really started, with random weights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._capacity import kv, parts, weights
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.shape import shape

models = types.SimpleNamespace(
    **json.loads((pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "model_shapes.json").read_text())
)

INSIDE = pathlib.Path(__file__).with_name("inside.py")
GIB = 1024**3
# What the CPU build's kernels take at least; on GPUs it is 16, with the same rules.
BLOCK = 32
WITHIN = 0.01

# Small enough to start on two cores.
_SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 4096}


def _text(config: Mapping[str, Any], architecture: str) -> dict[str, Any]:
    """The language part by itself: the CPU build has no libraries for images."""
    return {**config["text_config"], "torch_dtype": config["torch_dtype"], "architectures": [architecture]}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """In 16 bits: the CPU build has no kernels for the formats of GPUs."""
    return {key: value for key, value in config.items() if key != "quantization_config"}


@dataclass(frozen=True)
class Case:
    """One comparison: a shape, and how it is served."""

    name: str
    config: Mapping[str, Any]
    how: str = "built"
    tensor_parallel_size: int = 1
    length: int = 4096
    batched_tokens: int = 2048
    cache_dtype: str = "auto"
    block: int = BLOCK
    hybrid: bool = True
    memory: int = 64 * GIB

    @property
    def cache(self) -> kv.Cache:
        """The same in the library's words; nothing is scheduled ahead on a CPU."""
        return kv.Cache(
            tensor_parallel_size=self.tensor_parallel_size,
            dtype=self.cache_dtype,
            block=self.block,
            in_flight=self.batched_tokens,
            hybrid=self.hybrid,
        )


CASES = (
    Case("Llama 3.1 8B: grouped heads", models.LLAMA_8B, length=131072),
    Case("Llama 3.1 8B: 8-bit cache", models.LLAMA_8B, length=131072, cache_dtype="fp8"),
    Case("Llama 3.3 70B on 4 GPUs", models.LLAMA_70B, tensor_parallel_size=4, length=131072),
    Case("Llama 3.1 8B on 16 GPUs: heads copied", models.LLAMA_8B, tensor_parallel_size=16),
    Case("Llama 2 7B: a cache for every head", models.LLAMA2_7B),
    Case("Qwen2.5 0.5B: tied tables, biases", models.QWEN25_05B),
    Case("Qwen3 8B on 2 GPUs: norms of heads", models.QWEN3_8B, tensor_parallel_size=2),
    Case("Mistral 7B v0.1: a window in every layer", models.MISTRAL_WINDOW, length=32768),
    Case("Gemma 3 27B: windows in 52 of 62 layers", _text(models.GEMMA3_27B, "Gemma3ForCausalLM"), length=131072),
    Case("Gemma 3 27B, all tokens kept", _text(models.GEMMA3_27B, "Gemma3ForCausalLM"), length=131072, hybrid=False),
    Case("Mixtral 8x7B: experts", models.MIXTRAL, length=32768),
    Case("Qwen3 30B-A3B on 2 GPUs: 128 experts", models.QWEN3_30B_A3B, tensor_parallel_size=2, length=32768),
    Case(
        "Llama 4 Scout on 4 GPUs: experts, chunks",
        _text(models.SCOUT, "Llama4ForCausalLM"),
        tensor_parallel_size=4,
        length=131072,
        hybrid=False,
    ),
    Case("gpt-oss 20B: experts, windows", _plain(models.GPT_OSS_20B), length=131072),
    Case(
        "DeepSeek-V3 on 8 GPUs: latent attention",
        _plain(models.DEEPSEEK_V3),
        tensor_parallel_size=8,
        length=163840,
    ),
    Case(
        "started: small Llama",
        {**models.LLAMA_8B, **_SMALL, "num_attention_heads": 8, "num_key_value_heads": 4},
        how="started",
        block=128,
        memory=GIB,
    ),
    Case(
        "started: small Qwen2",
        {**models.QWEN25_05B, **_SMALL, "num_attention_heads": 8, "num_key_value_heads": 2},
        how="started",
        block=128,
        memory=GIB,
    ),
)


def answers(environment: pathlib.Path, cases: tuple[Case, ...], log: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Ask vLLM about each case; a case that is started has a process of its own, which its engine leaves used up."""
    built = [case for case in cases if case.how == "built"]
    for group in (built, *([case] for case in cases if case.how == "started")):
        with open(log, "ab") as errors, tempfile.TemporaryDirectory() as home:
            lines = "".join(json.dumps(vars(case) | {"config": dict(case.config)}) + "\n" for case in group)
            done = subprocess.run(
                [str(environment / "bin" / "python"), str(INSIDE)],
                input=lines.encode(),
                stdout=subprocess.PIPE,
                stderr=errors,
                check=False,
                env=_variables(home),
            )
        yield from map(json.loads, done.stdout.splitlines())


def _variables(home: str) -> dict[str, str]:
    cache = os.environ.get("VLLM_CACHE_ROOT", f"{home}/cache")
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "VLLM_CACHE_ROOT": cache,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def computed(case: Case) -> dict[str, float | None]:
    """What the library says of a case."""
    known, cache = shape(case.config), case.cache
    blocks = kv.pool(known, cache, case.memory) or 0
    requests = kv.concurrency(known, cache, blocks, case.length)
    found: dict[str, float | None] = {
        "blocks": blocks,
        "tokens": int(requests * case.length),
        "concurrency": requests,
    }
    if case.how == "built":
        found["weights"] = weights.per_gpu(known, cache)
        found["layer_token_bytes"] = kv.token_bytes(known, cache)
        if case.tensor_parallel_size == 1:
            found["parameters"] = parts.parameters(known)
    return found


UNITS = {
    "parameters": "parameters",
    "weights": "bytes of weights on a GPU",
    "layer_token_bytes": "bytes of cache for a token and layer",
    "blocks": "blocks of the pool",
    "tokens": "tokens of the pool",
    "concurrency": "longest requests at once",
}


def main() -> int:
    """Print the table; exit status 1 when something differs by more than 1 % or could not be asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--env", type=pathlib.Path, required=True, help="directory of a vLLM environment")
    parser.add_argument("--log", type=pathlib.Path, default=pathlib.Path("/dev/null"), help="what vLLM prints")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    arguments = parser.parse_args()
    cases = tuple(case for case in CASES if arguments.only in case.name)
    by_name = {case.name: case for case in cases}
    bad, rows, asked = 0, [], set()
    for answer in answers(arguments.env, cases, arguments.log):
        name = answer["name"]
        asked.add(name)
        if "error" in answer:
            rows.append(f"| {name} | vLLM could not be asked: {answer['error'].splitlines()[0]} | | | | **no** |")
            bad += 1
            continue
        for what, ours in computed(by_name[name]).items():
            theirs = answer[what][0] if isinstance(answer[what], list) else answer[what]
            differs = abs((ours or 0) - theirs) / theirs
            bad += differs > WITHIN
            holds = "**no**" if differs > WITHIN else "yes"
            rows.append(f"| {name} | {UNITS[what]} | {_number(ours)} | {_number(theirs)} | {differs:.2%} | {holds} |")
    missing = set(by_name) - asked
    rows += [f"| {name} | vLLM ended before it answered | | | | **no** |" for name in sorted(missing)]
    print("# The capacity library against vLLM\n")
    print(
        f"{datetime.date.today()}, vLLM 0.32.0 (CPU build), made by `python -m benchmarks.capacity`. Promised: 1 %.\n"
    )
    print("Pools of 64 GiB on each GPU, of 1 GiB where an engine was started; blocks of 32 and 128 tokens.\n")
    print("| model | what | library | vLLM | difference | holds |\n|---|---|---|---|---|---|")
    print("\n".join(rows))
    return int(bool(bad or missing))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    sys.exit(main())
