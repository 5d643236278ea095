"""Runs inside a vLLM environment: what vLLM itself makes of models that are only a ``config.json``.

Reads cases as JSON lines on its input and writes one result a line on its output. No engine is started and no weight
is made: the model is built on torch's meta device, which has shapes and no memory, and its layers tell their cache.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
from typing import Any


def built(case: dict[str, Any]) -> dict[str, Any]:
    """Build the model of a case, and let vLLM lay out its cache in ``memory`` bytes."""
    import torch
    from vllm.config import get_layers_from_vllm_config, set_current_vllm_config
    from vllm.distributed import parallel_state
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype
    from vllm.v1.core import kv_cache_utils

    with tempfile.TemporaryDirectory() as directory:
        config = EngineArgs(
            **_laid_out(case, directory),
            async_scheduling=False,
            tensor_parallel_size=case["tensor_parallel_size"],
            kv_cache_dtype=case["cache_dtype"],
        ).create_engine_config()
        config.cache_config.block_size = case["block"]
        config.cache_config.kv_cache_layout = "LBNHC"  # an engine would ask its workers
        # The CPU build has no use for it; on GPUs it is on.
        config.scheduler_config.disable_hybrid_kv_cache_manager = not case["hybrid"]
        with set_current_vllm_config(config):
            _one_process(parallel_state, case["tensor_parallel_size"])
            with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"):
                model = initialize_model(config)
        layers = get_layers_from_vllm_config(config, AttentionLayerBase)
        specs = {name: layer.get_kv_cache_spec(config) for name, layer in layers.items()}
        specs = {name: spec for name, spec in specs.items() if spec is not None}
        (laid_out,) = kv_cache_utils.get_kv_cache_configs(config, [specs], [case["memory"]])
        tokens, concurrency = kv_cache_utils.get_kv_cache_capacity(config, laid_out)
        parameters = list(model.parameters())
        return {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "weights": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
            "layer_token_bytes": sorted({spec.page_size_bytes // spec.block_size for spec in specs.values()}),
            "blocks": laid_out.num_blocks,
            "tokens": tokens,
            "concurrency": concurrency,
            "context": config.model_config.max_model_len,
        }


def _laid_out(case: dict[str, Any], directory: str) -> dict[str, Any]:
    """Write the model of a case, which is its config alone, and return the arguments with which vLLM takes it."""
    (pathlib.Path(directory) / "config.json").write_text(json.dumps(case["config"]))
    return {
        "model": directory,
        "skip_tokenizer_init": True,
        "load_format": "dummy",
        "enforce_eager": True,
        "max_model_len": case["length"],
        "max_num_batched_tokens": case["batched_tokens"],
        "max_num_seqs": 8,
    }


def _one_process(parallel_state: Any, size: int) -> None:
    """One process that believes it is one of a group: layers cut their weights, and nothing is sent."""
    if parallel_state.model_parallel_is_initialized():
        parallel_state.destroy_model_parallel()  # what the next model needs of it differs
    else:
        store = pathlib.Path(tempfile.mkdtemp()) / "store"
        parallel_state.init_distributed_environment(1, 0, f"file://{store}", 0, backend="gloo")
    parallel_state.initialize_model_parallel(1, 1)
    parallel_state.get_tp_group().world_size = size


def started(case: dict[str, Any]) -> dict[str, Any]:
    """Start an engine with dummy weights, and read what it allocated.

    Its weights are not compared: the CPU build packs them anew, and what it keeps are no parameters any more.
    """
    from vllm import LLM

    with tempfile.TemporaryDirectory() as directory:
        engine = LLM(**_laid_out(case, directory), block_size=case["block"], kv_cache_memory_bytes=case["memory"])
        cache = engine.llm_engine.vllm_config.cache_config
        return {
            "blocks": cache.num_gpu_blocks,
            "tokens": cache.kv_cache_size_tokens,
            "concurrency": cache.kv_cache_max_concurrency,
        }


def main() -> int:
    """Answer each case, whatever happens to the others."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vLLM prints is no answer
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answer = {"started": started, "built": built}[case["how"]](case)
        except Exception as error:  # noqa: BLE001 - it is the answer
            import traceback

            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps({"name": case["name"], **answer}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
