"""S3 server: who may ask it, and what for? Serves ministack's S3 on 127.0.0.1, run by the environment that s3.lock describes.

ministack is made for tests: it lets anybody in, and one POST to a path of its own erases everything, which any page in a browser
could send. So a guard stands before it: whoever does not present our access key, or asks for a path that is no bucket, is refused.

    S3_ACCESS_KEY   the access key that is let in; generated, and so as good as a password
    GATEWAY_PORT    where it listens
"""

from __future__ import annotations

import asyncio
import hmac
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app

ACCESS_KEY = os.environ["S3_ACCESS_KEY"].encode()
REFUSED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)


async def guarded(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Awaitable[None]]) -> None:
    """Hand over what has our key and means a bucket; refuse all else."""
    if scope["type"] == "lifespan" or (scope["type"] == "http" and _is_ours(scope) and _means_a_bucket(scope["path"])):
        await app(scope, receive, send)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"application/xml"), (b"content-length", str(len(REFUSED)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else REFUSED})
    else:
        await send({"type": "websocket.close", "code": 1008})


def _is_ours(scope: Mapping[str, Any]) -> bool:
    given = dict(scope["headers"]).get(b"authorization", b"")
    found = re.match(rb"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/", given)
    return found is not None and hmac.compare_digest(found[1], ACCESS_KEY)


def _means_a_bucket(path: str) -> bool:
    """The list of buckets, a bucket, or an object in one: a bucket's name begins with a letter or digit."""
    return re.match(r"/([a-z0-9]|$)", path) is not None


async def main() -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    config = Config()
    config.bind = [f"127.0.0.1:{os.environ['GATEWAY_PORT']}"]
    config.loglevel = "WARNING"
    config.keep_alive_timeout = 75
    config.graceful_timeout = 3
    await serve(guarded, config, shutdown_trigger=stopped.wait)  # pyright: ignore[reportArgumentType] - any ASGI app


if __name__ == "__main__":
    asyncio.run(main())
