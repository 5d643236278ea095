"""``python -m tests.load --url https://lb1/v1 --key-file k --model m``: exit status 0 only when nothing failed."""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import ssl
import sys

from . import report
from .http import Server
from .run import Load, Runner


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--url", action="append", required=True, help="base URL with /v1; several are used in turn")
    parser.add_argument("--key-file", required=True, help="file that holds the API key and nothing else")
    parser.add_argument("--ca", help="certificate authority to trust")
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=100, help="at most so many")
    parser.add_argument("--seconds", type=float, default=600, help="start none after so many seconds")
    parser.add_argument("--workers", type=int, default=8, help="closed loop: requests at a time")
    parser.add_argument("--think", type=float, default=0, help="closed loop: seconds between answer and next request")
    parser.add_argument("--rate", type=float, help="open loop: requests a second, Poisson arrivals")
    parser.add_argument("--streamed", type=float, default=0.5, help="share of the requests, 0 to 1")
    parser.add_argument("--words", type=_span, default=(5, 50), help="of a prompt, N or N-M")
    parser.add_argument("--tokens", type=_span, default=(4, 32), help="of an answer, N or N-M, asked for exactly")
    parser.add_argument("--completions", action="store_true", help="/completions instead of /chat/completions")
    parser.add_argument("--new-connections", action="store_true", help="one connection for each request")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for a whole request")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", help="write the result as JSON")
    parser.add_argument("--allow-begun", action="store_true", help="exit 0 when only begun answers were lost")
    return parser.parse_args()


def main() -> int:
    """Run the load and print the result."""
    arguments = _arguments()
    context = ssl.create_default_context(cafile=arguments.ca)
    servers = [Server(url, context, keep_alive=not arguments.new_connections) for url in arguments.url]
    load = Load(
        requests=arguments.requests,
        seconds=arguments.seconds,
        workers=arguments.workers,
        rate=arguments.rate,
        think=arguments.think,
        streamed=arguments.streamed,
        words=arguments.words,
        tokens=arguments.tokens,
        chat=not arguments.completions,
        timeout=arguments.timeout,
        seed=arguments.seed,
    )
    runner = Runner(servers, load, arguments.model, pathlib.Path(arguments.key_file).read_text().strip())
    seconds = asyncio.run(runner.run())
    result = report.summary(runner.outcomes, seconds)
    print(report.text(result))
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    lost = result["failed_before_first_byte"] if arguments.allow_begun else result["failed"]
    return 0 if lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
