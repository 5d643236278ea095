# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the settings of a server host, as far as variables tell. No message ever holds a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._gpu.driver_decision import wheel_cuda
from .._vllm.settings import by_family
from . import keys
from .problem import Problem


def problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot work, in the variables of the role vllm.

    ``settings`` holds the role's ``api_keys``, ``firewall``, ``firewall_allowed``, ``prefix``, ``gpus``,
    ``version`` and ``torch_backend``, and ``model_root`` of the role llm_model.
    """
    yield from keys.backend_problems("vllm_api_keys", settings["api_keys"])
    names = by_family(settings["firewall_allowed"])["names"] if settings["firewall"] == "nftables" else []
    if names:
        text = (
            f"holds {', '.join(names)}, but a firewall needs addresses: set llmops_address for these hosts, or "
            "vllm_firewall: none"
        )
        yield Problem("", "vllm_firewall_allowed", ", ".join(names), text)
    for variable, path in (("vllm_prefix", settings["prefix"]), ("llm_model_root", settings["model_root"])):
        if re.match(r"/(home|root)(/|$)", str(path)):
            text = f"is {path}: the service cannot see /home and /root, so put it elsewhere"
            yield Problem("", variable, str(path), text)
    if int(settings["gpus"]) > 0 and "+cpu" in str(settings["version"]):
        text = (
            f"is {settings['version']}, a build without GPU support, and vllm_gpus is {settings['gpus']}: set "
            "vllm_gpus: 0, or another version"
        )
        yield Problem("", "vllm_version", str(settings["version"]), text)
    torch, wheel = str(settings.get("torch_backend", "")), wheel_cuda(str(settings["version"]))
    if wheel and torch.startswith("cu") and torch[2:-1] != wheel.partition(".")[0]:
        # vllm-project/vllm issue 44335: torch's backend chooses torch alone
        text = (
            f"is {torch}, but vLLM {settings['version']} is built for CUDA {wheel} and would not find its libraries: "
            f"leave it empty, or take vLLM's own build for {torch} (vllm_version: {_plain(settings)}+{torch}, with a "
            "lock that names its wheel)"
        )
        yield Problem("", "vllm_torch_backend", torch, text)


def _plain(settings: Mapping[str, Any]) -> str:
    return str(settings["version"]).partition("+")[0]


def messages(settings: Mapping[str, Any]) -> list[str]:
    """Return the problems as lines for people."""
    return [str(problem) for problem in problems(settings)]
