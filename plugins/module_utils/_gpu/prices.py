# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one GPU cost by the hour on demand: dated data, each row with its seller and the place where it was read.

Examples that make a first table readable. All were read from collections of others, not from the sellers themselves;
other sellers ask from half to three times as much, hyperscalers the most. What an operator pays wins
(``llmops_price_usd_per_hour`` of the hosts, ``usd_per_gpu_hour`` of the module). Of an instance with several GPUs the
price was divided by their number.
"""

from __future__ import annotations

from dataclasses import dataclass

# Repository, file and commit, or an address.
_INDEX = "ewyluda/gpu-price-index, data/observations/2026/2026-10-10.csv at ab49c808"
_FEED = "toolshedlabs-hash/gpu-price-feed, data/history/v2/2026-10.jsonl at 3c41e775, line of 2026-10-04"
_RECEIPTS = "datareceipts/data-receipts, 109-gpu-pricing/vendors.json"
_CATALOGUE = "skypilot-org/skypilot-catalog, catalogs/v9/aws/vms.csv at 2c3d7ea7"
_BLOG = "factualminds.com, blog/amazon-ec2-on-demand-pricing-instance-families-2026"


@dataclass(frozen=True)
class Price:
    """US dollars for one GPU and hour, on demand; ``month`` in which it was read."""

    usd: float
    seller: str
    month: str
    source: str


PRICES: dict[str, Price] = {
    "t4": Price(0.526, "AWS", "2026", _CATALOGUE),
    "a10": Price(1.29, "Lambda", "2026-10", _FEED),
    "a10g": Price(1.006, "AWS", "2026-06", _BLOG),
    "l4": Price(0.8048, "AWS", "2026", _CATALOGUE),
    "a100-40gb": Price(1.99, "Lambda", "2026-10", _INDEX),
    "a100-pcie-40gb": Price(1.99, "Lambda", "2026-10", _INDEX),
    "l40s": Price(1.09, "RunPod", "2026-10", _INDEX),
    "rtx-6000-ada": Price(0.74, "RunPod", "2026-10", _FEED),
    "h100-80gb": Price(3.99, "RunPod", "2026-11", _RECEIPTS),
    "h100-pcie-80gb": Price(2.89, "RunPod", "2026-11", _RECEIPTS),
    "a100-80gb": Price(1.79, "RunPod", "2026-11", _RECEIPTS),
    "a100-pcie-80gb": Price(1.79, "RunPod", "2026-11", _RECEIPTS),
    "h100-nvl-94gb": Price(3.19, "RunPod", "2026-11", _RECEIPTS),
    "gh200": Price(2.29, "Lambda", "2026-10", _FEED),
    "rtx-pro-6000": Price(1.69, "RunPod", "2026-10", _FEED),
    "h200-141gb": Price(5.29, "RunPod", "2026-10", _INDEX),
    "h200-nvl-141gb": Price(3.79, "RunPod", "2026-10", _FEED),
    "b200-180gb": Price(7.99, "RunPod", "2026-10", _INDEX),
    "b300": Price(8.99, "RunPod", "2026-10", _INDEX),
}
