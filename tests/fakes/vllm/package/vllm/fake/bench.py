"""FAKE ``vllm bench serve``: real requests, few of the options, and a result of the same form.

Prompts are letters, of which the fake server counts each as a token. What an option that is not here would do is not
known here, so it ends with exit status 2, as an unknown one does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import pathlib
import random
import ssl
import string
import threading
import time
from typing import Any
from urllib.parse import urlsplit


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm bench serve", allow_abbrev=False)
    for name in ("backend", "base-url", "endpoint", "model", "tokenizer", "dataset-name", "result-dir"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("random-input-len", "random-output-len", "num-prompts", "num-warmups", "seed", "max-concurrency"):
        parser.add_argument(f"--{name}", type=int, default=0)
    for name in ("prefix-len", "suffix-len", "num-prefixes", "output-len"):
        parser.add_argument(f"--prefix-repetition-{name}", type=int, default=0)
    for name in ("request-rate", "burstiness", "temperature"):
        parser.add_argument(f"--{name}", type=float, default=1.0)
    for name in ("ignore-eos", "disable-tqdm", "save-result", "save-detailed"):
        parser.add_argument(f"--{name}", action="store_true")
    for name in ("percentile-metrics", "metric-percentiles", "result-filename"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--goodput", nargs="+", default=[])
    return parser.parse_args(words)


class _Run:
    """Asks the prompts and keeps what came of each, in their order."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.shared = args.dataset_name == "prefix_repetition"
        self.length = args.prefix_repetition_output_len if self.shared else args.random_output_len
        self.rows: list[dict[str, Any]] = [{} for _prompt in range(args.num_prompts)]

    def prompts(self) -> list[str]:
        draw = random.Random(self.args.seed)

        def text(length: int) -> str:
            return "".join(draw.choices(string.ascii_letters, k=length))

        if not self.shared:
            return [text(self.args.random_input_len) for _row in self.rows]
        begin = [
            text(self.args.prefix_repetition_prefix_len) for _one in range(self.args.prefix_repetition_num_prefixes)
        ]
        return [begin[n % len(begin)] + text(self.args.prefix_repetition_suffix_len) for n in range(len(self.rows))]

    def all(self) -> float:
        """Ask everything; the seconds that it took."""
        prompts = self.prompts()
        for _warmup in range(self.args.num_warmups):
            self.ask(prompts[0])
        began = time.perf_counter()
        slots = threading.Semaphore(self.args.max_concurrency or len(prompts))

        def one(number: int) -> None:
            with slots:
                self.rows[number] = self.ask(prompts[number])

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(prompts))]
        for number, thread in enumerate(threads):
            time.sleep(max(0.0, began + number / self.args.request_rate - time.perf_counter()))
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - began

    def ask(self, prompt: str) -> dict[str, Any]:
        row = {"start": time.perf_counter(), "input": len(prompt), "output": 0, "ttft": 0.0, "itls": [], "latency": 0.0}
        try:
            error = self._stream(prompt, row)
        except (OSError, http.client.HTTPException) as problem:
            error = str(problem)
        return {**row, "error": error}

    def _stream(self, prompt: str, row: dict[str, Any]) -> str:
        at = urlsplit(self.args.base_url)
        connection: http.client.HTTPConnection = http.client.HTTPConnection(at.hostname or "", at.port)
        if at.scheme == "https":
            trust = ssl.create_default_context()
            connection = http.client.HTTPSConnection(at.hostname or "", at.port, context=trust)
        body = {"model": self.args.model, "prompt": prompt, "max_tokens": self.length, "temperature": 0, "stream": True}
        body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
        headers = {"Content-Type": "application/json"}
        if os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"
        connection.request("POST", self.args.endpoint, json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return answer.reason
        for line in answer:
            data = line.partition(b"data: ")[2].strip()
            event = json.loads(data) if data and data != b"[DONE]" else {}
            if event.get("choices"):
                now = time.perf_counter() - row["start"]
                row["itls"] += [now - row["latency"]] if row["ttft"] else []
                row["ttft"], row["latency"] = row["ttft"] or now, now
                row["output"] += 1
            elif event.get("usage"):
                row["output"] = event["usage"]["completion_tokens"]
        return "" if row["ttft"] else "Never received a valid chunk to calculate TTFT."


def _percentiles(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {f"p{p}_{name}_ms": ordered[min(len(ordered) - 1, len(ordered) * p // 100)] * 1000 for p in (50, 90, 99)}


def _result(run: _Run, duration: float) -> dict[str, Any]:
    good = [row for row in run.rows if not row["error"]]
    tpots = [(row["latency"] - row["ttft"]) / (row["output"] - 1) for row in good if row["output"] > 1]
    inputs, outputs = sum(row["input"] for row in good), sum(row["output"] for row in good)
    return {
        "num_prompts": run.args.num_prompts,
        "duration": duration,
        "completed": len(good),
        "failed": len(run.rows) - len(good),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(good) / duration,
        "request_goodput": None,
        "output_throughput": outputs / duration,
        "total_token_throughput": (inputs + outputs) / duration,
        "output_lens": [row["output"] for row in run.rows],
        "ttfts": [row["ttft"] for row in run.rows],
        "latencies": [row["latency"] for row in run.rows],
        "start_times": [row["start"] for row in run.rows],
        "errors": [row["error"] for row in run.rows],
        **_percentiles("ttft", [row["ttft"] for row in good]),
        **_percentiles("tpot", tpots),
        **_percentiles("itl", [itl for row in good for itl in row["itls"]]),
        **_percentiles("e2el", [row["latency"] for row in good]),
    }


def bench_serve(words: list[str]) -> None:
    """Ask, and write the result."""
    run = _Run(_arguments(words))
    duration = run.all()
    path = pathlib.Path(run.args.result_dir, run.args.result_filename)
    path.write_text(json.dumps(_result(run, duration)), encoding="utf-8")
    print(f"Successful requests: {sum(not row['error'] for row in run.rows)} (this is the fake)")
