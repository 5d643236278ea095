# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When flags of ``vllm serve`` came and went: read off the parsers of 39 versions, 0.8.5 and 0.10.0 to 0.33.0.

The one place of this knowledge: the check on the host gets it with its request, the catalogue's files are made with
it, and ``tools/flag_catalogue.py`` refuses a version whose parser shows what is not said here.
"""

from __future__ import annotations

# Flags that vLLM dropped: the last version that had them, and what to do today.
REMOVED: dict[str, tuple[str, str]] = {
    "use-v2-block-manager": ("0.9.2", "remove it: there is only one block manager"),
    "multi-step-stream-outputs": ("0.10.0", "remove it: use stream-interval to send several tokens at once"),
    "num-scheduler-steps": ("0.10.0", "remove it: the engine schedules asynchronously by itself (async-scheduling)"),
    "enable-prompt-adapter": ("0.10.1.1", "remove it: prompt adapters are gone, use enable-lora"),
    "disable-async-output-proc": ("0.10.2", "remove it: outputs are always processed beside the engine"),
    "max-seq-len-to-capture": ("0.10.2", "use max-cudagraph-capture-size, which counts sequences of a batch"),
    "preemption-mode": ("0.10.2", "remove it: preempted requests are always computed again"),
    "scheduler-delay-factor": ("0.10.2", "remove it: batching is continuous, waiting only adds latency"),
    "enable-lora-bias": ("0.11.0", "remove it: adapters with a bias are not supported"),
    "rope-scaling": ("0.11.0", "use hf-overrides with the key rope_parameters"),
    "rope-theta": ("0.11.0", "use hf-overrides with the key rope_parameters"),
    "eplb-log-balancedness": ("0.11.2", "use eplb-config with the key log_balancedness"),
    "eplb-step-interval": ("0.11.2", "use eplb-config with the key step_interval"),
    "eplb-window-size": ("0.11.2", "use eplb-config with the key window_size"),
    "num-redundant-experts": ("0.11.2", "use eplb-config with the key num_redundant_experts"),
    "guided-decoding-backend": ("0.11.2", "use structured-outputs-config with the key backend"),
    "guided-decoding-disable-additional-properties": (
        "0.11.2",
        "use structured-outputs-config with the key disable_additional_properties",
    ),
    "guided-decoding-disable-any-whitespace": (
        "0.11.2",
        "use structured-outputs-config with the key disable_any_whitespace",
    ),
    "guided-decoding-disable-fallback": ("0.11.2", "remove it: name one backend in structured-outputs-config instead"),
    "lora-extra-vocab-size": ("0.11.2", "remove it: adapters may not add tokens any more"),
    "num-lookahead-slots": ("0.11.2", "remove it: speculative-config decides it"),
    "override-pooler-config": ("0.11.2", "use pooler-config"),
    "cuda-graph-sizes": ("0.12.0", "use cudagraph-capture-sizes"),
    "disable-mm-preprocessor-cache": ("0.12.0", "use mm-processor-cache-gb: 0"),
    "enable-multimodal-encoder-data-parallel": ("0.12.0", "use mm-encoder-tp-mode: data"),
    "task": ("0.12.0", "use runner, and convert where a generative model serves as another kind"),
    "disable-log-requests": ("0.16.0", "remove it: requests are not logged unless enable-log-requests is true"),
    "logits-processor-pattern": ("0.16.0", "use logits-processors, which names them at start"),
    "swap-space": ("0.17.1", "use kv-offloading-size (GiB of host memory for the KV cache)"),
    "disable-frontend-multiprocessing": ("0.18.1", "remove it: the engine always has its own process"),
    "max-long-partial-prefills": ("0.26.0", "use long-prefill-token-threshold to keep one long prompt from blocking"),
    "max-num-partial-prefills": ("0.26.0", "use long-prefill-token-threshold to keep one long prompt from blocking"),
    "calculate-kv-scales": ("0.27.1", "remove it: ship the scales with the checkpoint"),
    "override-attention-dtype": ("0.27.1", "remove it: attention takes the model's dtype"),
    "enable-bf16x3-router-gemm": ("0.29.0", "remove it: it was an experiment"),
    "enable-mamba-fine-grained-prefix-cache": (
        "0.30.0",
        "remove it, or see enable-mamba-shared-prefix-checkpoint and prefix-match-unit",
    ),
}

# Flags by the first version that has them. What is older, or a second name of another flag, is not listed.
CAME: dict[str, str] = {
    "0.10.1": """
        convert enable-log-outputs enable-log-requests exclude-tools-when-tool-choice-none kv-sharing-fast-prefill
        logits-processors mamba-cache-dtype mamba-ssm-cache-dtype mm-processor-cache-gb runner skip-mm-profiling
        tool-server uds
    """,
    "0.10.1.1": """
        h11-max-header-count h11-max-incomplete-event-size
    """,
    "0.10.2": """
        decode-context-parallel-size eplb-config io-processor-plugin kv-cache-memory-bytes log-error-stack
        mm-encoder-tp-mode safetensors-load-strategy
    """,
    "0.11.0": """
        allowed-media-domains dbo-decode-token-threshold dbo-prefill-token-threshold enable-dbo
        expert-placement-strategy mm-processor-cache-type mm-shm-cache-max-object-size-mb pooler-config
        structured-outputs-config trust-request-chat-template video-pruning-rate
    """,
    "0.11.1": """
        aggregate-engine-logging all2all-backend cudagraph-capture-sizes data-parallel-external-lb
        dcp-kv-cache-interleave-size disable-nccl-for-dp-synchronization ec-transfer-config enable-mm-embeds
        kv-offloading-backend kv-offloading-size mamba-block-size master-addr master-port max-cudagraph-capture-size
        mm-encoder-attn-backend nnodes node-rank reasoning-parser-plugin stream-interval tokens-only
    """,
    "0.12.0": """
        cp-kv-cache-interleave-size kv-cache-metrics kv-cache-metrics-sample optimization-level
        prefill-context-parallel-size
    """,
    "0.13.0": """
        attention-backend attention-config cudagraph-metrics enable-layerwise-nvtx-tracing profiler-config
    """,
    "0.14.0": """
        allow-deprecated-quantization default-chat-template-kwargs enable-log-deltas
        enable-logging-iteration-details enable-mfu-metrics enable-offline-docs enable-return-routed-experts
        enable-tower-connector-lora ubatch-size
    """,
    "0.15.0": """
        mamba-cache-mode mm-encoder-only ssl-ciphers
    """,
    "0.16.0": """
        disable-access-log-for-endpoints enable-flashinfer-autotune kernel-config specialize-active-lora
        weight-transfer-config
    """,
    "0.17.0": """
        cpu-offload-params enable-elastic-ep fail-on-environ-validation language-model-only moe-backend
        offload-backend offload-group-size offload-num-in-group offload-params offload-prefetch-step
        performance-mode
    """,
    "0.18.0": """
        dcp-comm-backend distributed-timeout-seconds enable-ep-weight-filter gdn-prefill-backend shutdown-timeout
    """,
    "0.19.0": """
        kv-cache-dtype-skip-layers lora-target-modules mm-tensor-ipc reasoning-config renderer-num-workers
        scheduler-reserve-full-isl
    """,
    "0.20.0": """
        enable-flash-late-interaction enable-mamba-cache-stochastic-rounding grpc ir-op-priority mamba-backend
        mamba-cache-philox-rounds numa-bind numa-bind-cpus numa-bind-nodes
    """,
    "0.21.0": """
        fingerprint-mode fingerprint-value mm-encoder-attn-dtype mm-encoder-fp8-scale-path
        mm-encoder-fp8-scale-save-margin mm-encoder-fp8-scale-save-path safetensors-prefetch-block-size
        safetensors-prefetch-num-threads
    """,
    "0.22.0": """
        cpu-distributed-timeout-seconds data-parallel-multi-port-external-lb data-parallel-supervisor-port
        dp-supervisor-probe-failure-threshold dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
        enable-cumem-allocator enable-mixed-moe-lora-format linear-backend quantization-config spec-method
        spec-model spec-tokens use-fp64-gumbel
    """,
    "0.24.0": """
        device-ids diffusion-config jit-monitor-verbose prefill-schedule-interval watermark
    """,
    "0.25.0": """
        enable-per-request-metrics jit-monitor-mode mm-ipc-gpu-memory-gb model-class-overrides
    """,
    "0.26.0": """
        enable-bf16x3-router-gemm enable-moe-shared-loras max-num-scheduled-tokens prefix-match-unit
    """,
    "0.27.0": """
        cohere-format cohere-is-reasoning-model enable-fault-tolerance fault-tolerance-config kda-prefill-backend
        mamba-ssu-algorithm mm-hasher-algorithm replayssm-buffer-len use-replayssm video-pruning-method
    """,
    "0.28.0": """
        ec-manager-config mm-device-do-normalize mm-processor-device return-sampling-mask
    """,
    "0.29.0": """
        dcp-q-replicate enable-batch-sharded-sampling enable-trace-replay max-num-queued-reqs max-num-queued-tokens
        per-request-spec-decode-metrics prefix-cache-retention-interval sse-keep-alive-interval
    """,
    "0.30.0": """
        dp-sync-interval elastic-ep-max-dp-size enable-mamba-fine-grained-prefix-cache enable-nccl-comm-suspend
        enable-scale-out engram-config kda-decode-backend sparse-indexer-topk-backend watermark-config
    """,
    "0.31.0": """
        anthropic-disabled-thinking-effort aux-output-config enable-mamba-shared-prefix-checkpoint log-level
        logging-config long-prefill-token-threshold-adaptive max-lora-cls-labels max-num-active-seqs
        sleep-preserve-parameter-names swa-bounded-replay tool-strict-level trust-request-mm-kwargs
    """,
    "0.32.0": """
        custom-histogram-buckets enable-hc-sp enable-shm-tensor-arena grpc-port sleep-mode-offload-cudagraph
    """,
    "0.33.0": """
        monokernel reasoning-effort-map sleep-mode-backend watchdog-config
    """,
}

SINCE: dict[str, str] = {name: version for version, names in CAME.items() for name in names.split()}
