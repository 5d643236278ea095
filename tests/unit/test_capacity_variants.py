"""The same model with its weights in fewer bits: what fits then, and what cannot be asked."""

from __future__ import annotations

import json
import pathlib
import types
from typing import Any

import pytest
from ansible_collections.llmops.vllm.plugins.module_utils._capacity import report
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.shape import CapacityError
from ansible_collections.llmops.vllm.plugins.module_utils._capacity.variants import VARIANTS, variant

models = types.SimpleNamespace(
    **json.loads((pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "model_shapes.json").read_text())
)


def judged(name: str, config: Any, **settings: Any) -> dict[str, Any]:
    """A model on eight H100 with a variant of its weights."""
    model, flags = variant(name, config, (), {"max-model-len": 32768, **settings})
    return report.row(model, report.gpus("h100-80gb", 0, 8), flags, 0, None, {}, {})


def test_fewer_bits_need_fewer_gpus() -> None:
    found = [judged(name, models.LLAMA_70B) for name in VARIANTS]
    assert [row["gpus"] for row in found] == [4, 2, 1]
    # published checkpoints of this model have 141, 73 and 40 GB (docs/sizing.md)
    assert [round(row["weights"] * row["gpus"] / 1e9) for row in found] == [141, 73, 40]
    assert [row["quantization"] for row in found] == ["", "fp8", "int4"]


def test_int4_is_a_checkpoint_and_no_flag() -> None:
    assert variant("int4", models.LLAMA_70B, (), {"quantization": "fp8"})[1] == {}
    assert variant("fp8", models.LLAMA_70B, (), {})[1] == {"quantization": "fp8_per_tensor"}


def test_tables_tell_which_weights_are_meant() -> None:
    told = report.lines([judged(name, models.LLAMA_70B) for name in VARIANTS])
    assert [line.split("  ")[0] for line in told[1:4]] == ["4 x h100-80gb", "2 x h100-80gb, fp8", "1 x h100-80gb, int4"]


@pytest.mark.parametrize("name", ["fp8", "int4"])
def test_quantised_weights_are_not_quantised_again(name: str) -> None:
    config = {**models.SCOUT, "quantization_config": {"quant_method": "fp8"}}
    with pytest.raises(CapacityError, match=rf"quantizations has {name}, and .* already \(fp8\): leave it out"):
        judged(name, config)
    assert judged("as_is", config)["quantization"] == ""
