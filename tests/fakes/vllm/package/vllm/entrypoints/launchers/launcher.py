"""FAKE vLLM: the last check of a server's arguments."""

from __future__ import annotations

from typing import Any


def validate_api_server_args(args: Any) -> None:
    """Refuse tool-call parsers that do not exist."""
    known = ["hermes", "llama3_json", "mistral"]
    if args.enable_auto_tool_choice and args.tool_call_parser not in known:
        raise KeyError(f"invalid tool call parser: {args.tool_call_parser} (chose from {{ {','.join(known)} }})")
