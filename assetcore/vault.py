"""Vault: which values, secrets and tables does Prefect keep for this installation?

Read over Prefect's HTTP API with the standard library: its own client takes a second to import, and the settings are read by every
command. Nothing is asked unless an address of Prefect was given. Writing them is the affair of `blocks`.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from assetcore.errors import ServiceError, SettingsError
from assetcore.telemetry import get_pipeline_logger

__all__ = ["forget_shown", "secret", "variables"]

logger = get_pipeline_logger(__name__)

SECONDS = 3.0
PAGE = 200  # the most that Prefect gives at once
LOCAL = {"127.0.0.1", "localhost", "::1"}


def variables(api: str) -> Mapping[str, Any]:
    """All variables by name. A Prefect that does not answer has none: a run goes on without its display, and so does a command."""
    found: dict[str, Any] = {}
    try:
        while True:
            page = _ask(f"{api}/variables/filter", {"limit": PAGE, "offset": len(found), "sort": "NAME_ASC"})
            found |= {variable["name"]: variable["value"] for variable in page}
            if len(page) < PAGE:
                return found
    except (OSError, ValueError) as error:
        logger.warning("Prefect at %s does not answer, so its variables are not read: %s", api, _reason(error))
        return {}


def secret(api: str | None, block: str, asked_by: str) -> str:
    """The value of a Secret block. Raises SettingsError where there is none, ServiceError where Prefect does not answer."""
    if api is None:
        raise SettingsError(
            f"{asked_by} is block:{block}, and no Prefect is named that could hold it.", hint="Set PREFECT_API_URL."
        )
    address = f"{api}/block_types/slug/secret/block_documents/name/{quote(block, safe='')}?include_secrets=true"
    try:
        value = _ask(address, None)["data"]["value"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if getattr(error, "code", None) == 404:
            raise SettingsError(
                f"{asked_by} is block:{block}, and Prefect at {api} has no Secret block of this name.",
                hint="Create it in Prefect's UI, or with: aipctl blocks init",
            ) from None
        raise _unreachable(api, asked_by, error) from error
    return value if isinstance(value, str) else json.dumps(value)


def forget_shown(api: str, names: Collection[str]) -> int:
    """Remove the tables that name one of these, and say how many. Raises ServiceError where Prefect does not answer.

    Those of all projects are searched: a flow's own tables carry neither tag nor parameter that says of which project they are, and
    none that names who is to be forgotten may be missed. What is lost of another project's is a display.
    """
    removed = offset = 0
    spelled = {name for one in names for name in (one, json.dumps(one)[1:-1])}  # a table is kept as the text of JSON
    naming = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, sorted(spelled)))})(?!\w)")
    try:
        while True:
            wanted = {"artifacts": {"type": {"any_": ["table"]}}, "limit": PAGE, "offset": offset, "sort": "ID_DESC"}
            page = _ask(f"{api}/artifacts/filter", wanted)
            for artifact in page:
                data = artifact["data"]
                if naming.search(data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)):
                    _ask(f"{api}/artifacts/{artifact['id']}", None, "DELETE")
                    removed, offset = removed + 1, offset - 1
            offset += len(page)
            if len(page) < PAGE:
                return removed
    except (OSError, ValueError, KeyError) as error:
        raise ServiceError(
            f"Prefect at {api} does not answer: {_reason(error)}.", hint="When it does, forget it again."
        ) from error


def _unreachable(api: str, asked_by: str, error: Exception) -> ServiceError:
    return ServiceError(
        f"{asked_by} lies in Prefect at {api}, which does not give it: {_reason(error)}.", hint="See: aipctl check"
    )


def _ask(address: str, body: Mapping[str, Any] | None, method: str | None = None) -> Any:
    """The JSON that an address answers with, or None. Raises OSError or ValueError."""
    import urllib.request  # with it come http and ssl: 25 ms, where an address of Prefect is given

    if not address.startswith(("http://", "https://")):
        raise ValueError("the scheme is not http")
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    elif account := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(account.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers, method=method)  # noqa: S310 - neither a file nor anything else: see above
    direct = [urllib.request.ProxyHandler({})] if urlsplit(address).hostname in LOCAL else []
    with urllib.request.build_opener(*direct).open(request, timeout=SECONDS) as answer:
        return json.loads(answer.read() or "null")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)
