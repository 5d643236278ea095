"""Sends so many completions to every server, eight at a time: ask.py KEY COUNT TOKENS URL..."""

from __future__ import annotations

import concurrent.futures
import json
import sys
import urllib.error
import urllib.request


def ask(url: str, key: str, tokens: int) -> None:
    """Send one; an error that the server answers is what some tests want."""
    body = {"model": "m", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
    except urllib.error.HTTPError as problem:
        problem.read()


def main() -> None:
    """Read the command line and send."""
    key, count, tokens, *urls = sys.argv[1:]
    with concurrent.futures.ThreadPoolExecutor(8) as workers:
        sent = [workers.submit(ask, url, key, int(tokens)) for _turn in range(int(count)) for url in urls]
        for one in sent:
            one.result()


if __name__ == "__main__":
    main()
