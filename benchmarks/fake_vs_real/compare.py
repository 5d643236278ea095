"""Compares the shapes of two running servers, real and fake: statuses, JSON keys, events of a stream, metrics.

``python -m benchmarks.fake_vs_real.compare http://127.0.0.1:8000 http://127.0.0.1:8001 --key-file KEY --model M``

A dozen short requests to each, to addresses of this machine or of private networks only.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import json
import pathlib
import re
import sys
from typing import Any
from urllib.parse import urlsplit

SECONDS = 60
TOKENS = 6
# What only a real engine or a real HTTP framework has.
NOT_FAKED = re.compile(r"python_|http_request_size|http_response_size|http_request_duration.*_created")


class Server:
    """One server under comparison."""

    def __init__(self, url: str, key: str, model: str) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.key, self.model = parts.hostname or "", parts.port or 80, key, model
        address = ipaddress.ip_address("127.0.0.1" if self.host == "localhost" else self.host)
        if parts.scheme != "http" or not (address.is_loopback or address.is_private):
            raise SystemExit(f"{url}: needed is http:// and a loopback or private address")

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, str]:
        """Return status and text."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
            headers["Content-Type"] = "application/json"
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def complete(self, chat: bool = False, **options: Any) -> tuple[int, str]:
        """Return status and text of a completion."""
        what = {"messages": [{"role": "user", "content": "hello"}]} if chat else {"prompt": "hello"}
        body = {"model": self.model, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, **what, **options}
        return self.ask("POST", "/v1/chat/completions" if chat else "/v1/completions", body)


def needed_keys(document: Any, path: str = "") -> list[str]:
    """Return the paths of a JSON document that have a value; those that are null may be absent elsewhere."""
    if isinstance(document, dict):
        return [found for key in sorted(document) for found in needed_keys(document[key], f"{path}.{key}")]
    if isinstance(document, list):
        return needed_keys(document[0], f"{path}[]") if document else [f"{path}[]"]
    return [] if document is None else [f"{path}: {type(document).__name__}"]


def answer(told: tuple[int, str]) -> Any:
    """Return status and keys of an answer."""
    try:
        return [told[0], needed_keys(json.loads(told[1]))]
    except ValueError:
        return [told[0], "no JSON" if told[1] else "empty"]


def stream(told: tuple[int, str]) -> Any:
    """Return the kinds of events in order, repeated ones once: role, token, finish, usage, error, [DONE]."""
    kinds: list[str] = []
    for line in told[1].splitlines():
        if not line.startswith("data: "):
            continue
        document = {} if line.endswith("[DONE]") else json.loads(line[6:])
        choices = document.get("choices") or []
        kind = "[DONE]" if not document else "error" if "error" in document else "usage"
        if choices:
            kind = f"finish {choices[0]['finish_reason']}" if choices[0].get("finish_reason") else "token"
            kind = "role" if "role" in choices[0].get("delta", {}) else kind
        if kinds[-1:] != [kind]:
            kinds.append(kind)
    return [told[0], kinds]


def families(page: str) -> dict[str, str]:
    """Return type and label names of each metric family."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    labels: dict[str, set[str]] = {name: set() for name in types}
    for name, told in re.findall(r"^([\w:]+)(?:\{(.*)\})? \S+$", page, re.MULTILINE):
        base = name if name in types else re.sub(r"_(bucket|count|sum)$", "", name)
        labels.setdefault(base, set()).update(re.findall(r'(\w+)="', told))
    kept = {name: found for name, found in labels.items() if not NOT_FAKED.match(name)}
    return {
        name: types.get(name, "?") + (f" {sorted(found)}" if name != "vllm:cache_config_info" else "")
        for name, found in kept.items()
    }


def look(server: Server) -> dict[str, Any]:
    """Ask everything."""
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    looks: dict[str, Any] = {path: server.ask("GET", path)[0] for path in ("/health", "/ping", "/nowhere")}
    looks["/v1/models"] = answer(server.ask("GET", "/v1/models"))
    looks["/v1/models, wrong key"] = answer(server.ask("GET", "/v1/models", key="wrong"))
    looks["/version"] = answer(server.ask("GET", "/version"))
    looks["/load"] = answer(server.ask("GET", "/load"))
    looks["/tokenize"] = answer(server.ask("POST", "/tokenize", {"model": server.model, "prompt": "hello"}))
    looks["GET /v1/completions"] = server.ask("GET", "/v1/completions")[0]
    for chat in (False, True):
        name = "chat" if chat else "text"
        looks[name] = answer(server.complete(chat))
        looks[f"{name}, stream"] = stream(server.complete(chat, **usage))
        looks[f"{name}, stream without usage"] = stream(server.complete(chat, stream=True))
    looks["unknown model"] = answer(server.complete(model="no-such-model"))
    looks["max_tokens 0"] = answer(server.complete(max_tokens=0))
    looks["too many tokens"] = answer(server.complete(max_tokens=10**7))
    looks["list for a body"] = answer(server.ask("POST", "/v1/completions", [1]))
    looks.update({f"metric {name}": told for name, told in families(server.ask("GET", "/metrics")[1]).items()})
    return looks


def main() -> int:
    """Print the table; exit status 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real")
    parser.add_argument("fake")
    parser.add_argument("--key-file", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--all", action="store_true", help="also print what agrees")
    arguments = parser.parse_args()
    key = pathlib.Path(arguments.key_file).read_text().strip()
    real, fake = (look(Server(url, key, arguments.model)) for url in (arguments.real, arguments.fake))
    names = list(dict.fromkeys([*real, *fake]))
    different = [name for name in names if real.get(name) != fake.get(name)]
    print("| Question | real | fake | |\n|---|---|---|---|")
    for name in names if arguments.all else different:
        mark = "**differs**" if name in different else "same"
        print(f"| {name} | {real.get(name, 'absent')} | {fake.get(name, 'absent')} | {mark} |")
    print(f"\n{len(names) - len(different)} of {len(names)} answers agree")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
