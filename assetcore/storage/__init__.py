"""Storage: where do the bytes lie, and how are they read again? The only door to fsspec and S3."""

from assetcore.storage.buckets import Bucket, DamagedObjectError, MissingObjectError, ObjectExistsError, ObjectInfo
from assetcore.storage.formats import arrow_array, check_fields, columns_of, frame_column, jsonable_fields, sorted_json
from assetcore.storage.keys import (
    Key,
    KeyParts,
    configuration_key,
    flows_of,
    is_configuration,
    object_key,
    parse_key,
    run_timestamp,
)
from assetcore.storage.packs import CorruptObjectError, Location, Reader, Stored, encode_pack, one_table

__all__ = [
    "Bucket",
    "CorruptObjectError",
    "DamagedObjectError",
    "Key",
    "KeyParts",
    "Location",
    "MissingObjectError",
    "ObjectExistsError",
    "ObjectInfo",
    "Reader",
    "Stored",
    "arrow_array",
    "check_fields",
    "columns_of",
    "configuration_key",
    "encode_pack",
    "flows_of",
    "frame_column",
    "is_configuration",
    "jsonable_fields",
    "object_key",
    "one_table",
    "parse_key",
    "run_timestamp",
    "sorted_json",
]
