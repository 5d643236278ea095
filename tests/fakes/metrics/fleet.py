"""The fake fleet: its targets with their labels, and their metrics, which grow with each step of time."""

from __future__ import annotations

import math
from typing import Any

from . import story, whole
from .bag import Bag

PLACES = 24  # requests that a replica serves at once
BALANCERS = ("lb1", "lb2")
PRICES = {"h100": 2.9, "a100": 1.6}
SECONDS = ("0.1", "0.25", "0.5", "1", "2.5", "5", "10", "20", "30", "60", "120", "300", "600", "+Inf")
FIRST_BYTE = ("0.05", "0.1", "0.25", "0.5", "0.75", "1", "2", "5", "10", "30", "60", "+Inf")
LIMITS = {
    "limit_ttft_p99_seconds": 1,
    "limit_itl_p99_seconds": 0.1,
    "limit_e2e_p99_seconds": 60,
    "limit_error_ratio": 0.01,
    "limit_queue_seconds": 1,
    "slo_availability": 0.995,
    "slo_ttft": 0.99,
    "target_usd_per_million_tokens": 1.5,
    "pool_replicas_min": 2,
    "pool_replicas_max": 4,
}


class Fleet:
    """All targets. ``advance`` moves time; ``targets`` are file_sd entries, ``texts`` what each answers."""

    def __init__(self, now: float, minute: float = 0.0, pools: story.Pools | None = None) -> None:
        self.now, self.began, self.pools = now, now - minute * 60, pools or story.POOLS
        self.hosts = (*(host for hosts in self.pools.values() for host in hosts), *BALANCERS, "mon1")
        self.bags: dict[tuple[str, str], Bag] = {}
        self.down: set[tuple[str, str]] = set()
        self.started = dict.fromkeys(self.hosts, now - 86400 * 3)
        self.states: dict[str, story.State] = {}

    @property
    def minute(self) -> float:
        """The minute of the story."""
        return (self.now - self.began) / 60 % story.MINUTES

    def advance(self, now: float) -> None:
        """Let time pass in steps of two seconds, so that what is short is not missed."""
        while self.now < now:
            self._step(min(2.0, now - self.now))

    def text(self, job: str, target: str) -> str | None:
        """Return what a target answers; nothing for one that is down."""
        return None if (job, target) in self.down or (job, target) not in self.bags else self.bags[job, target].text()

    def targets(self) -> dict[str, list[dict[str, str]]]:
        """Return job -> labels of its targets."""
        replicas = [self._labels(pool, host) for pool, hosts in self.pools.items() for host in hosts]
        found = dict.fromkeys(("vllm", "probe_completion", "probe_models"), replicas)
        found["node"] = [{"host": host} for host in self.hosts]
        found["gpu"] = [{"host": labels["host"], "gpu_type": labels["gpu_type"]} for labels in replicas]
        for job in ("agent", "balancer_log", "nginx"):
            found[job] = [{"host": host} for host in BALANCERS]
        found["probe_service"] = [{"host": "mon1"}]
        for job in ("alertmanager", "blackbox", "grafana"):
            found[job] = [{"host": "mon1"}]
        return found

    def _labels(self, pool: str, host: str) -> dict[str, str]:
        model = "llama-70b" if pool == story.ROLLED else "qwen-14b"
        kind = {"gpu_type": pool.partition("-")[2], "region": "eu-west", "provider": "metal"}
        kind["commitment"] = "spot" if host == "gpu5" else "reserved"
        profile = "multi_turn" if pool == "chat-h100" else "streaming"
        # the inventory's word, which is that of the newest rollout for all of a pool
        about = {"model": model, "model_version": story.wanted(pool), "profile": profile, **kind}
        return {"host": host, "replica": f"{host}/r0", "pool": pool, **about}

    def _state(self, host: str, pool: str) -> story.State:
        return story.replica(host, pool, self.minute, self.pools[pool].index(host))

    def _load(self, pool: str) -> float:
        return story.load(pool, self.minute, len(self.pools[pool]))

    def _bag(self, job: str, target: str) -> Bag:
        return self.bags.setdefault((job, target), Bag())

    def _step(self, passed: float) -> None:
        self.now += passed
        for pool, hosts in self.pools.items():
            states = {host: self._state(host, pool) for host in hosts}
            serving = [host for host in hosts if states[host].in_rotation]
            arrivals = self._load(pool) * passed
            for host in hosts:
                share = arrivals / len(serving) if host in serving else 0.0
                self._replica(pool, host, states[host], share, passed)
            self._balancers(pool, states, arrivals, passed)
        for host in self.hosts:
            self._host(host, passed)
        for balancer in BALANCERS:
            self._balancer(balancer, passed)
        self._service()
        for job in ("alertmanager", "blackbox", "grafana"):
            self._bag(job, "mon1").set("process_start_time_seconds", self.began)
        self._textfiles()

    def _replica(self, pool: str, host: str, state: story.State, share: float, passed: float) -> None:
        key = ("vllm", host)
        if not state.up:
            self.bags.pop(key, None)
            self.down.add(key)
            self.started[host] = self.now
        else:
            self.down.discard(key)
            self._engine(pool, host, state, share, passed)
            self._release(pool, host, state.version)
        for job, good in (("probe_completion", state.completes), ("probe_models", state.up)):
            probe = self._bag(job, host)
            probe.set("probe_success", good)
            probe.set("probe_duration_seconds", 0.08 * state.slow if good else 5.0)
        self._gpu(pool, host, state, share / passed)

    def _release(self, pool: str, host: str, version: str) -> None:
        bag, model = self._bag("node", host), self._labels(pool, host)["model"]
        bag.samples.pop("llmops_release_info", None)  # a process has one release
        labels = {"release": f"{version}{host}", "model": model, "model_version": version, "vllm_version": "0.32.0"}
        bag.set("llmops_release_info", 1, name="r0", **labels)

    def _engine(self, pool: str, host: str, state: story.State, share: float, passed: float) -> None:
        bag, labels = self._bag("vllm", host), {"engine": "0", "model_name": self._labels(pool, host)["model"]}
        done = share if state.completes else 0.0
        answer = 260.0 if pool == story.ROLLED else 60.0
        own = 0.92 + 0.07 * (self.pools[pool].index(host) % 3)  # no two machines are the same
        pause = 0.021 * state.slow * own
        running = share / passed * answer * pause
        waiting = max(0.0, running - PLACES) * 1.6
        full = min(1.0, running / PLACES)
        bag.set("process_start_time_seconds", self.started[host])
        bag.set("process_resident_memory_bytes", 2.1e9 + 4e4 * (self.now - self.began))
        bag.set("process_open_fds", 60 + running)
        bag.set("process_max_fds", 1024)
        bag.set("vllm:num_requests_running", min(running, PLACES), **labels)
        bag.set("vllm:num_requests_waiting", waiting, **labels)
        bag.set("vllm:num_requests_waiting_by_reason", waiting, **labels, reason="capacity")
        bag.set("vllm:num_requests_waiting_by_reason", 0, **labels, reason="deferred")
        bag.set("vllm:kv_cache_usage_perc", min(0.99, 0.08 + 0.85 * full), **labels)
        for asleep in ("awake", "weights_offloaded", "discard_all"):
            bag.set("vllm:engine_sleep_state", asleep == "awake", **labels, sleep_state=asleep)
        cache = {"cache_dtype": "auto", "block_size": "16", "num_gpu_blocks": "21504"}
        cache |= {"enable_prefix_caching": "True", "gpu_memory_utilization": "0.92"}
        bag.set("vllm:cache_config_info", 1, **labels, **cache)
        prompt = done * (900 if pool == story.ROLLED else 350)
        hits = prompt * (0.55 if pool == story.ROLLED else 0.2)
        for name, value in (
            ("generation_tokens_total", done * answer),
            ("prompt_tokens_total", prompt),
            ("prompt_tokens_cached_total", hits),
            ("prefix_cache_queries_total", prompt),
            ("prefix_cache_hits_total", hits),
            ("num_preemptions_total", 0.1 * waiting / PLACES * passed),
        ):
            bag.add(f"vllm:{name}", value, **labels)
        for source, value in (("local_compute", prompt - hits), ("local_cache_hit", hits), ("external_kv_transfer", 0)):
            bag.add("vllm:prompt_tokens_by_source_total", value, **labels, source=source)
        for reason, part in (("stop", 0.82), ("length", 0.18), ("abort", 0), ("error", 0), ("repetition", 0)):
            bag.add("vllm:request_success_total", done * part, **labels, finished_reason=reason)
        refused = max(0.0, waiting - 20) * 0.02 * passed
        for reason, value in (("max_num_queued_reqs", refused), ("max_num_queued_tokens", 0)):
            bag.add("vllm:admission_rejections_total", value, model_name=labels["model_name"], reason=reason)
        for path, method, status, value in (
            ("/v1/chat/completions", "POST", "2xx", done),
            ("/v1/chat/completions", "POST", "4xx", done * 0.01),
            ("/v1/chat/completions", "POST", "5xx", refused),
            ("/v1/completions", "POST", "2xx", 0.1 * passed),
            ("/v1/models", "GET", "2xx", 0.1 * passed),
        ):
            bag.add("http_requests_total", value, handler=path, method=method, status=status)
        queue = 0.02 + 0.6 * waiting / PLACES
        prefill = 0.09 * state.slow * own * (1 + full)
        for name, count, median, spread in (
            ("request_queue_time_seconds", done, queue, 0.9),
            ("request_prefill_time_seconds", done, prefill, 0.5),
            ("request_decode_time_seconds", done, answer * pause, 0.6),
            ("time_to_first_token_seconds", done, queue + prefill, 0.7),
            ("inter_token_latency_seconds", done * answer, pause, 0.45),
            ("request_time_per_output_token_seconds", done, pause, 0.3),
            ("e2e_request_latency_seconds", done, queue + prefill + answer * pause, 0.6),
            ("request_prompt_tokens", done, 700 if pool == story.ROLLED else 300, 0.8),
            ("request_generation_tokens", done, answer * 0.8, 0.7),
            ("iteration_tokens_total", done * answer / max(1.0, min(running, PLACES)), max(1.0, running), 0.3),
        ):
            bag.observe(f"vllm:{name}", whole.REAL[f"vllm:{name}"]["le"], count, median, spread, **labels)
        if "python_info" not in bag.kinds:
            whole.complete(bag, labels)

    def _balancers(self, pool: str, states: dict[str, story.State], arrivals: float, passed: float) -> None:
        broken = arrivals * 0.15 if pool == story.ROLLED and story.within(self.minute, story.BROKEN) else 0.0
        refused = max(0.0, self._load(pool) - 3 * len(states)) * 0.05 * passed if pool == story.ROLLED else 0.0
        answer = 5.6 if pool == story.ROLLED else 1.5
        serving = [host for host, state in states.items() if state.in_rotation]
        for balancer, part in (("lb1", 0.9), ("lb2", 0.1)):
            bag = self._bag("balancer_log", balancer)
            for status, value in (
                ("200", arrivals),
                ("400", arrivals * 0.008),
                ("503", refused),
                ("499", 0.01 * passed),
            ):
                bag.add("llmops_balancer_requests_total", part * value, pool=pool, status=status)
            bag.add("llmops_balancer_requests_total", part * 0.05 * passed, pool="none", status="401")
            bag.add("llmops_balancer_retries_total", part * (broken + 0.002 * arrivals), pool=pool)
            bag.add("llmops_balancer_client_aborts_total", part * 0.03 * arrivals, pool=pool)
            bag.add("llmops_balancer_broken_streams_total", part * broken, pool=pool)
            bag.add("llmops_balancer_sent_bytes_total", part * arrivals * answer * 9000, pool=pool)
            for client, value in (("web-chat", 0.6), ("batch-jobs", 0.3), ("partner-a", 0.1)):
                bag.add("llmops_balancer_client_requests_total", part * arrivals * value, client=client, pool=pool)
            bag.observe("llmops_balancer_request_seconds", SECONDS, part * arrivals, answer, 0.7, pool=pool)
            for host in serving:
                where = {"pool": pool, "endpoint": f"10.0.0.{self.hosts.index(host) + 11}:8000"}
                count = part * arrivals / len(serving)
                bag.add("llmops_balancer_responses_total", count, **where, status="200")
                median = 0.14 * states[host].slow
                bag.observe("llmops_balancer_first_byte_seconds", FIRST_BYTE, count, median, 0.7, **where)
            agent = self._bag("agent", balancer)
            agent.set("llmops_pool_members", len(states), pool=pool)
            agent.set("llmops_pool_in_rotation", len(serving), pool=pool)
            agent.set("llmops_pool_panic", 0, pool=pool)
            for host, state in states.items():
                own = {"replica": f"{host}/r0", "pool": pool}
                agent.set("llmops_replica_in_rotation", state.in_rotation, **own)
                agent.set("llmops_replica_drained", state.drained, **own)
                agent.set("llmops_replica_weight", 1 if state.in_rotation else 0, **own)
                health = "up" if state.completes and state.slow < 1.5 else "degraded" if state.completes else "down"
                for word in ("up", "degraded", "down"):
                    agent.set("llmops_replica_health", word == health, **own, health=word)
                flying = part * arrivals / passed * answer / len(serving) if state.in_rotation else 0
                agent.set("llmops_replica_requests_in_flight", round(flying), **own)
        self._events(states)

    def _events(self, states: dict[str, story.State]) -> None:
        for host, state in states.items():
            before = self.states.get(host, state)
            self.states[host] = state
            for balancer in BALANCERS:
                bag = self._bag("agent", balancer)
                changes = {"ejected": before.in_rotation and not state.in_rotation and not state.drained}
                changes["returned"] = state.in_rotation and not before.in_rotation
                changes["drained"] = state.drained and not before.drained
                for event, happened in changes.items():
                    bag.add("llmops_agent_events_total", happened, event=event)

    def _balancer(self, host: str, passed: float) -> None:
        agent, nginx = self._bag("agent", host), self._bag("nginx", host)
        for name in ("engine_alive", "engine_view_confirmed", "balancer_may_hold_address"):
            agent.set(f"llmops_{name}", 1)
        agent.set("llmops_balancer_peer_reachable", 1, peer="lb2" if host == "lb1" else "lb1")
        agent.set("llmops_agent_problems", 0)
        active = 0.9 if host == "lb1" else 0.1
        nginx.set("nginx_up", 1)
        nginx.set("nginx_connections_active", round(active * (60 + 20 * math.sin(self.minute / 3))))
        nginx.set("nginx_connections_waiting", round(active * 25))
        nginx.add("nginx_http_requests_total", active * 12 * passed)

    def _service(self) -> None:
        bag = self._bag("probe_service", "mon1")
        bag.set("probe_success", 1)
        bag.set("probe_duration_seconds", 0.03)
        bag.set("probe_ssl_earliest_cert_expiry", self.began + 86400 * 61)

    def _gpu(self, pool: str, host: str, state: story.State, rate: float) -> None:
        bag, busy = self._bag("gpu", host), min(1.0, 0.1 + rate / 2.2) if state.up else 0.0
        xid = host == "gpu2" and story.within(self.minute, story.XID)
        heat = 50 + 28 * busy + (12 if state.slow > 1 else 0)
        for index in range(2):
            uuid = f"{host}-{index}"
            if pool == story.ROLLED:
                self._dcgm(bag, uuid, busy, heat, state)
                bag.samples.pop("DCGM_EXP_XID_ERRORS_COUNT", None)
                bag.kinds.pop("DCGM_EXP_XID_ERRORS_COUNT", None)
                if xid:
                    bag.set("DCGM_EXP_XID_ERRORS_COUNT", 1, UUID=f"GPU-{uuid}", xid="48")
            else:
                self._nvidia_smi(bag, uuid, busy, heat)
                if self.minute > story.XID[0]:
                    reported = self.now - (self.minute - story.XID[0]) * 60
                    bag.set("nvidia_smi_xid_last_timestamp_seconds", reported, uuid=uuid, xid="31")

    def _dcgm(self, bag: Bag, uuid: str, busy: float, heat: float, state: story.State) -> None:
        labels = {"gpu": uuid[-1], "UUID": f"GPU-{uuid}"}
        for name, value in (
            ("DEV_GPU_UTIL", round(busy * 100)),
            ("DEV_FB_USED", 74500),
            ("DEV_FB_FREE", 6000),
            ("DEV_FB_RESERVED", 500),
            ("DEV_GPU_TEMP", round(heat)),
            ("DEV_POWER_USAGE", 120 + 540 * busy),
            ("DEV_SM_CLOCK", 1980 / state.slow),
            ("DEV_ECC_DBE_VOL_TOTAL", 0),
            ("DEV_ROW_REMAP_FAILURE", 0),
            ("DEV_RETIRED_PENDING", 0),
            ("PROF_PIPE_TENSOR_ACTIVE", 0.35 * busy),
            ("PROF_DRAM_ACTIVE", 0.7 * busy),
        ):
            bag.set(f"DCGM_FI_{name}", value, **labels)
        bag.add("DCGM_FI_DEV_THERMAL_VIOLATION", 0.3e9 if state.slow > 1 else 0, **labels)
        for name in ("CRC_FLIT", "CRC_DATA", "REPLAY", "RECOVERY"):
            bag.add(f"DCGM_FI_DEV_NVLINK_{name}_ERROR_COUNT_TOTAL", 0, **labels)

    def _nvidia_smi(self, bag: Bag, uuid: str, busy: float, heat: float) -> None:
        for name, value in (
            ("utilization_gpu_ratio", busy),
            ("utilization_memory_ratio", 0.6 * busy),
            ("memory_used_bytes", 74.5 * 2**30),
            ("memory_total_bytes", 80 * 2**30),
            ("temperature_gpu", heat),
            ("power_draw_watts", 70 + 300 * busy),
            ("clocks_current_sm_clock_hz", 1.41e9),
            ("ecc_errors_uncorrected_volatile_total", 0),
            ("remapped_rows_failure", 0),
            ("remapped_rows_pending", 0),
            ("clocks_event_reasons_hw_thermal_slowdown", 0),
            ("clocks_event_reasons_hw_power_brake_slowdown", 0),
            ("gpu_recovery_action", 0),
            ("fabric_state", 3),
        ):
            bag.set(f"nvidia_smi_{name}", value, uuid=uuid)
        bag.set("nvidia_smi_last_collect_success", 1)

    def _host(self, host: str, passed: float) -> None:
        bag, total = self._bag("node", host), (1024 if host.startswith("gpu") else 16) * 2**30
        bag.set("node_memory_MemTotal_bytes", total)
        bag.set("node_memory_MemAvailable_bytes", total * (0.62 - 0.05 * math.sin(self.minute / 5 + len(host))))
        disk = {"device": "/dev/nvme0n1p1", "fstype": "ext4", "mountpoint": "/"}
        bag.set("node_filesystem_size_bytes", 2e12, **disk)
        bag.set("node_filesystem_avail_bytes", 2e12 * (0.3 + 0.05 * self.hosts.index(host)), **disk)
        bag.add("node_vmstat_oom_kill", 0)
        busy = 0.35 + 0.1 * math.sin(self.minute + self.hosts.index(host))
        for mode, part in (("user", busy), ("idle", 1 - busy)):
            bag.add("node_cpu_seconds_total", part * passed, cpu="0", mode=mode)

    def _textfiles(self) -> None:
        files = [("mon1", "llmops.prom", 1800)]
        files += [(host, f"rollouts_{pool}.prom", 600) for host in BALANCERS for pool in self.pools]
        for host, name, every in files:
            written = self.now - (self.now - self.began) % every
            path = f"/var/lib/prometheus/node-exporter/{name}"
            self._bag("node", host).set("node_textfile_mtime_seconds", written, file=path)
        prices = self._bag("node", "mon1")
        for pool, hosts in self.pools.items():
            for name, value in LIMITS.items():
                prices.set(f"llmops_{name}", value, pool=pool)
            for host in hosts:
                about = self._labels(pool, host)
                names = ("host", "replica", "pool", "gpu_type", "region", "provider", "commitment")
                labels: dict[str, Any] = {name: about[name] for name in names}
                price = PRICES[about["gpu_type"]] * 2 * (0.4 if about["commitment"] == "spot" else 1)
                prices.set("llmops_replica_price_usd_per_hour", price, **labels)
                prices.set("llmops_gpus_expected", 2, host=host)
                prices.set("llmops_gpu_memory_utilization_target", 0.92, host=host)
        prices.set("llmops_budget_daily_usd", 600)
        prices.set("llmops_budget_monthly_usd", 17000)
        for balancer in BALANCERS:
            self._rollout(self._bag("node", balancer))

    def _rollout(self, bag: Bag) -> None:
        labels = {"pool": story.ROLLED, "action": "update"}
        began = self.now - (self.minute - story.FIRST_ROLLED) * 60
        ended = began + story.PER_REPLICA * len(self.pools[story.ROLLED]) * 60
        if story.rollout(self.minute, len(self.pools[story.ROLLED])):
            bag.set("llmops_rollout_in_progress", 1, **labels)
            bag.set("llmops_rollout_in_progress_start_timestamp_seconds", began, **labels)
            return
        bag.set("llmops_rollout_in_progress", 0, **labels)
        bag.samples.pop("llmops_rollout_in_progress_start_timestamp_seconds", None)
        bag.kinds.pop("llmops_rollout_in_progress_start_timestamp_seconds", None)
        last = began if ended <= self.now else began - story.MINUTES * 60
        for name, value in (
            ("last_start_timestamp_seconds", last),
            ("last_end_timestamp_seconds", last + (ended - began)),
            ("last_duration_seconds", ended - began),
            ("last_result", 1),
            ("rollbacks", 0),
            ("requests_seen", 6400),
            ("requests_cut", 0),
        ):
            bag.set(f"llmops_rollout_{name}", value, **labels)
        for outcome, count in (("done", 3), ("rolled_back", 0)):
            bag.set("llmops_rollout_last_replicas", count, **labels, outcome=outcome)
        for step, seconds in (
            ("drain", 5),
            ("wait", 57),
            ("stop", 9),
            ("change", 2),
            ("start", 1),
            ("ready", 31),
            ("put_back", 5),
            ("watch", 62),
        ):
            bag.set("llmops_rollout_step_seconds", 3 * seconds, **labels, step=step)
            bag.set("llmops_rollout_step_longest_seconds", seconds * 1.2, **labels, step=step)
