# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of GPUs that replicas run on, as data: memory, bandwidth, generation, what they compute with.

Memory is what ``nvidia-smi`` reports as ``memory.total``, which is what vLLM's share is taken of within 1 %: the CUDA
runtime reports a little less (79.19 of 79.65 GiB on an H100), never more. Sources: T4, L4, L40S, A10, A100 and H100
from modal-labs/modal-client#2797, B200 from NVIDIA/TensorRT-LLM#10278; the others from listings that are common
knowledge and were not seen by us: NVIDIA's data sheets give the same within 2 %. MIG slices and vGPUs are no tiers.
Bandwidths and dense 16-bit operations are those of NVIDIA's data sheets (the A10G's of that of AWS's G5). A PCIe card
is another tier than the SXM module of its name: it is slower, and has NVLink only by a bridge, for two of them, that
most do not have; NVL cards come with theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024**2

# By generation, what its matrix units compute with. 8-bit weights also run on Ampere and older, and 4-bit ones on all:
# kernels unpack them to 16 bits (Marlin), which saves memory and no arithmetic.
COMPUTES: dict[str, tuple[str, ...]] = {
    "pascal": ("float16",),
    "volta": ("float16",),
    "turing": ("float16", "int8"),
    "ampere": ("float16", "bfloat16", "int8"),
    "ada": ("float16", "bfloat16", "int8", "fp8"),
    "hopper": ("float16", "bfloat16", "int8", "fp8"),
    "blackwell": ("float16", "bfloat16", "int8", "fp8", "fp4"),
}


@dataclass(frozen=True)
class Tier:
    """One kind of GPU: bytes, bytes per second, dense 16-bit operations per second; ``names`` as nvidia-smi has."""

    name: str
    generation: str
    memory: int
    bandwidth: int
    flops: int
    nvlink: bool
    names: tuple[str, ...]

    def computes(self, dtype: str) -> bool:
        """Tell whether its matrix units compute with this type."""
        return dtype in COMPUTES[self.generation]


def _tier(name: str, generation: str, mib: int, gb: int, tera: int, nvlink: bool, *names: str) -> Tier:
    return Tier(name, generation, mib * _MIB, gb * 10**9, tera * 10**12, nvlink, names)


_RTX_PRO_6000 = tuple(f"NVIDIA RTX PRO 6000 Blackwell {kind} Edition" for kind in ("Server", "Workstation"))

# In the order of memory: the first on which something fits is the smallest.
TIERS: dict[str, Tier] = {
    tier.name: tier
    for tier in (
        _tier("t4", "turing", 15360, 320, 65, False, "Tesla T4", "NVIDIA T4"),
        _tier("a10", "ampere", 23028, 600, 125, False, "NVIDIA A10"),
        _tier("a10g", "ampere", 23028, 600, 70, False, "NVIDIA A10G"),
        _tier("l4", "ada", 23034, 300, 121, False, "NVIDIA L4"),
        _tier("a100-40gb", "ampere", 40960, 1555, 312, True, "NVIDIA A100-SXM4-40GB"),
        _tier("a100-pcie-40gb", "ampere", 40960, 1555, 312, False, "NVIDIA A100-PCIE-40GB"),
        _tier("l40s", "ada", 46068, 864, 362, False, "NVIDIA L40S"),
        _tier("rtx-6000-ada", "ada", 49140, 960, 364, False, "NVIDIA RTX 6000 Ada Generation"),
        _tier("h100-80gb", "hopper", 81559, 3350, 989, True, "NVIDIA H100 80GB HBM3"),
        _tier("h100-pcie-80gb", "hopper", 81559, 2000, 756, False, "NVIDIA H100 PCIe"),
        _tier("a100-80gb", "ampere", 81920, 2039, 312, True, "NVIDIA A100-SXM4-80GB"),
        _tier("a100-pcie-80gb", "ampere", 81920, 1935, 312, False, "NVIDIA A100 80GB PCIe"),
        _tier("h100-nvl-94gb", "hopper", 95830, 3900, 835, True, "NVIDIA H100 NVL"),
        _tier("gh200", "hopper", 97871, 4000, 989, True, "NVIDIA GH200 480GB"),
        _tier("rtx-pro-6000", "blackwell", 97887, 1597, 503, False, *_RTX_PRO_6000),
        _tier("h200-141gb", "hopper", 143771, 4800, 989, True, "NVIDIA H200"),
        _tier("h200-nvl-141gb", "hopper", 143771, 4800, 835, True, "NVIDIA H200 NVL"),
        _tier("b200-180gb", "blackwell", 183359, 7700, 2250, True, "NVIDIA B200"),
        _tier("b300", "blackwell", 275040, 8000, 2250, True, "NVIDIA B300 SXM6 AC"),
    )
}


def named(name: str) -> Tier | None:
    """Return the tier of this name; a short one (``h200``) is good where it means one memory alone, unlike ``a100``.

    Of several with this memory the first is meant, the SXM module.
    """
    wanted = str(name).strip().lower().replace("_", "-")
    found = [tier for tier in TIERS.values() if tier.name == wanted or tier.name.startswith(f"{wanted}-")]
    return found[0] if len({tier.memory for tier in found}) == 1 else None


def of_device(device: str) -> Tier | None:
    """Return the tier of a GPU by the name that ``nvidia-smi`` reports for it."""
    return next((tier for tier in TIERS.values() if device.strip() in tier.names), None)
