"""FAKE of everything that Prometheus scrapes of a fleet: replicas, probes, agents, balancers, hosts, GPUs, textfiles.

It stands in for a fleet, so that dashboards and rules can be looked at without GPUs and without waiting for accidents.
Names and labels of vLLM are those of vLLM 0.32 (``tests/fakes/vllm/metrics_0.32.json``), of the exporters those that
they document, of our own those of our code. Values are invented: one story of 40 minutes, told again and again: a queue
builds up, an engine freezes, a GPU gets hot and reports an error, and a pool is rolled to another revision. A replica
has as many series as a real one, so that a large fleet (``--replicas``) is as much work for Prometheus as a real one.

``python -m tests.fakes.metrics --port 9800 --out DIR`` serves it and keeps the files of a Prometheus in DIR.
"""
