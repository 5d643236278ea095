"""FAKE vLLM: ``/metrics`` with the names, types and buckets of vLLM 0.32 for what load and health are read from."""

from __future__ import annotations

import bisect
from collections import Counter

_LATENCY = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0]
_TTFT = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0]
_ITL = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0]
_TOKENS = [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0]
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": _TTFT,
    "vllm:inter_token_latency_seconds": _ITL,
    "vllm:e2e_request_latency_seconds": _LATENCY,
    "vllm:request_queue_time_seconds": _LATENCY,
    "vllm:iteration_tokens_total": _TOKENS,
}
REASONS = ("stop", "length", "abort", "error", "repetition")


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, model: str, kv_tokens: int) -> None:
        self.labels = f'engine="0",model_name="{model}"'
        self.kv_tokens = kv_tokens
        self.buckets = {name: [0] * (len(bounds) + 1) for name, bounds in HISTOGRAMS.items()}
        self.sums: Counter[str] = Counter()
        self.prompt_tokens = self.generation_tokens = self.rejections = 0
        self.finished: Counter[str] = Counter()
        self.http: Counter[tuple[str, str, str]] = Counter()

    def observe(self, name: str, value: float) -> None:
        """Put a value into a histogram."""
        self.buckets[name][bisect.bisect_left(HISTOGRAMS[name], value)] += 1
        self.sums[name] += value

    def text(self, running: int, waiting: int, kv_used: int) -> str:
        """Return the page."""
        labels = self.labels
        values: list[tuple[str, str, str, float]] = [
            ("vllm:num_requests_running", "gauge", labels, running),
            ("vllm:num_requests_waiting", "gauge", labels, waiting),
            ("vllm:kv_cache_usage_perc", "gauge", labels, min(1.0, kv_used / self.kv_tokens)),
            ("vllm:num_preemptions_total", "counter", labels, 0),
            ("vllm:prompt_tokens_total", "counter", labels, self.prompt_tokens),
            ("vllm:generation_tokens_total", "counter", labels, self.generation_tokens),
            ("vllm:admission_rejections_total", "counter", f'{labels},reason="queue_full"', self.rejections),
        ]
        for reason in REASONS:
            row = f'engine="0",finished_reason="{reason}",{labels.split(",")[1]}'
            values.append(("vllm:request_success_total", "counter", row, self.finished[reason]))
        info = f'block_size="128",engine="0",kv_cache_size_tokens="{self.kv_tokens}"'
        values.append(("vllm:cache_config_info", "gauge", info, 1))
        for (handler, method, status), count in self.http.items():
            row = f'handler="{handler}",method="{method}",status="{status}"'
            values.append(("http_requests_total", "counter", row, count))
        lines, seen = [], set()
        for name, kind, row, value in values:
            if name not in seen:
                seen.add(name)
                lines += [f"# HELP {name} fake", f"# TYPE {name} {kind}"]
            lines.append(f"{name}{{{row}}} {float(value)}")
        for name, bounds in HISTOGRAMS.items():
            lines += [f"# HELP {name} fake", f"# TYPE {name} histogram"]
            total = 0
            for bound, count in zip([*map(str, bounds), "+Inf"], self.buckets[name]):
                total += count
                lines.append(f'{name}_bucket{{engine="0",le="{bound}",{labels.split(",")[1]}}} {float(total)}')
            lines += [f"{name}_count{{{labels}}} {float(total)}", f"{name}_sum{{{labels}}} {float(self.sums[name])}"]
        return "\n".join(lines) + "\n"
