# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a model tell about it, without reading its weights."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from .._capacity import files, parts
from .._capacity.shape import CapacityError, Shape, shape
from .content import ADAPTER
from .safetensors import ModelError


def config(path: pathlib.Path) -> Mapping[str, Any]:
    """Return the parsed ``config.json``: the file itself, or that of a directory."""
    return _json(path / "config.json" if path.is_dir() else path)


def facts(directory: pathlib.Path) -> dict[str, Any]:
    """Return the facts of a model, or of an adapter (LoRA); raise ModelError or CapacityError for what is neither."""
    if not directory.is_dir():
        raise ModelError(f"{directory}: no directory: give that of a model revision")
    found = files.tensors(directory)
    adapter = directory / ADAPTER
    if adapter.is_file() and not (directory / "config.json").is_file():
        return {"kind": "adapter", **_adapter(_json(adapter)), **_weights(found)}
    try:
        known = shape(config(directory))
    except CapacityError as error:
        raise CapacityError(f"{directory}: {error}") from error
    return {"kind": "model", **of_shape(known), **_counted(known, found), **_weights(found)}


def of_shape(known: Shape) -> dict[str, Any]:
    """Return what the shape of a model tells."""
    return {
        "architecture": known.architecture,
        "family": known.family,
        "parameters": parts.parameters(known),
        "active_parameters": parts.active_parameters(known),
        "layers": known.layers,
        "hidden_size": known.hidden,
        "vocabulary": known.vocabulary,
        "heads": known.heads,
        "kv_heads": known.kv_heads,
        "head_dim": known.head_dim,
        "latent_width": known.latent,
        "window_layers": sum(window > 0 for window in known.windows),
        "window": max(known.windows),
        "experts": known.experts,
        "experts_per_token": known.experts_per_token,
        "context": known.context,
        "dtype": known.dtype,
        "quantization": known.quantization,
        "cache_formula": known.known,
    }


def _counted(known: Shape, found: list[files.Tensor]) -> dict[str, Any]:
    """What lies in the files wins over what the shape tells; packed weights are no count of parameters."""
    if not found or known.quantization:
        return {}
    return {"parameters": sum(tensor.numbers for tensor in files.loaded(found, known.layers))}


def _weights(found: list[files.Tensor]) -> dict[str, Any]:
    return {
        "weight_bytes": sum(tensor.bytes for tensor in found),
        "tensors": len(found),
        "bytes_by_dtype": dict(files.dtypes(found)),
    }


def _adapter(told: Mapping[str, Any]) -> dict[str, Any]:
    modules = told.get("target_modules")
    return {
        "method": str(told.get("peft_type") or ""),
        "rank": told.get("r"),
        "alpha": told.get("lora_alpha"),
        "target_modules": sorted(modules) if isinstance(modules, list) else [str(modules)] if modules else [],
        "base_model": str(told.get("base_model_name_or_path") or ""),
    }


def _json(path: pathlib.Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}): give the directory of a model revision") from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: is no mapping: give the directory of a model revision")
    return found
