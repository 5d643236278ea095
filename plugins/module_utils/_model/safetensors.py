# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the files of a model are whole, without reading the weights.

A safetensors file begins with 8 bytes (little endian) of header length and a JSON header that gives every tensor its
``data_offsets``; the file must be exactly as long as they say. That finds a truncated file of 200 GB in a millisecond.
"""

from __future__ import annotations

import json
import pathlib
import struct
from typing import Any

from .._errors import LlmopsError

_HEADER_LIMIT = 100_000_000  # the format's own limit
# Of a tokenizer a model has at least one of these.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")


class ModelError(LlmopsError):
    """What is wrong with which file, and the mend."""


def header(path: pathlib.Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file; raise ModelError when the file is not whole."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER_LIMIT + 1
        if length > min(_HEADER_LIMIT, size - 8):
            raise ModelError(f"{path}: no safetensors file, or cut off within its header ({size} bytes): copy it again")
        try:
            parsed: dict[str, Any] = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in parsed.items() if name != "__metadata__"]
            expected = 8 + length + max(ends, default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ModelError(f"{path}: its safetensors header cannot be read ({error}): copy it again") from error
    if size != expected:
        word = "truncated" if size < expected else "longer than its tensors"
        raise ModelError(f"{path}: {word}: {size} bytes, and its header describes {expected}: copy it again")
    return parsed


def check(directory: pathlib.Path) -> None:
    """Raise ModelError unless the directory holds a model that can be loaded as far as its structure tells."""
    config = directory / "config.json"
    if config.exists() or not (directory / "params.json").exists():  # params.json: Mistral's own form
        parsed = read_json(config)
        if not isinstance(parsed, dict) or not parsed.get("architectures"):
            raise ModelError(f"{config}: names no architectures: this is no model for vLLM")
    if not any((directory / name).exists() for name in TOKENIZERS):
        raise ModelError(f"{directory}: holds no tokenizer (tokenizer.json, tokenizer.model, ...): complete the source")
    for path in sorted(directory.rglob("*.safetensors")):
        header(path)
    index = directory / "model.safetensors.index.json"
    if index.exists():
        missing = sorted(name for name in _shards(index) if not (directory / name).is_file())
        if missing:
            others = f" and {len(missing) - 1} more" if missing[1:] else ""
            raise ModelError(f"{index}: names {missing[0]}{others}, not there: complete the source")


def _shards(index: pathlib.Path) -> set[str]:
    try:
        return {str(name) for name in read_json(index)["weight_map"].values()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: maps no weights to files: copy it again") from error


def read_json(path: pathlib.Path) -> Any:
    """Return what a file of a model holds; raise ModelError when it is not there, or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path}: not there: this is no model directory, or not a whole one") from error
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as JSON ({error}): copy it again") from error


def shards(index: pathlib.Path) -> set[str]:
    """Return the names of the files that an index names; raise ModelError where it maps no weights to files."""
    return _shards(index)
