"""FAKE vLLM: ``/metrics`` with the names, types, labels and buckets of vLLM 0.32.

``tests/fakes/vllm/metrics_0.32.json`` is what was measured; a test compares.
"""

from __future__ import annotations

import bisect
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping

Labels = Mapping[str, str]

_TTFT = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0]
_TTFT += [160.0, 640.0, 2560.0]
_ITL = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0]
_LATENCY = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0]
_LATENCY += [960.0, 1920.0, 7680.0]
_LENGTH = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
_STEP = [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0]
_HTTP = [0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0]
HISTOGRAMS = {
    "vllm:request_prompt_tokens": _LENGTH,
    "vllm:request_generation_tokens": _LENGTH,
    "vllm:iteration_tokens_total": _STEP,
    "vllm:request_max_num_generation_tokens": _LENGTH,
    "vllm:request_params_n": _LENGTH[:5],
    "vllm:request_params_max_tokens": _LENGTH,
    "vllm:time_to_first_token_seconds": _TTFT,
    "vllm:inter_token_latency_seconds": _ITL,
    "vllm:request_time_per_output_token_seconds": _ITL,
    "vllm:e2e_request_latency_seconds": _LATENCY,
    "vllm:request_queue_time_seconds": _LATENCY,
    "vllm:request_inference_time_seconds": _LATENCY,
    "vllm:request_prefill_time_seconds": _LATENCY,
    "vllm:request_decode_time_seconds": _LATENCY,
    "vllm:request_num_preemptions": [1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0],
    "vllm:request_prefill_kv_computed_tokens": _LENGTH,
}
FINISHED = ("stop", "length", "abort", "error", "repetition")
REJECTED = ("max_num_queued_reqs", "max_num_queued_tokens")
# Counters that this fake never moves, with the values of their further label.
_STILL: dict[str, tuple[str, tuple[str, ...]]] = {
    "vllm:estimated_flops_per_gpu_total": ("", ()),
    "vllm:estimated_read_bytes_per_gpu_total": ("", ()),
    "vllm:estimated_write_bytes_per_gpu_total": ("", ()),
    "vllm:prefix_cache_hits_total": ("", ()),
    "vllm:external_prefix_cache_queries_total": ("", ()),
    "vllm:external_prefix_cache_hits_total": ("", ()),
    "vllm:mm_cache_queries_total": ("", ()),
    "vllm:mm_cache_hits_total": ("", ()),
    "vllm:prompt_tokens_cached_total": ("", ()),
    "vllm:prompt_tokens_cached_by_source_total": ("source", ("device", "host", "p2p", "disk", "external_unspecified")),
}


class Histogram:
    """Counts per bucket and the sum."""

    def __init__(self, bounds: list[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Put a value into its bucket."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.sum += value

    def rows(self, name: str, labels: Labels) -> Iterator[str]:
        """Yield the lines of the page."""
        total = 0
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts):
            total += count
            yield _row(f"{name}_bucket", {**labels, "le": bound}, total)
        yield _row(f"{name}_count", labels, total)
        yield _row(f"{name}_sum", labels, self.sum)


def _row(name: str, labels: Labels, value: float) -> str:
    told = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
    return f"{name}{{{told}}} {float(value)}" if told else f"{name} {float(value)}"


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, model: str, cache: Labels) -> None:
        self.engine = {"engine": "0", "model_name": model}
        self.cache = {**cache, "engine": "0"}
        self.begun = time.time()
        self.histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}
        self.prompt_tokens = self.generation_tokens = self.preemptions = 0
        self.finished: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.http: Counter[tuple[str, str, str]] = Counter()
        self.http_all = Histogram([*_HTTP, 60.0])
        self.http_by_handler: dict[tuple[str, str], Histogram] = {}

    def observe(self, name: str, value: float) -> None:
        """Put a value into the histogram of this name."""
        self.histograms[name].observe(value)

    def answered(self, handler: str, method: str, status: int, seconds: float) -> None:
        """Count an answer, as the API server's middleware does."""
        self.http[handler, method, f"{status // 100}xx"] += 1
        self.http_all.observe(seconds)
        self.http_by_handler.setdefault((handler, method), Histogram([0.1, 0.5, 1.0])).observe(seconds)

    def text(self, running: int, waiting: int, kv_usage: float) -> str:
        """Return the page."""
        return "\n".join([*self._gauges(running, waiting, kv_usage), *self._counters(), *self._histograms(), ""])

    def _gauges(self, running: int, waiting: int, kv_usage: float) -> Iterator[str]:
        labels = self.engine
        yield from _process()
        yield from _family("process_start_time_seconds", "gauge", [({}, self.begun)])
        yield from _family("vllm:num_requests_running", "gauge", [(labels, running)])
        yield from _family("vllm:num_requests_waiting", "gauge", [(labels, waiting)])
        reasons = {"capacity": waiting, "deferred": 0}
        rows: list[tuple[Labels, float]] = [({**labels, "reason": key}, value) for key, value in reasons.items()]
        yield from _family("vllm:num_requests_waiting_by_reason", "gauge", rows)
        states = {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
        rows = [({**labels, "sleep_state": key}, value) for key, value in states.items()]
        yield from _family("vllm:engine_sleep_state", "gauge", rows)
        yield from _family("vllm:kv_cache_usage_perc", "gauge", [(labels, kv_usage)])
        yield from _family("vllm:cache_config_info", "gauge", [(self.cache, 1)])

    def _counters(self) -> Iterator[str]:
        labels = self.engine
        counters: dict[str, list[tuple[Labels, float]]] = {
            "vllm:prefix_cache_queries_total": [(labels, self.prompt_tokens)],
            "vllm:num_preemptions_total": [(labels, self.preemptions)],
            "vllm:prompt_tokens_total": [(labels, self.prompt_tokens)],
            "vllm:prompt_tokens_by_source_total": [
                ({**labels, "source": "local_compute"}, self.prompt_tokens),
                ({**labels, "source": "local_cache_hit"}, 0),
                ({**labels, "source": "external_kv_transfer"}, 0),
            ],
            "vllm:generation_tokens_total": [(labels, self.generation_tokens)],
            "vllm:request_success_total": [
                ({**labels, "finished_reason": key}, self.finished[key]) for key in FINISHED
            ],
            "vllm:admission_rejections_total": [
                ({"model_name": labels["model_name"], "reason": key}, self.rejected[key]) for key in REJECTED
            ],
            "http_requests_total": [
                ({"handler": handler, "method": method, "status": status}, count)
                for (handler, method, status), count in self.http.items()
            ],
        }
        for name, (key, values) in _STILL.items():
            counters[name] = [({**labels, key: value}, 0) for value in values] if key else [(labels, 0)]
        for name, rows in counters.items():
            yield from _family(name, "counter", rows)
            yield from self._created(name[: -len("_total")], [row for row, _unused in rows])

    def _histograms(self) -> Iterator[str]:
        for name, histogram in self.histograms.items():
            yield from (f"# HELP {name} FAKE", f"# TYPE {name} histogram")
            yield from histogram.rows(name, self.engine)
            yield from self._created(name, [self.engine])
        name = "http_request_duration_highr_seconds"
        yield from (f"# HELP {name} FAKE", f"# TYPE {name} histogram")
        yield from self.http_all.rows(name, {})
        name = "http_request_duration_seconds"
        yield from (f"# HELP {name} FAKE", f"# TYPE {name} histogram")
        for (handler, method), histogram in self.http_by_handler.items():
            yield from histogram.rows(name, {"handler": handler, "method": method})

    def _created(self, name: str, rows: list[Labels]) -> Iterator[str]:
        """The noise that the Python client adds to every counter and histogram."""
        yield from _family(f"{name}_created", "gauge", [(labels, self.begun) for labels in rows])


def _family(name: str, kind: str, rows: list[tuple[Labels, float]]) -> Iterator[str]:
    yield from (f"# HELP {name} FAKE", f"# TYPE {name} {kind}")
    yield from (_row(name, labels, value) for labels, value in rows)


def _process() -> Iterator[str]:
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = [int(word) for word in file.read().split()]
    used = resource.getrusage(resource.RUSAGE_SELF)
    size = os.sysconf("SC_PAGE_SIZE")
    yield from _family("process_virtual_memory_bytes", "gauge", [({}, pages[0] * size)])
    yield from _family("process_resident_memory_bytes", "gauge", [({}, pages[1] * size)])
    yield from _family("process_cpu_seconds_total", "counter", [({}, used.ru_utime + used.ru_stime)])
    yield from _family("process_open_fds", "gauge", [({}, len(os.listdir("/proc/self/fd")))])  # noqa: PTH208
    yield from _family("process_max_fds", "gauge", [({}, resource.getrlimit(resource.RLIMIT_NOFILE)[0])])
