"""How long ``check.yml`` takes for inventories of many hosts; no host is there, none is asked.

``python -m benchmarks.check > benchmarks/check/RESULTS.md``. The inventory is the example with more servers, host
variables of their own, certificates, and a wrong flag on every tenth host.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import shutil
import statistics
import sys
import tempfile

import yaml

from benchmarks.playing import play
from tests import certificates
from tools.sandbox.layout import ROOT

RUNS = 5


def write_inventory(directory: pathlib.Path, servers: int) -> None:
    """Write an inventory of so many servers in two pools, eight GPUs and two replicas on each."""
    shutil.copytree(ROOT / "inventories" / "example", directory)
    path = directory / "hosts.yml"
    content = yaml.safe_load(path.read_text())
    pools = content["all"]["children"]["llm_servers"]["children"]
    for pool in pools.values():
        pool["hosts"] = {}
    for number in range(servers):
        address = f"198.18.{number // 250}.{number % 250 + 1}"
        variables: dict[str, object] = {"ansible_host": address, "llmops_address": address}
        if number % 10 == 0:
            variables["vllm_flags"] = {"max-nun-seqs": 64}
        pools["chat_h100" if number % 4 else "short_a100"]["hosts"][f"gpu{number}"] = variables
    path.write_text(yaml.safe_dump(content))
    certificates.write(directory.parent, "llm", name="llm.example.com", days=90)
    nginx = directory / "group_vars" / "llm_balancers" / "nginx.yml"
    text = nginx.read_text().replace("files/llm.example.com.", str(directory.parent / "llm."))
    nginx.write_text(text)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, nargs="+", default=[10, 50, 100, 200, 400])
    print("# `check.yml` by number of servers\n")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f};")
    print(f"made by `python -m benchmarks.check`. Median of {RUNS} runs.\n")
    print("| servers | replicas | servers with a wrong flag | wall s | CPU-s |\n|---|---|---|---|---|")
    for servers in parser.parse_args().hosts:
        with tempfile.TemporaryDirectory() as place:
            inventory = pathlib.Path(place) / "fleet"
            write_inventory(inventory, servers)
            played = [play("llmops.vllm.check", "-i", str(inventory), expected=2) for _run in range(RUNS)]
        first = next(line for line in played[0].output.splitlines() if line.startswith("Inventory: "))
        replicas = first.split(", ")[1].split()[0]
        wall, cpu = (statistics.median(values) for values in zip(*((p.wall, p.controller_cpu) for p in played)))
        wrong = len(range(0, servers, 10))
        print(f"| {servers} | {replicas} | {wrong} | {wall:.1f} | {cpu:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
