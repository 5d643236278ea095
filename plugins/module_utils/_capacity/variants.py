# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model with its weights in fewer bits: what would serve instead, before anybody fetches it.

``fp8`` is what vLLM makes of 16-bit files while it loads them; ``int4`` is the usual checkpoint of AWQ, GPTQ and
compressed-tensors (W4A16): groups of 128 weights with a 16-bit scale, tables and the output layer left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .files import Tensor
from .fit import Model
from .shape import CapacityError, shape
from .weights import in_four_bits

AS_IS, FP8, INT4 = "as_is", "fp8", "int4"
VARIANTS = (AS_IS, FP8, INT4)


def variant(
    name: str, config: Mapping[str, Any], tensors: Sequence[Tensor], settings: Mapping[str, Any]
) -> tuple[Model, dict[str, Any]]:
    """Return a model and the flags that serve it so; raise CapacityError where it is quantised already."""
    plain = Model(shape(config), tensors)
    if name == AS_IS:
        return plain, dict(settings)
    if plain.shape.quantization:
        raise CapacityError(
            f"quantizations has {name}, and the weights are quantised already ({plain.shape.quantization}): leave it "
            "out, or give the config.json of the checkpoint that is meant"
        )
    if name == FP8:
        return Model(plain.shape, tensors, name), {**settings, "quantization": "fp8_per_tensor"}
    others = {flag: value for flag, value in settings.items() if flag != "quantization"}
    return Model(in_four_bits(plain.shape), (), name), others
