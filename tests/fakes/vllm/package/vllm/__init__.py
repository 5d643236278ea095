"""FAKE vLLM: the interface and the measured vices of vLLM 0.32, without an engine. See tests/fakes/vllm/README.md."""

from __future__ import annotations

__version__ = "0.32.0+fake"
