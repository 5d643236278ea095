"""Sends one completion and waits for its end: ask.py URL KEY TOKENS."""

from __future__ import annotations

import json
import sys
import urllib.request


def main() -> None:
    """Read the command line and send."""
    url, key, tokens = sys.argv[1:]
    body = {"model": "m", "prompt": "hello", "max_tokens": int(tokens), "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        answer.read()


if __name__ == "__main__":
    main()
