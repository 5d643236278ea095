"""FAKE vLLM: the engine configuration, as far as a model's ``config.json`` decides it."""

from __future__ import annotations

import json
import pathlib
from types import SimpleNamespace
from typing import Any


class AsyncEngineArgs:
    """Arguments of an engine, made from those of the command line."""

    def __init__(self, args: Any) -> None:
        self.args = args

    @classmethod
    def from_cli_args(cls, args: Any) -> AsyncEngineArgs:
        """Take the parsed command line."""
        return cls(args)

    def create_engine_config(self, usage_context: Any = None) -> Any:
        """Return the configuration, or raise ValueError in words like vLLM's."""
        args = self.args
        if not args.model or not (pathlib.Path(args.model) / "config.json").is_file():
            raise ValueError(f"Invalid repository ID or local directory specified: '{args.model}'.")
        model = json.loads((pathlib.Path(args.model) / "config.json").read_text())
        longest = model["max_position_embeddings"]
        length = args.max_model_len or longest
        if length > longest:
            raise ValueError(
                f"User-specified max_model_len ({length}) is greater than the derived max_model_len "
                f"(max_position_embeddings={longest} or model_max_length=None in model's config.json)."
            )
        heads = model["num_attention_heads"]
        if heads % args.tensor_parallel_size:
            raise ValueError(
                f"Total number of attention heads ({heads}) must be divisible by tensor parallel size "
                f"({args.tensor_parallel_size})."
            )
        if args.max_num_seqs < 1:
            raise ValueError(f"max_num_seqs: Input should be greater than or equal to 1, got {args.max_num_seqs}")
        if args.max_num_batched_tokens < args.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({args.max_num_batched_tokens}) must be greater than or equal to max_num_seqs "
                f"({args.max_num_seqs})."
            )
        if args.enable_chunked_prefill is False and args.max_num_batched_tokens < length:
            raise ValueError(
                f"max_num_batched_tokens ({args.max_num_batched_tokens}) is smaller than max_model_len ({length})."
            )
        if args.stream_interval < 1:
            raise ValueError(f"stream_interval: Input should be greater than or equal to 1, got {args.stream_interval}")
        if args.enable_sleep_mode:
            raise ValueError("Sleep mode is not supported on current platform.")
        if not 0 < args.gpu_memory_utilization <= 1:
            raise ValueError("gpu_memory_utilization: GPU memory utilization must be less than 1.0.")
        return SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=length, dtype="bfloat16", quantization=args.quantization),
            scheduler_config=SimpleNamespace(
                max_num_seqs=args.max_num_seqs,
                max_num_batched_tokens=args.max_num_batched_tokens,
                enable_chunked_prefill=args.enable_chunked_prefill is not False,
                async_scheduling=False,
            ),
            cache_config=SimpleNamespace(
                gpu_memory_utilization=args.gpu_memory_utilization,
                kv_cache_memory_bytes=args.kv_cache_memory_bytes,
                cache_dtype=args.kv_cache_dtype,
                enable_prefix_caching=args.enable_prefix_caching is not False,
            ),
            parallel_config=SimpleNamespace(
                tensor_parallel_size=args.tensor_parallel_size,
                pipeline_parallel_size=args.pipeline_parallel_size,
                data_parallel_size=args.data_parallel_size,
            ),
        )
