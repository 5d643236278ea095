# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a replica is probed, and when what is seen counts. Seconds, unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Figures of the judge. Their reasons: facts measured on vLLM 0.32 and the promises of docs/traffic.md."""

    connect_interval: float = 0.5  # between two connects of a replica that answers them
    connect_timeout: float = 0.5  # after which a connect has failed: a network of one site answers in milliseconds
    scrape_interval: float = 1.5  # between two readings of /metrics
    completion_interval: float = 10  # between two completions of a replica in rotation
    unproven_share: float = 0.75  # of that interval, where no first token of a client shows meanwhile that it generates
    probe_timeout: float = 4.0  # of a reading or completion: above the longest stall that is normal (3.5)
    connect_again: float = 0.1  # until the second connect when the first one failed
    suspicion_interval: float = 0.25  # until the second completion when the first one failed
    suspicion_scrape: float = 0.5  # between readings while the engine seems to stand still
    return_interval: float = 1.0  # between completions of a replica that is out, or suspected to be slow
    good_rounds: int = 3  # in a row, after which a replica returns
    silence: float = 3.8  # without a step or an answer, after which it is wedged: between 3.5 (normal) and 6 (never)
    unreachable_is_fact: float = 5.0  # without any sign of life, after which a judgement becomes a fact
    latency_degraded: float = 0.5  # to the first token, without the queue
    latency_eject: float = 1.0
    latency_factor: float = 3.0  # times the median of the others
    latency_window: float = 10  # over which the first tokens are averaged
    latency_latest: float = 2  # the part of it that must be slow, too, before a replica leaves
    latency_samples: int = 3  # below which the average says nothing
    latency_evaluations: int = 3  # in a row, a second apart, before a slow replica leaves
    max_out_percent: float = 34  # of a pool, that judgements may take out; one at least where there are two or more
    ejections_window: float = 600
    ejections_many: int = 3  # within the window, after which twice as many good rounds are needed
    degraded_weight: float = 0.5  # share of a full replica, 0 to 1
    agent_gap: float = 1.0  # between two beats of the agent (0.1): where it is longer, the agent itself did not run


@dataclass(frozen=True)
class Due:
    """When the next probe of each kind is to start, on the judge's clock; None: not at all."""

    connect: float
    scrape: float
    completion: float | None
