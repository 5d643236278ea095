# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parameters of a model, part by part, counted from its shape: no weights are needed.

Source: the model files of vLLM 0.32 (``llama.py``, ``qwen3_moe.py``, ``deepseek_v2.py`` ...). Exact for the families
below: ``benchmarks/capacity`` counts those of the same shapes in vLLM itself. Encoders of images or sound are
not counted (Gemma 3: 0.4 billion; Llama 4: 0.9 billion). Every expert counts, not only those that a token uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .shape import Config, Shape

# How tensors and modules of encoders are named.
ENCODERS = r"vision_tower|vision_model|visual|audio_tower|multi_modal_projector"
_VOCABULARY_BLOCK = 64  # vLLM pads the vocabulary to a multiple of this


@dataclass(frozen=True)
class Part:
    """Parameters that are spread over GPUs in one way.

    ``split``: over how many GPUs at most one copy is spread; 1: each GPU holds all, 0: there is no limit.
    ``kind``: what quantisation may reach (``attention``, ``dense``, ``shared``, ``expert``), empty for what it never
    does.
    """

    parameters: int
    split: int = 0
    kind: str = ""

    def per_gpu(self, tensor_parallel_size: int) -> float:
        """Return how many of them each GPU of a tensor parallel group holds."""
        return self.parameters / (min(self.split, tensor_parallel_size) if self.split else tensor_parallel_size)


@dataclass(frozen=True)
class _Family:
    """How the layers of a family differ from Llama's."""

    qkv_bias: Callable[[Config], bool] = lambda text: bool(text.get("attention_bias"))
    output_bias: Callable[[Config], bool] = lambda text: bool(text.get("attention_bias"))
    head_norms: bool = False  # a norm for queries and one for keys, as wide as a head
    norms: int = 2  # as wide as the model, in a layer
    sinks: bool = False  # a number for each head
    tied: bool = False  # where config.json does not tell
    expert_layer: Callable[[Config, int], bool] = lambda text, layer: False
    expert_width: str = "moe_intermediate_size"
    shared_width: Callable[[Config], int] = lambda text: 0
    shared_gate: bool = False
    expert_bias: bool = False
    dense_width: str = "intermediate_size"
    router_bias: Callable[[Config], bool] = lambda text: False


def _yes(text: Config) -> bool:
    return True


def _no(text: Config) -> bool:
    return False


def _all_layers(text: Config, layer: int) -> bool:
    return True


def _qwen_layer(text: Config, layer: int) -> bool:
    step = int(text.get("decoder_sparse_step") or 1)
    return layer not in (text.get("mlp_only_layers") or []) and (layer + 1) % step == 0


def _llama4_layer(text: Config, layer: int) -> bool:
    step = int(text.get("interleave_moe_layer_step") or 1)
    given = text.get("moe_layers")
    return layer in given if given else (layer + 1) % step == 0


def _deepseek_layer(text: Config, layer: int) -> bool:
    return layer >= int(text.get("first_k_dense_replace") or 0) and layer % int(text.get("moe_layer_freq") or 1) == 0


_LLAMA = _Family()
_DEEPSEEK = _Family(
    expert_layer=_deepseek_layer,
    shared_width=lambda text: int(text["moe_intermediate_size"]) * int(text.get("n_shared_experts") or 0),
    router_bias=lambda text: text.get("topk_method") == "noaux_tc",
)
_FAMILIES: dict[str, _Family] = {
    "llama": _LLAMA,
    "mistral": _Family(qkv_bias=_no, output_bias=_no),
    "phi3": _Family(qkv_bias=_no, output_bias=_no),
    "qwen2": _Family(qkv_bias=_yes, output_bias=_no),
    "qwen3": _Family(output_bias=_LLAMA.output_bias, head_norms=True),
    "gemma2": _Family(norms=4, tied=True),
    "gemma3_text": _Family(norms=4, head_norms=True, tied=True),
    "mixtral": _Family(qkv_bias=_no, output_bias=_no, expert_layer=_all_layers, expert_width="intermediate_size"),
    "qwen2_moe": _Family(
        qkv_bias=_yes, output_bias=_no, expert_layer=_qwen_layer, shared_gate=True,
        shared_width=lambda text: int(text.get("shared_expert_intermediate_size") or 0),
    ),
    "qwen3_moe": _Family(head_norms=True, expert_layer=_qwen_layer),
    "llama4_text": _Family(
        qkv_bias=_no, output_bias=_no, expert_layer=_llama4_layer, expert_width="intermediate_size",
        shared_width=lambda text: int(text["intermediate_size"]), dense_width="intermediate_size_mlp",
    ),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "gpt_oss": _Family(
        qkv_bias=_yes, output_bias=_yes, sinks=True, expert_layer=_all_layers, expert_width="intermediate_size",
        expert_bias=True, router_bias=_yes,
    ),
}  # fmt: skip


def counted(shape: Shape) -> bool:
    """Tell whether the parameters of this family can be counted from its shape."""
    return shape.family in _FAMILIES and shape.vocabulary > 0


def embedding(shape: Shape) -> Part:
    """The table of tokens, which the first stage of a pipeline holds."""
    return Part(_padded(shape.vocabulary) * shape.hidden)


def tied(shape: Shape) -> bool:
    """Tell whether the head is the table of tokens once more, without memory of its own on one stage."""
    told = shape.text.get("tie_word_embeddings")
    return _FAMILIES[shape.family].tied if told is None else bool(told)


def layer(shape: Shape, index: int) -> Iterator[Part]:
    """Yield the parts of a layer."""
    family, text, hidden = _FAMILIES[shape.family], shape.text, shape.hidden
    yield Part(family.norms * hidden, split=1)
    yield from _latent_attention(shape) if shape.latent else _attention(shape, family)
    if not family.expert_layer(text, index):
        width = int(text.get(family.dense_width) or text["intermediate_size"])
        yield Part(3 * hidden * width, kind="dense")
        if text.get("mlp_bias"):
            yield Part(2 * width + hidden)
        return
    width = int(text[family.expert_width])
    yield Part(shape.experts * 3 * hidden * width, kind="expert")
    if family.expert_bias:
        yield Part(shape.experts * 2 * width)
        yield Part(shape.experts * hidden, split=1)
    yield Part(shape.experts * (hidden + family.router_bias(text)), split=1)
    shared = family.shared_width(text)
    if shared:
        yield Part(3 * hidden * shared, kind="shared")
        yield Part(hidden * family.shared_gate, split=1)


def final_norm(shape: Shape) -> Part:
    """The norm before the head, which the last stage of a pipeline holds."""
    return Part(shape.hidden, split=1)


def parameters(shape: Shape) -> int | None:
    """Return how many parameters the language part has, None for a family that is not known. Exact."""
    if not counted(shape):
        return None
    tables = (1 if tied(shape) else 2) * shape.vocabulary * shape.hidden
    layers = sum(part.parameters for index in range(shape.layers) for part in layer(shape, index))
    return tables + layers + final_norm(shape).parameters


def active_parameters(shape: Shape) -> int | None:
    """Return how many parameters a token uses: of the experts only those that it is sent to. Exact."""
    every = parameters(shape)
    if every is None or not shape.experts:
        return every
    experts = sum(
        part.parameters for index in range(shape.layers) for part in layer(shape, index) if part.kind == "expert"
    )
    return every - experts + experts * shape.experts_per_token // shape.experts


def divided(shape: Shape) -> dict[str, int]:
    """Return what tensor parallelism divides, by its name in ``config.json``: no size works that does not divide it."""
    names = {"num_attention_heads": shape.heads}
    if counted(shape):
        family = _FAMILIES[shape.family]
        kinds = {family.expert_layer(shape.text, index) for index in range(shape.layers)}
        if True in kinds:
            names[family.expert_width] = int(shape.text[family.expert_width])
        if False in kinds:
            name = _dense_width(shape)
            names[name] = int(shape.text[name])
    return names


def inputs(shape: Shape) -> tuple[int, ...]:
    """Return the widths of what tensor parallelism cuts before a layer: heads before the output, the dense middle."""
    heads = () if shape.latent else (shape.heads * shape.head_dim,)
    named = divided(shape).get(_dense_width(shape)) if counted(shape) else None
    return (*heads, named) if named else heads


def sinks(shape: Shape) -> bool:
    """Tell whether its attention has sinks, which few kernels compute."""
    return counted(shape) and _FAMILIES[shape.family].sinks


def _dense_width(shape: Shape) -> str:
    name = _FAMILIES[shape.family].dense_width
    return name if shape.text.get(name) else "intermediate_size"


def _attention(shape: Shape, family: _Family) -> Iterator[Part]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield Part(2 * shape.hidden * queries, kind="attention")  # queries and the output
    # with more GPUs than heads each head has copies
    yield Part(2 * shape.hidden * keys, split=shape.kv_heads, kind="attention")
    if family.qkv_bias(shape.text):
        yield Part(queries)
        yield Part(2 * keys, split=shape.kv_heads)
    if family.output_bias(shape.text):
        yield Part(shape.hidden, split=1)
    if family.head_norms:
        yield Part(2 * shape.head_dim, split=1)
    if family.sinks:
        yield Part(shape.heads)


def _latent_attention(shape: Shape) -> Iterator[Part]:
    text, hidden = shape.text, shape.hidden
    rank, rotary = int(text["kv_lora_rank"]), int(text.get("qk_rope_head_dim") or 0)
    plain, value = int(text["qk_nope_head_dim"]), int(text["v_head_dim"])
    queries = shape.heads * (plain + rotary)
    query_rank = int(text.get("q_lora_rank") or 0)
    if query_rank:
        yield Part(hidden * query_rank, split=1, kind="attention")
        yield Part(query_rank, split=1)
        yield Part(query_rank * queries, kind="attention")
    else:
        yield Part(hidden * queries, kind="attention")
    yield Part(hidden * (rank + rotary), split=1, kind="attention")
    yield Part(rank, split=1)
    yield Part(rank * shape.heads * (plain + value), kind="attention")
    yield Part(shape.heads * value * hidden, kind="attention")


def _padded(vocabulary: int) -> int:
    return -(-vocabulary // _VOCABULARY_BLOCK) * _VOCABULARY_BLOCK
