"""Requests that are too large are refused before their body is kept: gradio bounds uploads, this bounds the rest."""

from typing import Any

from starlette.responses import JSONResponse

from spatialboost_space.settings import limits


class TooLarge(Exception):
    """More bytes came than a request may have."""


class BodyLimit:
    """ASGI middleware: at most `request_bytes`, for uploads what the images of one question may have together.

    413 for a request that tells its length; one that does not ends where it grows too large.
    """

    def __init__(self, app: Any) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Count what comes in and stop where it is too much."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        bounds = limits()
        uploads = scope["path"].endswith("/upload")  # several files may come at once, with their headers
        allowed = bounds.images * (bounds.upload_bytes + 4096) if uploads else bounds.request_bytes
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > allowed:
            sentence = f"The request is too large: {allowed} bytes are the limit."
            await JSONResponse({"error": sentence}, status_code=413)(scope, receive, send)
            return
        received = 0

        async def counted_receive() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > allowed:
                raise TooLarge  # the application ends the request
            return message

        await self.app(scope, counted_receive, send)
