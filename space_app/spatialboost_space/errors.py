"""What a visitor reads when something goes wrong: one sentence, never a traceback."""

import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gradio as gr
from gradio.exceptions import ComponentProcessingError
from PIL import Image, UnidentifiedImageError

from spatialboost_space.models import Unavailable, absence
from spatialboost_space.settings import limits

NO_IMAGE = "This file is not a PNG, JPEG or WebP image that can be read."
ADDRESS = "Addresses are not fetched: upload the file itself."
UNREADABLE = "An input could not be read: check its kind in the API page."
OURS = "Something went wrong on our side; it is in the server's log. Try again, or another image."


class Refusal(gr.Error):
    """A visitor's mistake, told in one sentence on the page and not in the server's log."""

    def __init__(self, message: str) -> None:
        """The sentence."""
        super().__init__(message, print_exception=False)


def deleted() -> Refusal:
    """An image that is not there any more."""
    return Refusal(f"Images are deleted {limits().cache_seconds // 60} minutes after they came: give it again.")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except Unavailable as error:
        raise Refusal(str(error)) from error
    except Exception as error:
        traceback.print_exc()  # for the operator
        raise Refusal(OURS) from error


def friendly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function or generator, whose errors reach the page as `gradio.Error` with a sentence for people."""
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with _told():
                yield from function(*args, **kwargs)

        return generator

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _told():
            return function(*args, **kwargs)

    return call


def _holds_address(value: Any) -> bool:
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and "://" in path) or any(_holds_address(one) for one in value.values())
    return isinstance(value, list) and any(_holds_address(one) for one in value)


def missing(*parts: str) -> None:
    """Tell, above a tab, which of the parts that it needs the operator has not set."""
    told = gr.Markdown(elem_classes="missing")
    # when the page is opened, not before it is served: a bundle may be remote
    gr.on(None, friendly(partial(absence, *parts)), None, [told], show_progress="hidden", api_visibility="private")


class Page(gr.Blocks):
    """Blocks that fetch nothing, and tell in a sentence what gradio's own inputs find wrong."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        """See `gradio.Blocks`; what it downloads from an address would have no limit."""
        if _holds_address(inputs):
            raise Refusal(ADDRESS)
        try:
            return await super().preprocess_data(block_fn, inputs, *args, **kwargs)
        except ComponentProcessingError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise deleted() from error
            about_image = isinstance(error.__cause__, UnidentifiedImageError | Image.DecompressionBombError)
            raise Refusal(NO_IMAGE if about_image else UNREADABLE) from error


def endpoint(function: Callable[..., Any], inputs: list[Any], outputs: list[Any], name: str) -> None:
    """Offer a function to programs and to agents (MCP) under a name, with the docstring as its description.

    The components check what comes in, files above all, as they do for the page.
    """
    gr.Button(visible=False).click(
        friendly(function), inputs, outputs, api_name=name, concurrency_id="compute", show_progress="hidden"
    )
