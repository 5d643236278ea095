# Copyright: (c) 2026, llmops.vllm maintainers
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a web service that speaks JSON, such as Prometheus or Alertmanager, and says in words what it answered."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from .._errors import LlmopsError
from .._vllm.api import printable

LONGEST_ANSWER = 64 * 1024 * 1024

# Options of a module that asks such a service; documented by the fragment ``llmops.vllm.login``.
LOGIN_SPEC: dict[str, Any] = {
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "ca_path": {"type": "path"},
}

Query = Sequence[tuple[str, str]]


class ApiError(LlmopsError):
    """There was no answer that can be used."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another place is no place to send a password to."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class JsonApi:
    """One service: its address, who asks, and which authority signed its certificate."""

    def __init__(
        self, url: str, username: str = "", password: str = "", ca_path: str | None = None, timeout: float = 10
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"{_without_login(url)!r} is no address: give one such as https://192.0.2.31:9093")
        if "@" in parts.netloc:
            raise ApiError(f"{_without_login(url)} holds a login: give it as username and password")
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"Accept": "application/json"}
        if username:
            login = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"
        handlers: list[Any] = [_NoRedirect()]
        if parts.scheme == "https":
            handlers.append(urllib.request.HTTPSHandler(context=_trust(ca_path)))
        self._opener = urllib.request.build_opener(*handlers)

    def get(self, path: str, query: Query = ()) -> Any:
        """Return what the path answers."""
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON and return what is answered."""
        return self._ask("POST", path, json.dumps(body).encode(), "application/json")

    def post_form(self, path: str, form: Query) -> Any:
        """Send a form, as long as a query may not be, and return what is answered."""
        return self._ask("POST", path, urlencode(form).encode(), "application/x-www-form-urlencoded")

    def delete(self, path: str) -> None:
        """Delete what is at the path."""
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        where = f"{method} {self.url}{path.partition('?')[0]}"
        headers = {**self._headers, "Content-Type": kind} if kind else self._headers
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                data = response.read(LONGEST_ANSWER)
        except urllib.error.HTTPError as answer:
            with answer:
                raise ApiError(f"{where}: HTTP {answer.code}: {_reason(answer)}") from None
        except (OSError, http.client.HTTPException) as problem:
            raise ApiError(f"{where}: {self._words(problem)}") from None
        if not data.strip():
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise ApiError(f"{where}: answered no JSON: {printable(data, 80)}") from None

    def _words(self, problem: Exception) -> str:
        reason = getattr(problem, "reason", problem)
        if isinstance(reason, TimeoutError):
            return f"timed out after {self._timeout:g} s"
        return str(reason) or type(reason).__name__


def _trust(ca_path: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_path or None)
    except (OSError, ssl.SSLError) as problem:
        raise ApiError(f"ca_path {ca_path}: {problem}") from None


def _reason(answer: urllib.error.HTTPError) -> str:
    try:
        data = answer.read(4096)
    except (OSError, http.client.HTTPException):
        data = b""
    try:
        told = json.loads(data)
    except ValueError:
        return printable(data, 200).strip() or str(answer.reason)
    # Prometheus tells {"error": ...}, Alertmanager a text, or {"message": ...}
    if isinstance(told, Mapping):
        told = told.get("error") or told.get("message") or told
    return printable(str(told).encode(), 200)


def _without_login(url: str) -> str:
    scheme, sep, rest = url.partition("://")
    host, slash, path = (rest if sep else url).partition("/")
    return f"{scheme + sep if sep else ''}{host.rpartition('@')[2]}{slash}{path}"
