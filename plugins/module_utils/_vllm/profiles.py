# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The profiles: sets of vLLM's flags for a kind of traffic, each flag with the reason for its value.

A value stands here only where it differs from what vLLM chooses by itself or where the profile depends on it. What
vLLM 0.32 already does (chunked prefill, asynchronous scheduling, continuous batching) is not repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flag:
    """One flag of a profile: its value, why, and why a host without GPUs does not get it (empty: it does)."""

    name: str
    value: Any
    why: str
    not_on_cpu: str = ""


@dataclass(frozen=True)
class Profile:
    """A named set of flags; ``queue_depth`` bounds the queue where ``max-num-seqs`` is known (None: no bound)."""

    name: str
    purpose: str
    flags: tuple[Flag, ...]
    queue_depth: int | None = None
    queue_why: str = ""


def _memory(value: float, why: str) -> Flag:
    return Flag(
        "gpu-memory-utilization",
        value,
        why,
        "on the CPU it is a share of the host's memory: set kv-cache-memory-bytes in vllm_flags",
    )


# Every replica gets these, whatever its profile.
COMMON: tuple[Flag, ...] = (
    Flag(
        "disable-access-log-for-endpoints",
        "/health,/metrics",
        "Probes and scrapes come several times per second and would bury the requests in the journal.",
    ),
    Flag("enable-server-load-tracking", True, "Without it /load always answers 0."),
)

_TOKEN_DETAILS = Flag(
    "enable-prompt-tokens-details",
    True,
    "Reports cached prompt tokens in `usage`: without it nobody can see what prefix caching saves.",
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "baseline",
            "Mixed traffic, or not known yet.",
            (
                _memory(0.92, "vLLM's own default since CUDA graphs count inside the budget; 0.85 gives memory away."),
                Flag("shutdown-timeout", 120, "Running requests finish after a stop; vLLM's default 0 cuts them."),
                _TOKEN_DETAILS,
            ),
        ),
        Profile(
            "long_context",
            "Prompts of tens of thousands of tokens.",
            (
                _memory(
                    0.95,
                    "Long prompts need more KV cache, not less: the often read advice to lower this value for long "
                    "context shrinks the very pool that the context lives in.",
                ),
                Flag(
                    "kv-cache-dtype",
                    "fp8",
                    "Halves the KV cache, so twice the context fits; compare answers before you go live.",
                    "8-bit KV cache needs a GPU",
                ),
                Flag("max-num-seqs", 32, "Few long sequences fill the cache; more would only preempt each other."),
                Flag(
                    "max-num-batched-tokens",
                    16384,
                    "Larger prefill steps bring the first token of a long prompt sooner.",
                ),
                Flag(
                    "long-prefill-token-threshold",
                    4096,
                    "One long prompt takes at most this much of a step, so others go on meanwhile.",
                ),
                Flag("shutdown-timeout", 300, "A long prompt alone can take minutes."),
                _TOKEN_DETAILS,
            ),
            queue_depth=16,
            queue_why="Each waiting prompt costs seconds of prefill: refuse early (503), so that the client knows.",
        ),
        Profile(
            "multi_turn",
            "Chats that send their history with every turn.",
            (
                _memory(0.92, "The prefix cache lives in what the running requests leave over."),
                Flag(
                    "enable-prefix-caching",
                    True,
                    "vLLM's default, written down because this profile rests on it; recipes made for benchmarks "
                    "switch it off.",
                ),
                Flag("max-num-seqs", 256, "Room for many short turns beside each other."),
                Flag("max-num-batched-tokens", 8192, "The same on every GPU; smaller cards would get 2048."),
                Flag(
                    "long-prefill-token-threshold",
                    2048,
                    "A pasted document does not stall the chats beside it.",
                ),
                Flag("shutdown-timeout", 120, "Running turns finish after a stop."),
                _TOKEN_DETAILS,
            ),
            queue_depth=64,
            queue_why="More waiting turns than this miss any chat's patience: refuse early (503).",
        ),
        Profile(
            "streaming",
            "People who watch tokens appear.",
            (
                _memory(0.90, "Steady spacing of tokens is worth more than the last bit of cache."),
                Flag("performance-mode", "interactivity", "Finer CUDA graphs for small batches."),
                Flag(
                    "max-num-batched-tokens",
                    2048,
                    "Short steps: a prefill in between delays everyone's next token less. 4096 and more is for "
                    "throughput.",
                ),
                Flag("max-num-seqs", 64, "The batch size bounds the time between two tokens."),
                Flag("long-prefill-token-threshold", 1024, "Half a step at most for one long prompt."),
                Flag("stream-interval", 1, "Every token is sent at once."),
                Flag("shutdown-timeout", 60, "Answers are short; so is the wait for them."),
                _TOKEN_DETAILS,
            ),
            queue_depth=16,
            queue_why="Who would wait long for a first token is told at once (503), and may ask again.",
        ),
        Profile(
            "batch",
            "Jobs that count tokens per hour; nobody waits.",
            (
                _memory(0.95, "All memory works: more cache, larger batches."),
                Flag("performance-mode", "throughput", "Larger steps and graphs."),
                Flag("max-num-seqs", 1024, "The engine batches by itself and continuously, as wide as this."),
                Flag(
                    "max-num-batched-tokens",
                    16384,
                    "Full steps. Collecting requests for 50 to 100 ms before sending them, as is often advised, only "
                    "adds latency.",
                ),
                Flag("stream-interval", 10, "Ten tokens in an event: less work for each."),
                Flag("shutdown-timeout", 600, "Long generations finish after a stop."),
            ),
        ),
    )
}
