"""Serves the fake fleet, and keeps a configuration and the targets of a Prometheus in a directory."""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import pathlib
import threading
import time
from typing import Any

from . import story
from .fleet import Fleet

CONFIG = """global: {{scrape_interval: {interval}s, evaluation_interval: {interval}s}}
rule_files: ["{rules}/*.yml"]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]}}
scrape_configs:
  - job_name: prometheus
    static_configs: [{{targets: ["{prometheus}"], labels: {{host: mon1}}}}]
"""
JOB = """  - job_name: {job}
    honor_labels: {honor}
    file_sd_configs: [{{files: ["{targets}/{job}.json"], refresh_interval: 5s}}]
    metric_relabel_configs: [{{source_labels: [__name__], regex: .*_created, action: drop}}]
    {more}
"""
NATIVE = "convert_classic_histograms_to_nhcb: true"
OWN_LABELS = ("node", "agent")  # their series say themselves which pool, replica or host they are about


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.metrics", description=__doc__)
    parser.add_argument("--port", type=int, default=9800)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory for the files of the Prometheus")
    parser.add_argument("--rules", type=pathlib.Path, default=pathlib.Path("rules"), help="directory of its rules")
    parser.add_argument("--prometheus", default="127.0.0.1:9090", help="its address, which it scrapes, too")
    parser.add_argument("--minute", type=float, default=0.0, help="at which minute of the story to begin")
    parser.add_argument("--interval", type=int, default=10, help="seconds between two scrapes")
    parser.add_argument("--replicas", type=int, help="a large fleet of so many, instead of the five of the pictures")
    parser.add_argument("--native", action="store_true", help="let a Prometheus 3 keep native histograms")
    options = parser.parse_args()
    pools = story.large(options.replicas) if options.replicas else story.POOLS
    fleet, lock = Fleet(time.time(), options.minute, pools), threading.Lock()
    fleet.advance(fleet.now + 1)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
            job, _slash, target = self.path.strip("/").partition("/")
            with lock:
                if fleet.now < time.time() - 1:
                    fleet.advance(time.time())
                    _keep(options.out, fleet, options.port)
                text = fleet.text(job, target)
            with contextlib.suppress(ConnectionError):  # a Prometheus that has not waited
                self.send_response(503 if text is None else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write((text or "").encode())

        def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
            """Take alerts as Alertmanager does, and forget them."""
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    options.out.mkdir(parents=True, exist_ok=True)
    _keep(options.out, fleet, options.port)
    (options.out / "prometheus.yml").write_text(_config(options, list(fleet.targets())))
    http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


def _config(options: argparse.Namespace, jobs: list[str]) -> str:
    words = {"rules": options.rules.resolve(), "prometheus": options.prometheus, "interval": options.interval}
    text = CONFIG.format(**words, port=options.port)
    targets = options.out.resolve()
    native = {"vllm": NATIVE} if options.native else {}
    return text + "".join(
        JOB.format(job=job, honor=str(job in OWN_LABELS).lower(), targets=targets, more=native.get(job, ""))
        for job in jobs
    )


def _keep(folder: pathlib.Path, fleet: Fleet, port: int) -> None:
    """Write the targets where they have changed: a rollout changes the label of the revision."""
    for job, entries in fleet.targets().items():
        found = [
            {
                "targets": [f"127.0.0.1:{port}"],
                "labels": {
                    "instance": labels.get("replica", labels["host"]),
                    "__metrics_path__": f"/{job}/{labels['host']}",
                }
                | labels,
            }
            for labels in entries
        ]
        path, text = folder / f"{job}.json", json.dumps(found)
        if not path.exists() or path.read_text() != text:
            new = path.with_suffix(".new")
            new.write_text(text)
            new.replace(path)


if __name__ == "__main__":
    main()
