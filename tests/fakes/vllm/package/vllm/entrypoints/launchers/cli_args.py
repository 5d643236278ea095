"""FAKE vLLM: the flags that profiles, role and sandbox use, with the types of vLLM 0.32."""

from __future__ import annotations

import argparse
import json
from typing import Any

_TEXT = ["model", "host", "dtype", "quantization", "load-format", "tokenizer", "chat-template", "reasoning-parser"]
_TEXT += ["tool-call-parser", "disable-access-log-for-endpoints", "generation-config", "ssl-keyfile", "ssl-certfile"]
_TEXT += ["revision", "code-revision", "tokenizer-revision", "root-path", "uds", "download-dir"]
_TEXT += ["safetensors-load-strategy", "master-addr", "data-parallel-address"]
_NUMBER = ["port", "max-num-seqs", "max-num-batched-tokens", "tensor-parallel-size", "pipeline-parallel-size"]
_NUMBER += ["data-parallel-size", "kv-cache-memory-bytes", "shutdown-timeout", "stream-interval", "max-num-queued-reqs"]
_NUMBER += ["max-num-queued-tokens", "long-prefill-token-threshold", "seed", "block-size", "max-log-len"]
_NUMBER += ["max-num-active-seqs", "nnodes", "node-rank", "master-port", "max-loras", "data-parallel-size-local"]
_SWITCH = ["enforce-eager", "enable-server-load-tracking", "enable-prompt-tokens-details", "enable-prefix-caching"]
_SWITCH += ["enable-chunked-prefill", "async-scheduling", "trust-remote-code", "enable-log-requests", "enable-lora"]
_SWITCH += ["enable-auto-tool-choice", "enable-force-include-usage"]
_SWITCH += ["enable-sleep-mode", "enable-expert-parallel", "kv-cache-metrics", "enable-mfu-metrics", "numa-bind"]
_SWITCH += ["enable-request-id-headers", "disable-uvicorn-access-log", "headless"]
_CHOICE = {
    "performance-mode": ["balanced", "interactivity", "throughput"],
    "kv-cache-dtype": ["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"],
    "distributed-executor-backend": ["uni", "mp", "ray"],
    "scheduling-policy": ["fcfs", "priority"],
}
_DEFAULTS = {"host": None, "port": 8000, "max-num-seqs": 256, "shutdown-timeout": 0, "tensor-parallel-size": 1}
_DEFAULTS |= {"pipeline-parallel-size": 1, "data-parallel-size": 1, "stream-interval": 1, "dtype": "auto"}
_DEFAULTS |= {"kv-cache-dtype": "auto", "max-num-batched-tokens": 2048}


def _size(text: str) -> int:
    """Read ``8k`` and ``8K`` as vLLM does: thousands and 1024s."""
    factors = {"k": 1000, "K": 1024, "m": 10**6, "M": 1 << 20}
    return int(float(text[:-1]) * factors[text[-1]]) if text[-1:] in factors else int(text)


def make_arg_parser(parser: Any) -> Any:
    """Give the parser its flags."""
    for name in _TEXT:
        parser.add_argument(f"--{name}", default=_DEFAULTS.get(name))
    for name in _NUMBER:
        parser.add_argument(f"--{name}", type=int, default=_DEFAULTS.get(name))
    for name in _SWITCH:
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None)
    for name, choices in _CHOICE.items():
        parser.add_argument(f"--{name}", choices=choices, default=_DEFAULTS.get(name))
    parser.add_argument("--max-model-len", type=_size)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    parser.add_argument("--kv-offloading-size", type=float)
    parser.add_argument("--max-lora-rank", type=int, choices=[1, 8, 16, 32, 64, 128, 256, 320, 512], default=16)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--api-key", nargs="+")
    for name in ("compilation-config", "speculative-config", "kv-transfer-config", "model-loader-extra-config"):
        parser.add_argument(f"--{name}", type=json.loads)
    return parser


def validate_parsed_serve_args(args: Any) -> None:
    """Refuse what vLLM refuses after parsing."""
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        raise TypeError("Error: --enable-auto-tool-choice requires --tool-call-parser")
