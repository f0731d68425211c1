"""Which chat model is asked, where, and with whose key. Keys live in environment variables and nowhere else.

A key is only ever sent to whom it belongs to:

* `SPATIALBOOST_CHAT_API_KEY` goes wherever the user points us; it wins over the others.
* `OPENAI_API_KEY` goes to api.openai.com, and to `OPENAI_BASE_URL`, which is also the default `base_url`.
* `HF_TOKEN` (or the login of `hf auth login`) goes to the Hub's providers and to hosts of Hugging Face.
* A server of one's own (vLLM, `transformers serve`) needs none.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dataset_builders.scene import InputError

OWN_KEY, OPENAI_KEY, HUB_KEY = "SPATIALBOOST_CHAT_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"
BASE_URL_VARIABLE = "OPENAI_BASE_URL"
HUB_ROUTER = "https://router.huggingface.co/v1"
HUB_HOSTS = ("huggingface.co", "huggingface.cloud", "hf.space")
NO_KEY = "no-key"  # servers that want none take any; without it, huggingface_hub would send the Hub's token


@dataclass(frozen=True)
class ChatOptions:
    """Which chat model to ask and how; it holds no key and may be stored, shown and sent to workers.

    Attributes:
        model: as the server or the Hub calls it: "gpt-4o", "Qwen/Qwen3-VL-8B-Instruct".
        base_url: of a server that speaks OpenAI's protocol, such as http://localhost:8000/v1; None = `OPENAI_BASE_URL`
            where that is set, else the Hub.
        provider: of the Hub ("novita", "together", "openai", ...); None = the Hub's own choice.
        concurrency: requests in flight at most, in this process.
        max_requests: budget of requests under `account`, retries of unanswered ones not counted; None = no limit.
        max_tokens: budget of prompt and answer tokens under `account`; None = no limit.
        prices: dollars for a million prompt tokens and for a million answer tokens, for projections.
        timeout_s: longest wait for one answer.
        cache_dir: folder of answers and of what was spent; shared by all processes, kept between builds.
        seed: passed to the server, which may use it.
        temperature: 0 = the likeliest answer.
        max_answer_tokens: longest answer.
        account: name under which `cache_dir` counts what is spent; letters, digits, "-" and "_".
    """

    model: str
    base_url: str | None = None
    provider: str | None = None
    concurrency: int = 8
    max_requests: int | None = None
    max_tokens: int | None = None
    prices: tuple[float, float] | None = None
    timeout_s: float = 120.0
    cache_dir: Path = Path("~/.cache/spatialboost/chat")
    seed: int = 0
    temperature: float = 0.0
    max_answer_tokens: int = 2048
    account: str = "all"

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_requests", "max_tokens", "max_answer_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                argument = "chat-concurrency" if name == "concurrency" else name.replace("_", "-")
                raise InputError(f"--{argument} {value} is too small; pass at least 1.")
        if self.timeout_s <= 0:
            raise InputError(f"timeout_s {self.timeout_s:g} is no time to wait; pass seconds, such as 120.")
        if self.base_url is not None:
            if self.provider is not None:
                raise InputError(
                    f"--chat-provider {self.provider} is of no use with --chat-url; leave one of them out."
                )
            _check_url("--chat-url", self.base_url)


@dataclass(frozen=True, repr=False)
class Endpoint:
    """Where requests go and the key that they carry.

    Attributes:
        base_url: None = through the Hub.
        key: secret; never printed.
        key_variable: the environment variable that the key belongs into.
    """

    base_url: str | None
    key: str
    key_variable: str

    @property
    def place(self) -> str:
        """Where requests go, in words."""
        return self.base_url or HUB_ROUTER

    def without_key(self, text: str) -> str:
        """A text of the server or of a library, with the key blanked out where it repeats it."""
        return text if self.key == NO_KEY else text.replace(self.key, "***")


def find_endpoint(options: ChatOptions) -> Endpoint:
    """The server that the options name, with its key from the environment.

    Raises:
        InputError: a key is needed and missing, or cannot be one.
    """
    base_url, own_url = options.base_url, os.environ.get(BASE_URL_VARIABLE)
    if base_url is None and options.provider is None and own_url:
        _check_url(BASE_URL_VARIABLE, own_url)
        base_url = own_url
    host = (urlsplit(base_url).hostname or "") if base_url else ""
    for_openai = host == "api.openai.com" or (base_url is not None and base_url == own_url)
    for_hub = base_url is None or any(host == name or host.endswith(f".{name}") for name in HUB_HOSTS)
    if for_openai or options.provider == "openai":
        variable, key = OPENAI_KEY, os.environ.get(OPENAI_KEY)
    elif for_hub:
        from huggingface_hub import get_token

        variable, key = HUB_KEY, get_token()
    else:
        variable, key = OWN_KEY, None
    if os.environ.get(OWN_KEY):
        variable, key = OWN_KEY, os.environ[OWN_KEY]
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError(
            f"{variable} holds spaces, line breaks or letters outside ASCII, which no key has; set it anew."
        )
    if not key and (base_url is None or host == "api.openai.com"):
        raise InputError(f"{variable} is not set, and {base_url or HUB_ROUTER} answers nobody without a key; set it.")
    return Endpoint(base_url, key or NO_KEY, variable)


def _check_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        shown = f"{parts.scheme}://...@{parts.hostname}" if parts.username or parts.password else parts.hostname
        raise InputError(f"{name} {shown} carries a secret or a query; put the key into {OWN_KEY} and leave it out.")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{name} {url!r} is no address; pass something like http://localhost:8000/v1.")
