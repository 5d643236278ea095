"""FAKE vLLM: the name that engine configurations are asked with."""

from __future__ import annotations

import enum


class UsageContext(enum.Enum):
    """Who asks for an engine configuration."""

    OPENAI_API_SERVER = "OPENAI_API_SERVER"
