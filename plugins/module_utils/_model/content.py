# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a directory holds something that vLLM can load: a model, or an adapter (LoRA) that goes with one."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

from . import safetensors
from .safetensors import ModelError

ADAPTER = "adapter_config.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".tensors")
# What training leaves beside them, which vLLM does not read (filter_files_not_needed_for_inference).
_OF_TRAINING = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
WANTED = f"weights ({', '.join(f'*{ending}' for ending in WEIGHTS)})"
MEND = "or, for one that is served with load-format dummy, set weights (llm_model_weights) to false"


def has_weights(files: Iterable[str]) -> bool:
    """Whether there are weights of any form among the files of a model."""
    return any(name.endswith(WEIGHTS) and pathlib.PurePath(name).name not in _OF_TRAINING for name in files)


def check(directory: pathlib.Path) -> None:
    """Raise ModelError unless the directory holds a model or an adapter that is whole."""
    if (directory / ADAPTER).exists():
        _check_adapter(directory)
    else:
        safetensors.check(directory)


def _check_adapter(directory: pathlib.Path) -> None:
    """Of adapters vLLM reads LoRA; weights in other forms than safetensors may carry code, so they are refused."""
    config = directory / ADAPTER
    parsed = safetensors.read_json(config)
    kind = parsed.get("peft_type") if isinstance(parsed, dict) else None
    if kind != "LORA":
        raise ModelError(f"{config}: peft_type is {kind!r}, and vLLM reads LORA alone: use such an adapter")
    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():
        raise ModelError(f"{weights}: not there: complete the source, or convert the adapter to safetensors")
    for path in sorted(directory.rglob("*.safetensors")):
        safetensors.header(path)
