"""Asks chat models: GPT-4o, a provider of the Hub, vLLM, `transformers serve` or whatever speaks the same protocol.

    spatialboost build ... --chat-model gpt-4o --chat-url https://api.openai.com/v1  # key: OPENAI_API_KEY
    spatialboost build ... --chat-model Qwen/Qwen3-VL-8B-Instruct  # the Hub, key: HF_TOKEN
    vllm serve Qwen/Qwen3-VL-8B-Instruct &  # no key
    spatialboost build ... --chat-model Qwen/Qwen3-VL-8B-Instruct --chat-url http://localhost:8000/v1

Every answer is cached by content (`answer_cache`), paid from a shared budget (`budget`), checked, and asked for once
more where it does not fit. `chat_endpoint` says which key goes where.
"""

import hashlib
import random
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dataset_builders.answer_cache import AnswerCache, content_key
from dataset_builders.budget import Budget, Usage, text_tokens
from dataset_builders.chat_endpoint import ChatOptions, find_endpoint
from dataset_builders.chat_messages import (
    Check,
    Message,
    Schema,
    as_data_url,
    expected_usage,
    parsed,
    photograph,
    read_prompt,
    with_schema,
)
from dataset_builders.scene import DropItem, InputError

if TYPE_CHECKING:
    from huggingface_hub import InferenceClient

MAX_TRIES = 6  # of one request, before its item is dropped
FIRST_WAIT_S, MAX_WAIT_S = 1.0, 60.0  # back-off doubles from one to the other
MAX_RETRY_AFTER_S = 600.0  # a server that asks for more patience than this is not waited for
MAX_FAILED_IN_A_ROW = 8  # requests, each tried MAX_TRIES times, after which the server counts as gone
PROBE_TIMEOUT_S = 10.0
RETRIED = frozenset({408, 409, 425, 429})  # and everything from 500


class Chat(Protocol):
    """What asks a chat model; tests put canned answers behind it."""

    def ask(
        self,
        purpose: str,
        prompt: str,
        images: Sequence[bytes] = (),
        schema: Schema | None = None,
        check: Check | None = None,
    ) -> Any:
        """The text of an answer, or the object that it holds; see `ChatClient.ask`."""


class ChatClient:
    """A chat model behind a server, with cache, budget, retries and back-pressure; many threads may ask at once."""

    def __init__(self, options: ChatOptions) -> None:
        """Look up the key; nothing is sent yet.

        Raises:
            InputError: the key is missing or impossible.
        """
        self.options = options
        self._endpoint = find_endpoint(options)
        folder = options.cache_dir.expanduser()
        self._cache = AnswerCache(folder)
        self._budget = Budget(folder, options.account, options.max_requests, options.max_tokens)
        self._slots = threading.BoundedSemaphore(options.concurrency)
        self._failed_in_a_row = 0
        self._takes_format = True
        self._client = _client_class()(
            base_url=self._endpoint.base_url,
            provider=options.provider,  # type: ignore[arg-type]
            api_key=self._endpoint.key,
            timeout=options.timeout_s,
        )

    def spent(self) -> Usage:
        """What the account has paid, in this and earlier runs."""
        return self._budget.spent()

    def check(self) -> None:
        """Find out before work starts whether the model can be asked, images included.

        Raises:
            InputError: the server is down, or refuses the key, the model or images.
        """
        from huggingface_hub import get_session
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

        place, model = self._endpoint.place, self.options.model
        try:
            get_session().get(place, timeout=min(PROBE_TIMEOUT_S, self.options.timeout_s))
        except OfflineModeIsEnabled:
            raise InputError(f"HF_HUB_OFFLINE is set and forbids to ask {place}; unset it for this command.") from None
        except (HTTPError, OSError) as error:
            raise InputError(
                f"--chat-url {place} cannot be reached ({type(error).__name__}); start the server or mend the address."
            ) from None
        plain = photograph(np.full((32, 32, 3), 128, dtype=np.uint8))
        try:
            self.ask("check", "Is this picture plain? Answer with one word.", [plain])
        except DropItem as drop:
            raise InputError(
                f"--chat-model {model} at {place} does not answer a question about an image: {drop}."
            ) from None

    def ask(
        self,
        purpose: str,
        prompt: str,
        images: Sequence[bytes] = (),
        schema: Schema | None = None,
        check: Check | None = None,
    ) -> Any:
        """Ask one question; an answer that does not fit is asked for once more, with the problem told.

        Args:
            purpose: short name of what the answer is for, for error messages.
            prompt: the whole question.
            images: encoded files, shown in order before the prompt.
            schema: JSON schema of the answer; None = free text.
            check: problems of a parsed answer, none if it may be used.

        Returns:
            The text, or the parsed object where there is a schema.

        Raises:
            DropItem: "chat_invalid", "chat_refused", "chat_failed" or "chat_budget".
            InputError: the server refuses the key or the model, has no credit left, or is gone.
        """
        messages = [Message("user", with_schema(prompt, schema), tuple(images))]
        answer, problem = None, ""
        for _ in range(2):
            text, cut_off = self._answer(purpose, messages, schema)
            answer, problem = parsed(text, schema, check)
            if not problem:
                return answer
            problem += " (it is cut off: be shorter)" if cut_off else ""
            again = read_prompt("again", problem=problem)
            messages = [*messages, Message("assistant", text or "(nothing)"), Message("user", again)]
        raise DropItem("chat_invalid", self._endpoint.without_key(f"{purpose}: {problem[:300]}"))

    def _answer(self, purpose: str, messages: Sequence[Message], schema: Schema | None) -> tuple[str, bool]:
        """Text of an answer, from the cache or the server, and whether it was cut off."""
        options = self.options
        question = {
            "model": options.model,
            "messages": [one.content(lambda image: {"sha256": hashlib.sha256(image).hexdigest()}) for one in messages],
            "schema": schema,
            "sampling": [options.seed, options.temperature, options.max_answer_tokens],
        }
        key = content_key(question)
        found = self._cache.get(key)
        if found is None:
            expected = expected_usage(messages, options.max_answer_tokens)
            with self._slots:  # held while waiting for a server that is busy, too: that is the back-pressure
                self._budget.reserve(expected)
                actual = Usage(1, expected.prompt_tokens, 0)  # where no answer tells
                try:
                    found = self._request(messages, schema)
                    told = found.pop("usage")
                    actual = Usage(1, *told) if told else Usage(1, expected.prompt_tokens, text_tokens(found["text"]))
                finally:
                    self._budget.settle(expected, actual)
            self._cache.put(key, found)
        if found["refused"]:
            raise DropItem("chat_refused", f"{purpose}: {found['refused'][:200]}")
        return found["text"], found["cut_off"]

    def _request(self, messages: Sequence[Message], schema: Schema | None) -> dict[str, Any]:
        """Send one request until it is answered, at most `MAX_TRIES` times."""
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        wait_s, problem = FIRST_WAIT_S, ""
        for attempt in range(MAX_TRIES):
            try:
                answer = self._send([one.content(as_data_url) for one in messages], schema)
                self._failed_in_a_row = 0
                return answer
            except HfHubHTTPError as error:
                status, body = error.response.status_code, self._endpoint.without_key(error.response.text)
                problem, asked_s = f"status {status}: {body[:200]}", _retry_after_s(error.response.headers)
                if self._takes_format and schema and status in (400, 422) and "response_format" in body:
                    self._takes_format = False  # the prompt states the schema as well
                    continue
                if status in (400, 422) and "content_filter" in body:
                    return {"text": "", "refused": problem, "cut_off": False, "usage": None}
                self._raise_if_hopeless(status, body)
                if status not in RETRIED and status < 500:
                    raise DropItem("chat_failed", problem) from None
                if asked_s > MAX_RETRY_AFTER_S:
                    break
            except (HTTPError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                # no connection, a timeout, a connection cut in the middle, or an answer that is no answer
                problem, asked_s = self._endpoint.without_key(f"{type(error).__name__}: {error}")[:200], 0.0
            if attempt + 1 < MAX_TRIES:
                time.sleep(max(asked_s, wait_s * random.uniform(0.5, 1.0)))
                wait_s = min(2 * wait_s, MAX_WAIT_S)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
            raise InputError(
                f"--chat-url {self._endpoint.place} has stopped answering ({problem}); run the same command "
                "again when it is back, nothing that was answered is lost."
            )
        raise DropItem("chat_failed", problem)

    def _send(self, messages: list[dict[str, Any]], schema: Schema | None) -> dict[str, Any]:
        """One exchange with the server."""
        options = self.options
        extra: dict[str, Any] = {}
        if schema is not None and self._takes_format:
            form = {"name": "answer", "strict": True, "schema": schema}
            extra["response_format"] = {"type": "json_schema", "json_schema": form}
        output = self._client.chat_completion(
            messages,
            model=options.model,
            max_tokens=options.max_answer_tokens,
            seed=options.seed,
            temperature=options.temperature,
            **extra,
        )
        choice, usage = output.choices[0], output.get("usage")
        refused = choice.message.get("refusal") or ("filtered" if choice.finish_reason == "content_filter" else "")
        return {
            "text": self._endpoint.without_key(choice.message.content or ""),
            "refused": self._endpoint.without_key(str(refused)),
            "cut_off": choice.finish_reason == "length",
            "usage": [usage["prompt_tokens"], usage["completion_tokens"]] if usage else None,
        }

    def _raise_if_hopeless(self, status: int, body: str) -> None:
        """End the build where no other item would fare better."""
        place, model, variable = self._endpoint.place, self.options.model, self._endpoint.key_variable
        if status in (401, 403):
            raise InputError(f"{place} refuses the key (status {status}); set {variable} to one that may ask {model}.")
        if status == 404:
            raise InputError(
                f"--chat-model {model!r} is unknown at {place} (status 404); mend the name or the address."
            )
        if status == 402 or "insufficient_quota" in body:
            raise InputError(f"the account of {variable} at {place} has no credit left; run again when it has.")


@cache
def _client_class() -> type["InferenceClient"]:
    """huggingface_hub's client, that sends a schema to a server of one's own as OpenAI defines it.

    It would write the dialect of text-generation-inference instead, which vLLM and OpenAI do not read.
    """
    from huggingface_hub import InferenceClient

    class OpenAIDialect(InferenceClient):
        def _inner_post(self, request_parameters: Any, **options: Any) -> Any:
            form = request_parameters.json.get("response_format") or {}
            if form.get("type") == "json_object" and "value" in form:
                schema = {"name": "answer", "strict": True, "schema": form["value"]}
                request_parameters.json["response_format"] = {"type": "json_schema", "json_schema": schema}
            return super()._inner_post(request_parameters, **options)

    return OpenAIDialect


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """How long a server asks to be left alone, in seconds; it may say so as a number or as a date."""
    text = headers.get("Retry-After", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return 0.0
