"""Makes a tiny Llama-like model with tokenizer and chat template, from the standard library alone.

The answers are nonsense, but they are real: weights of a fixed random seed, loaded and multiplied by vLLM as any other.
Revisions ``a`` and ``b`` answer differently to the same greedy prompt. The variant ``slow`` is only a larger
``config.json``, to be served with ``load-format: dummy``: it takes seconds where the tiny one takes milliseconds. An
adapter (LoRA) makes both revisions answer otherwise. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import pathlib
import random
import shutil
import string
import struct
import sys
from typing import Any

SPECIAL = ["<|bos|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>"]
VOCABULARY = 256 + len(SPECIAL)
_CHAT = (
    "{{ '<|bos|>' }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|eos|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_TINY = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
# Measured on one thread of a busy core of two: 12 tokens a second, so 24 tokens take 2 s and 700 a minute. The time
# grows with the layers.
_SLOW = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16}
# Three does not divide the heads: the refusal of such a tensor parallel size can be tested.
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
VARIANTS = ("a", "b", "slow")


def config(variant: str, *, layers: int | None = None) -> dict[str, Any]:
    """Return the ``config.json`` of a variant; only the slow one, which has no weights, takes other layers."""
    size = dict(_SLOW if variant == "slow" else _TINY)
    if layers is not None:
        size["num_hidden_layers"] = layers
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **size,
        **_HEADS,
        "head_dim": size["hidden_size"] // _HEADS["num_attention_heads"],
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 256,
        "eos_token_id": 257,
        "torch_dtype": "bfloat16",
    }


def _byte_symbols() -> dict[int, str]:
    """Return the printable stand-in of every byte, as byte-level tokenizers write them (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _tokenizer() -> dict[str, Any]:
    vocabulary = {symbol: byte for byte, symbol in _byte_symbols().items()}
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256 + n, "content": word, **flags} for n, word in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": ordered | {word: 256 + n for n, word in enumerate(SPECIAL)},
            "merges": [],
        },
    }


def _bfloat16(values: list[float]) -> bytes:
    """Return the values as little-endian bfloat16: the upper halves of their float32 forms, cut off."""
    singles = struct.pack(f"<{len(values)}f", *values)
    halves = bytearray(2 * len(values))
    halves[0::2], halves[1::2] = singles[2::4], singles[3::4]
    return bytes(halves)


def _matrix(dice: random.Random, rows: int, columns: int, scale: float = 1) -> tuple[list[int], bytes]:
    spread = scale / math.sqrt(columns)
    return [rows, columns], _bfloat16([dice.gauss(0, spread) for _turn in range(rows * columns)])


def _weights(variant: str) -> dict[str, tuple[list[int], bytes]]:
    """Return tensor name -> (shape, data), random but fixed by the variant's name."""
    dice = random.Random(f"llmops.vllm tiny {variant}")
    shape = config(variant)
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    keys = shape["head_dim"] * shape["num_key_value_heads"]

    matrix = functools.partial(_matrix, dice)

    def ones() -> tuple[list[int], bytes]:
        return [hidden], _bfloat16([1.0] * hidden)

    tensors = {"model.embed_tokens.weight": matrix(VOCABULARY, hidden), "model.norm.weight": ones()}
    for layer in range(shape["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        tensors |= {
            f"{name}.input_layernorm.weight": ones(),
            f"{name}.post_attention_layernorm.weight": ones(),
            f"{name}.self_attn.q_proj.weight": matrix(hidden, hidden),
            f"{name}.self_attn.k_proj.weight": matrix(keys, hidden),
            f"{name}.self_attn.v_proj.weight": matrix(keys, hidden),
            f"{name}.self_attn.o_proj.weight": matrix(hidden, hidden),
            f"{name}.mlp.gate_proj.weight": matrix(inner, hidden),
            f"{name}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{name}.mlp.down_proj.weight": matrix(hidden, inner),
        }
    # Only letters and the space can win, sampled or not: answers stay printable, and end where the client asked.
    rows, data = matrix(VOCABULARY, hidden, scale=8)
    spoken = {ord(letter) for letter in string.ascii_letters + " "}
    silent = bytes(2 * hidden)
    parts = [data[2 * hidden * n : 2 * hidden * (n + 1)] if n in spoken else silent for n in range(VOCABULARY)]
    tensors["lm_head.weight"] = rows, b"".join(parts)
    return tensors


def _safetensors(tensors: dict[str, tuple[list[int], bytes]]) -> bytes:
    """Return the file: 8 bytes of header length, a JSON header, the tensors one after the other."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _unused, data in tensors.values())


def write(directory: str | pathlib.Path, variant: str, *, layers: int | None = None) -> pathlib.Path:
    """Write a variant into a new directory and return its path."""
    if layers is not None and variant != "slow":
        raise ValueError(f"layers is {layers} for the variant {variant}: only the slow one takes it")
    target = pathlib.Path(directory)
    target.mkdir(parents=True)
    special = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[1]}
    documents: dict[str, Any] = {
        "config.json": config(variant, layers=layers),
        "generation_config.json": {"bos_token_id": 256, "eos_token_id": 257, "do_sample": False},
        "tokenizer.json": _tokenizer(),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
            **special,
            "chat_template": _CHAT,
        },
        "special_tokens_map.json": special,
    }
    for name, document in documents.items():
        (target / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if variant != "slow":
        (target / "model.safetensors").write_bytes(_safetensors(_weights(variant)))
    for path in target.iterdir():
        path.chmod(0o644)
    return target


def write_adapter(directory: str | pathlib.Path, rank: int = 8) -> pathlib.Path:
    """Write an adapter (LoRA) of that rank for the tiny revisions into a new directory and return its path."""
    target = pathlib.Path(directory)
    target.mkdir(parents=True)
    dice, shape = random.Random(f"llmops.vllm adapter {rank}"), config("a")
    hidden = shape["hidden_size"]
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        tensors[f"{name}.lora_A.weight"] = _matrix(dice, rank, hidden)
        tensors[f"{name}.lora_B.weight"] = _matrix(dice, hidden, rank, scale=4)  # enough to be heard in every answer
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": ["o_proj"]}
    (target / "adapter_config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    (target / "adapter_model.safetensors").write_bytes(_safetensors(tensors))
    for path in target.iterdir():
        path.chmod(0o644)
    return target


def ensure(directory: str | pathlib.Path) -> None:
    """Make every variant below the directory that is not there yet; a half-written one is made anew."""
    for variant in VARIANTS:
        target = pathlib.Path(directory) / variant
        if not target.exists():
            aside = target.with_name(f".{variant}.partial")
            shutil.rmtree(aside, ignore_errors=True)
            write(aside, variant).replace(target)


def main() -> int:
    """Parse the command line and print the path of the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--revision", choices=[name for name in VARIANTS if name != "slow"], default="a")
    kind.add_argument("--slow", action="store_true", help="no weights: serve it with load-format dummy")
    parser.add_argument("--layers", type=int, help="with --slow: the time of a token grows with them (16)")
    arguments = parser.parse_args()
    if arguments.layers is not None and not arguments.slow:
        parser.error("--layers needs --slow")
    if pathlib.Path(arguments.directory).exists():
        parser.error(f"{arguments.directory} exists: name a new directory")
    print(write(arguments.directory, "slow" if arguments.slow else arguments.revision, layers=arguments.layers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
