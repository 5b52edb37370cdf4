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
    return await _bucket(settings)


def _folder(folder: Path) -> str:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # made when something is stored
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise Trouble("other", f"{folder} cannot be written to", f"Change its permissions, or correct {SETTING}.")
    free = shutil.disk_usage(folder).free
    if free < 100 * 2**20:
        raise Trouble("other", f"only {free // 2**20} MB are free", "Make room on its disk.")
    return f"folder, {free / 2**30:.0f} GB free"


async def _bucket(settings: Settings) -> str:
    from assetcore.storage.filesystems import Filesystem, problem_of  # 0.1 s, and only a check of a bucket needs it

    options = settings.storage_options()
    setting = "storage_endpoint" if settings.storage_endpoint else SETTING
    if options:  # one question, one answer: the many retries of normal work would make a check last 11 s
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5}
    files = Filesystem(settings.storage_url, options)
    files.fs.retries = 1  # those of s3fs itself, around those of botocore
    try:
        if not await files.is_there() and not files.is_s3:  # a prefix of a bucket is there when something is written
            raise FileNotFoundError(settings.storage_url)
    except Exception as error:  # each fsspec implementation has errors of its own
        match problem_of(error):
            case "missing":
                raise Trouble("other", "it does not exist", f"Create it, or correct {SETTING}.") from error
            case "refused":
                raise Trouble(
                    "password", f"it refuses access ({error})", "Correct storage_key and storage_secret."
                ) from error
            case "keys":
                raise Trouble(
                    "password", "it asks for keys, and there are none", "Set storage_key and storage_secret."
                ) from error
            case _:
                raise connection_trouble(error, setting) from error
    finally:
        await files.close()
    return f"{settings.storage_url.partition('://')[0]} bucket"
