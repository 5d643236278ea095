"""One real chat request, as a user of the service would send it."""

from __future__ import annotations

import json
import ssl
import urllib.request
from typing import Any

from .layout import BALANCERS, MODEL_NAME, PKI
from .pki import client_key

_TIMEOUT_SECONDS = 60


def base_url(index: int = 0) -> str:
    """Return the OpenAI base URL of a balancer of the sandbox."""
    return f"https://{BALANCERS[index].address}/v1"


def chat(question: str, url: str | None = None) -> dict[str, Any]:
    """Send a chat completion through a balancer and return the parsed answer; HTTP errors raise."""
    body = {"model": MODEL_NAME, "messages": [{"role": "user", "content": question}], "max_tokens": 24}
    request = urllib.request.Request(
        f"{url or base_url()}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {client_key('demo')}"},
    )
    context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=context) as answer:
        parsed: dict[str, Any] = json.load(answer)
        return parsed
