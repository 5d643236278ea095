"""What the tier is compared with: vllm-router and a plain NGINX, each in front of its own fake replicas.

They run on ``mon1``: a host of its own (on a balancer they would share it with our NGINX and agent), with the same
Debian and NGINX as lb1, and in a container, since a busy process beside the containers starves all of them. Their
replicas run on the server hosts beside ours, on ports that no firewall table names, and take any key.
"""

from __future__ import annotations

import json
import subprocess

from tests.traffic.fleet import ADDRESS, SERVERS, await_that, sh
from tools import environments
from tools.sandbox.layout import MODEL_NAME

HOST = "mon1"
PORT = 9000
ROUTER, ROUND_ROBIN, LEAST_CONN = "vllm-router", "NGINX round robin", "NGINX least_conn"
_PORTS = {ROUND_ROBIN: 9081, LEAST_CONN: 9082, ROUTER: 9083}
_UNITS = {ROUND_ROBIN: "rival-nginx", LEAST_CONN: "rival-nginx", ROUTER: "rival-router"}
_ROUTER_PLACE = "/opt/rival-router"
_NGINX = """
user www-data; worker_processes auto; worker_rlimit_nofile 65536; pid /run/rival-nginx.pid;
error_log /var/log/nginx/rival.log warn;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_max_body_size 8m; client_body_buffer_size 8m; keepalive_requests 10000;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s;
  upstream round_robin {{ zone a 256k; {round_robin} keepalive 64; }}
  upstream least_conn {{ zone b 256k; least_conn; {least_conn} keepalive 64; }}
  server {{ listen {ports[0]} backlog=4096; location / {{ proxy_pass http://round_robin; }} }}
  server {{ listen {ports[1]} backlog=4096; location / {{ proxy_pass http://least_conn; }} }}
}}
"""


def url(name: str) -> str:
    """Base URL of a rival, for the load client."""
    return f"http://{ADDRESS[HOST]}:{_PORTS[name]}/v1"


def unit(name: str) -> str:
    """Its unit on HOST, whose processes are what it costs."""
    return _UNITS[name]


def start_fakes(ports: dict[str, list[int]], itl_ms: float, slots: int, ttft_ms: float = 50) -> list[str]:
    """Start fake replicas on server hosts, on these ports, and return their addresses."""
    for host, wanted in ports.items():
        model = sh(host, "readlink -f /etc/vllm/r0/current/model").strip()
        program = sh(host, "readlink -f /etc/vllm/r0/current/env").strip() + "/bin/vllm"
        for port in wanted:
            config = {"model": model, "host": ADDRESS[host], "port": port, "served-model-name": [MODEL_NAME]}
            config |= {"max-num-seqs": slots, "max-model-len": 2048, "shutdown-timeout": 0}
            text = "".join(f"{name}: {json.dumps(value)}\n" for name, value in config.items())
            sh(host, f"cat > /run/rival-{port}.yaml", given=text)
            speed = {"FAKE_VLLM_ITL_MS": itl_ms, "FAKE_VLLM_TTFT_MS": ttft_ms, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": 75}
            env = " ".join(f"-E {name}={value}" for name, value in speed.items())
            options = f"--unit rival-{port} -p LimitNOFILE=65536 {env}"
            sh(host, f"systemd-run -q {options} {program} serve --config /run/rival-{port}.yaml")
    addresses = [f"{ADDRESS[host]}:{port}" for host, wanted in ports.items() for port in wanted]
    for address in addresses:
        await_that(lambda one=address: _answers(f"http://{one}/health"), f"the fake on {address} serves", 30)
    return addresses


def _answers(address: str) -> bool:
    return sh(HOST, f"curl -s -o /dev/null -w '%{{http_code}}' {address} || true") == "200"


def start(addresses: dict[str, list[str]]) -> None:
    """Start vllm-router and NGINX in front of these fake replicas: name of the rival -> addresses."""
    _start_nginx(addresses[ROUND_ROBIN], addresses[LEAST_CONN])
    _start_router(addresses[ROUTER])
    for name, probe in addresses.items():
        ask = f"http://{ADDRESS[HOST]}:{_PORTS[name]}/v1/models"
        await_that(lambda one=ask: _answers(one), f"{name} forwards to {', '.join(probe)}", 60)


def _start_nginx(round_robin: list[str], least_conn: list[str]) -> None:
    sh(
        HOST,
        "command -v nginx >/dev/null || { systemctl mask -q nginx && apt-get update -qq"
        " && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nginx; } >&2",
    )
    servers = [" ".join(f"server {one} max_fails=0;" for one in found) for found in (round_robin, least_conn)]
    ports = (_PORTS[ROUND_ROBIN], _PORTS[LEAST_CONN])
    text = _NGINX.format(round_robin=servers[0], least_conn=servers[1], ports=ports)
    sh(HOST, "cat > /etc/rival-nginx.conf", given=text)
    command = "nginx -c /etc/rival-nginx.conf -g 'daemon off;'"
    sh(HOST, f"systemd-run -q --unit rival-nginx -p LimitNOFILE=65536 {command}")


def _start_router(addresses: list[str]) -> None:
    packages = environments.ensure("router") / "lib" / "python3.11" / "site-packages"
    sh(HOST, f"rm -rf {_ROUTER_PLACE}")
    subprocess.run(
        ["docker", "cp", "-L", str(packages), f"llmops-{HOST}:{_ROUTER_PLACE}"], check=True, capture_output=True
    )
    workers = " ".join(f"http://{one}" for one in addresses)
    command = f"python3 -m vllm_router.launch_router --host 0.0.0.0 --port {_PORTS[ROUTER]} --policy power_of_two"
    command += f" --log-level warning --prometheus-port 9084 --worker-urls {workers}"
    sh(HOST, f"systemd-run -q --unit rival-router -p LimitNOFILE=65536 -E PYTHONPATH={_ROUTER_PLACE} {command}")


def router_version() -> str:
    """The version that is locked."""
    find = f"PYTHONPATH={_ROUTER_PLACE} python3 -c 'import vllm_router.version as v; print(v.__version__)'"
    return f"vllm-router {sh(HOST, find).strip()}"


def stop() -> None:
    """Stop everything that was started here, on every host."""
    for host in (HOST, *SERVERS):
        sh(host, "systemctl stop 'rival-*'; systemctl reset-failed 'rival-*' 2>/dev/null; true")
