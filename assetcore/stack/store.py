"""Store: can the bucket or folder of artifacts be used?"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from assetcore.settings import Settings
from assetcore.stack.trouble import Trouble, connection_trouble

SETTING = "storage_url"


async def probe(settings: Settings) -> str:
    """What kind of store it is. Raises Trouble."""
    url = settings.storage_url
    if url.startswith("file://"):
        return await asyncio.to_thread(_folder, Path(url.removeprefix("file://")))
    return await asyncio.to_thread(_bucket, settings)


def _folder(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # made when something is stored
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise Trouble("other", f"{folder} cannot be written to", f"Change its permissions, or correct {SETTING}.")
    free = shutil.disk_usage(folder).free
    if free < 100 * 2**20:
        raise Trouble("other", f"only {free // 2**20} MB are free", "Make room on its disk.")
    return f"folder, {free / 2**30:.0f} GB free"


def _bucket(settings: Settings) -> str:
    from fsspec.core import url_to_fs  # heavy, and only a check needs it here

    options = settings.storage_options()
    setting = "storage_endpoint" if settings.storage_endpoint else SETTING
    if options:  # one question, one answer: the many retries of normal work would make a check last 11 s
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5}
    try:
        files, path = url_to_fs(settings.storage_url, skip_instance_cache=True, **options)
        files.retries = 1  # those of s3fs itself, around those of botocore
        files.ls(path.partition("/")[0], detail=False)
    except FileNotFoundError as error:
        raise Trouble("other", "it does not exist", f"Create it, or correct {SETTING}.") from error
    except PermissionError as error:
        raise Trouble("password", f"it refuses access ({error})", "Correct storage_key and storage_secret.") from error
    except Exception as error:  # each fsspec implementation has errors of its own
        if "credentials" in str(error):
            raise Trouble(
                "password", "it asks for keys, and there are none", "Set storage_key and storage_secret."
            ) from error
        raise connection_trouble(error, setting) from error
    protocol = files.protocol if isinstance(files.protocol, str) else files.protocol[0]
    return f"{protocol} bucket"
