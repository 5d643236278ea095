"""FAKE vLLM: what a completion asks for, and the texts in which it is answered."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from vllm.fake import http
from vllm.fake.engine import Generation

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
# Answers end by themselves (finish_reason "stop") after so many tokens, unless ignore_eos; 0: never.
_EOS_TOKENS = int(os.environ.get("FAKE_VLLM_EOS_TOKENS", "0"))


class Refused(Exception):
    """A request that vLLM answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Ask:
    """A request, checked."""

    chat: bool
    stream: bool
    prompt_tokens: int
    wanted: int
    stop_at: int
    priority: int
    include_usage: bool


def count(text: str) -> int:
    """Tokens of a text: bytes, as the tokenizer of the tests' tiny model counts them."""
    return len(text.encode())


def understand(path: str, body: dict[str, Any], names: list[str], longest: int) -> Ask:
    """Check a body as vLLM does and return what it asks for."""
    if body.get("model", names[0]) not in names:
        raise Refused(404, f"The model `{body['model']}` does not exist.")
    chat = path == CHAT
    prompt_tokens = _chat_tokens(body.get("messages")) if chat else _prompt_tokens(body.get("prompt"))
    wanted = body.get("max_completion_tokens") if chat else None
    wanted = body.get("max_tokens") if wanted is None else wanted
    if wanted is None:
        wanted = max(1, longest - prompt_tokens) if chat else 16
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise Refused(400, f"max_tokens must be at least 1, got {wanted}.")
    if prompt_tokens + wanted > longest:
        text = f"This model's maximum context length is {longest} tokens. However, you requested {wanted} output tokens"
        raise Refused(400, f"{text} and your prompt contains at least {prompt_tokens} input tokens.")
    least = body.get("min_tokens") or 0
    ends = _EOS_TOKENS and not body.get("ignore_eos")
    return Ask(
        chat=chat,
        stream=bool(body.get("stream")),
        prompt_tokens=prompt_tokens,
        wanted=wanted,
        stop_at=max(int(least), _EOS_TOKENS) if ends else wanted + 1,
        priority=int(body.get("priority") or 0),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _chat_tokens(messages: Any) -> int:
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise Refused(400, "messages: Input should be a list of messages")
    return 2 + sum(count(str(one.get("content"))) + 2 for one in messages)


def _prompt_tokens(prompt: Any) -> int:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return count(prompt)
    if isinstance(prompt, list) and prompt and all(isinstance(token, int) for token in prompt):
        return len(prompt)
    raise Refused(400, "prompt: either a text or a list of token ids is needed (the fake takes one prompt a request)")


class Writer:
    """The texts of one answer."""

    def __init__(self, ask: Ask, request_id: str, model: str, details: bool) -> None:
        self.ask, self.details = ask, details
        self.kind = "chat.completion" if ask.chat else "text_completion"
        self.head = {
            "id": f"{'chatcmpl' if ask.chat else 'cmpl'}-{request_id}",
            "object": self.kind + (".chunk" if ask.chat and ask.stream else ""),
            "created": int(time.time()),
            "model": model,
        }
        start = http.compact(self.head)[:-1] + ',"choices":[{"index":0,'
        self._before = start + ('"delta":{"content":' if ask.chat else '"text":')
        self._after = ('},"logprobs":null,' if ask.chat else ',"logprobs":null,') + '"finish_reason":'

    def role(self) -> bytes:
        """The first event of a chat, which carries no token."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return http.event({**self.head, "choices": [choice]})

    def tokens(self, text: str, finish: str | None) -> bytes:
        """An event with one or more tokens."""
        end = f'"{finish}"}}]}}' if finish else "null}]}"
        return http.event(f'{self._before}"{text}"{self._after}{end}')

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        """The event that tells what was used."""
        return http.event({**self.head, "choices": [], "usage": usage})

    def whole(self, text: str, finish: str | None, usage: dict[str, Any]) -> dict[str, Any]:
        """The answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        choice |= {"message": {"role": "assistant", "content": text}} if self.ask.chat else {"text": text}
        return {**self.head, "choices": [choice], "usage": usage}

    def usage(self, generation: Generation) -> dict[str, Any]:
        """What was used."""
        prompt, made = generation.prompt_tokens, generation.made
        told: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + made, "completion_tokens": made}
        return {**told, "prompt_tokens_details": {"cached_tokens": 0}} if self.details else told
