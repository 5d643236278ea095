"""``python -m tests.load --url https://lb1/v1 --key-file k --model m``: exit status 0 only when nothing failed."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import pathlib
import signal
import ssl
import sys
from dataclasses import asdict, replace

from . import report
from .http import Server
from .request import Ask
from .run import Load, Mix, Runner, Series, series


def _mix(text: str) -> Mix:
    spans = []
    for part in text.split(","):
        span, _sep, weight = part.partition("*")
        low, _sep, high = span.partition("-")
        spans.append((int(low), int(high or low), float(weight or 1)))
    return tuple(spans)


def _write_series(path: str, recorded: Series) -> None:
    rows = [json.dumps({"at": round(at, 6), **asdict(ask)}) for at, ask in recorded]
    pathlib.Path(path).write_text("\n".join(rows) + "\n")


def _read_series(path: str) -> Series:
    rows = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    return tuple((row.pop("at"), Ask(**row)) for row in rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--url", action="append", required=True, help="base URL with /v1; several are used in turn")
    parser.add_argument(
        "--key-file", "--api-key-file", required=True, help="file that holds the API key and nothing else"
    )
    parser.add_argument("--ca", help="certificate authority to trust")
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=100, help="at most so many")
    parser.add_argument("--seconds", "--duration", type=float, default=600, help="start none after so many seconds")
    parser.add_argument("--workers", type=int, default=8, help="closed loop: requests at a time")
    parser.add_argument("--think", type=float, default=0, help="closed loop: seconds between answer and next request")
    parser.add_argument("--rate", type=float, help="open loop: requests a second, Poisson arrivals")
    parser.add_argument("--streamed", type=float, default=0.5, help="share of the requests, 0 to 1")
    mix = "N, N-M, or several of them with weights: 4-32*9,600-800*1"
    parser.add_argument("--words", type=_mix, default="5-50", help=f"of a prompt: {mix}")
    parser.add_argument("--tokens", type=_mix, default="4-32", help=f"of an answer, asked for exactly: {mix}")
    parser.add_argument("--completions", action="store_true", help="/completions instead of /chat/completions")
    parser.add_argument("--new-connections", action="store_true", help="one connection for each request")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for a whole request")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--record", metavar="FILE", help="write the arrivals of the open loop: a JSON line for each")
    parser.add_argument("--replay", metavar="FILE", help="arrivals from a file instead of rate, mixes and count")
    parser.add_argument("--mirror", action="store_true", help="open loop: send every arrival to every URL at once")
    parser.add_argument("--out", help="write the result as JSON")
    parser.add_argument("--requests-out", metavar="FILE", help="write a JSON line for each request, as it ended")
    parser.add_argument(
        "--allow-begun",
        "--allow-truncated-after-first-byte",
        type=int,
        nargs="?",
        const=math.inf,
        default=0,
        metavar="N",
        help="exit 0 when only answers that had begun were lost, and at most N of them (any number without N)",
    )
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
        series=_read_series(arguments.replay) if arguments.replay else (),
        mirrored=arguments.mirror,
    )
    if arguments.record:
        _write_series(arguments.record, tuple(series(load)))
    runner = Runner(servers, load, arguments.model, pathlib.Path(arguments.key_file).read_text().strip())
    seconds = asyncio.run(_run(runner))
    told = asdict(replace(load, series=()))
    result = {"load": told, "urls": arguments.url, **report.summary(runner.outcomes, seconds)}
    if len(arguments.url) > 1:
        result["by_url"] = {
            url: report.summary([one for one in runner.outcomes if one.url == url], seconds) for url in arguments.url
        }
    print(report.text(result))
    if arguments.requests_out:
        rows = [json.dumps(report.row(outcome)) for outcome in runner.outcomes]
        pathlib.Path(arguments.requests_out).write_text("\n".join(rows) + "\n")
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    begun = result["failed"] - result["failed_before_first_byte"]
    good = result["requests"] > 0 and result["failed_before_first_byte"] == 0 and begun <= arguments.allow_begun
    return 0 if good else 1


async def _run(runner: Runner) -> float:
    """Run to the end, or until a signal: what was measured until then is reported."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, runner.stop)
    return await runner.run()


if __name__ == "__main__":
    sys.exit(main())
