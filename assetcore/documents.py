"""Documents: what is one, and when are two the same?

A document is an immutable typed value: a name, bytes, a media type and typed fields. Its *content* is the SHA-256 of its bytes;
its *identity* is everything that a function can see of it (type, name, media type, fields, content) and nothing of where it came
from: an upstream that is made again with the same result therefore stops there.
"""

from __future__ import annotations

import base64
import copy
import enum
import hashlib
import inspect
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from json.encoder import encode_basestring
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, get_origin

from pydantic import BaseModel, ConfigDict, Field, PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator, core_schema

from assetcore.digest import begun, canonical, digest
from assetcore.errors import AssetcoreError, DeclarationError, StorageError
from assetcore.excerpts import Excerpt, pointed_at

__all__ = [
    "Document",
    "UnreadableError",
    "document_id",
    "excerpt_of",
    "field_digest_at",
    "field_digests",
    "has_validators",
    "identity",
    "plain_value",
    "projected_identity",
    "restrict",
]

TEXT = "text/plain"
JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
NAME_LIMIT = 1024
BUILT_IN = ("name", "media_type", "content")
"""What every document has, beside its typed fields."""
_EXCERPT = "_excerpt"
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""What most fields hold, and nothing is to be made of."""
_EXACT = frozenset({str, int, float, bool})
"""What JSON gives back as it was."""
_NO_VALIDATION = frozenset({"config", "default", "expected", "members", "metadata", "serialization"})
"""Of a node of pydantic's schema: what holds no other nodes that validate."""
_WORDS: Mapping[bool | None, str] = {None: "null", True: "true", False: "false"}
"""How JSON says them."""
UNREADABLE = "Make it again, or let its class take what is stored."
PINNED: Mapping[str, Any] = {"frozen": True, "extra": "forbid"}
"""What no subclass may change of a document's `model_config`."""


class UnreadableError(StorageError):
    """What is stored is whole, and does not fit the form in which it is asked for."""


class Document(BaseModel):
    """An immutable typed value: `name`, `content` (bytes), `media_type`, and the typed fields of the subclass.

    Subclass it to name what a thing is, and annotate its fields; they become Parquet columns:

        class Chunk(Document):
            ordinal: int

        Chunk(name="with-0", text="The with statement ...", ordinal=0)

    Give exactly one of `text` (stored as UTF-8), `data` (anything JSON can hold, stored as JSON with sorted keys) or `content`
    (bytes). The media type is `text/plain`, `application/json` or `application/octet-stream` accordingly, unless it is given or
    the class fixes it: `class Page(Document, media_type="text/html")`.

    Raises AssetcoreError for a name, a media type or a field that does not fit; the message names the class, the field and the value.
    A subclass whose fields hide what every document has, or would not be stored, is a DeclarationError where it is declared.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=False, protected_namespaces=(), validate_by_name=True,
        validate_by_alias=True,
    )  # fmt: skip
    fixed_media_type: ClassVar[str | None] = None

    if TYPE_CHECKING:  # the constructor as a type checker should see it: what is given, not what is kept
        name: str = Field(kw_only=False)
        text: str = ""
        data: Any = None
        content: bytes = b""
        media_type: str = ""
    else:
        name: str
        content: bytes
        media_type: str

        def __init__(
            self,
            name: str,
            *,
            text: str | None = None,
            data: Any = None,
            content: bytes | None = None,
            media_type: str | None = None,
            **fields: Any,
        ) -> None:
            cls = type(self)
            given = (text is not None) + (data is not None) + (content is not None)
            if given != 1:
                raise AssetcoreError(
                    f"{cls.__name__}({name!r}) was given {given} of text=, data= and content=.",
                    hint="Give exactly one of them.",
                )
            check_name(name, cls.__name__)
            kind = "application/octet-stream"
            try:
                if text is not None:
                    content, kind = text.encode(), TEXT
                elif data is not None:
                    content = _as_json(data)
                    kind = JSON
            except (AttributeError, TypeError, ValueError) as error:
                asked = "text= takes str" if text is not None else "data= takes what JSON can hold"
                raise AssetcoreError(f"{cls.__name__}({name!r}): {asked}: {error}.") from None
            try:
                super().__init__(
                    name=name, content=content, media_type=media_type or cls.fixed_media_type or kind, **fields
                )
            except ValidationError as error:
                raise _unfit(cls, name, error) from None
            if problem := _media_type_problem(self.media_type):
                raise AssetcoreError(
                    f"The media type {self.media_type!r:.100} of {cls.__name__}({name!r}) {problem}.",
                    hint='Give it one such as "text/html".',
                )

        @property
        def text(self) -> str:
            """The content as UTF-8 text; AssetcoreError if it is not."""
            try:
                return self.content.decode()
            except UnicodeDecodeError as error:
                raise AssetcoreError(
                    f"{type(self).__name__} {self.name!r} is not UTF-8 text: byte {error.object[error.start]:#04x} at {error.start}.",
                    hint="Use .content for its bytes.",
                ) from None

        @property
        def data(self) -> Any:
            """The content read as JSON; AssetcoreError if it is not."""
            try:
                return json.loads(self.content)
            except ValueError as error:
                raise AssetcoreError(f"{type(self).__name__} {self.name!r} is not JSON: {error}.") from None

    def __init_subclass__(cls, media_type: str | None = None, **kwargs: Any) -> None:
        _check_fields(cls)  # before pydantic sees them: it would only warn
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, media_type: str | None = None, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for option, value in PINNED.items():
            if cls.model_config.get(option) != value:
                raise _declared_wrongly(
                    cls,
                    f"sets {option}={cls.model_config.get(option)!r}.",
                    f"Documents are {option}={value!r}: leave it out.",
                )
        if media_type is not None:
            if not isinstance(media_type, str) or "/" not in media_type or _unprintable(media_type):
                raise _declared_wrongly(cls, f"has media_type={media_type!r}.", 'Write it as "text/html".')
            cls.fixed_media_type = media_type

    @classmethod
    def stored(cls, name: str, content: bytes, media_type: str, fields: Mapping[str, Any]) -> Self:
        """The document that was stored with these values; fields are validated, so a stored type comes back as declared.

        Models in fields are stored by the names of their fields, whatever aliases they have. Raises UnreadableError.
        """
        try:
            if cls.__init__ is not Document.__init__:
                return cls(name=name, content=content, media_type=media_type, **fields)
            # What is checked beside the fields was so when the document was made.
            values = {"name": name, "content": content, "media_type": media_type, **fields}
            return _validator(cls).validate_python(
                values, self_instance=cls.__new__(cls), strict=False, by_alias=True, by_name=True
            )
        except ValidationError as error:
            raise UnreadableError(_unfit(cls, name, error).message, hint=UNREADABLE) from None
        except Exception as error:  # the class's own code refuses what it was given before
            raise UnreadableError(
                f"{cls.__name__}({name!r}) does not fit its declaration: {type(error).__name__}: {error}.",
                hint=UNREADABLE,
            ) from error

    @classmethod
    def part_of(
        cls,
        whole: Document,
        start: int | None = None,
        end: int | None = None,
        *,
        name: str | None = None,
        pages: tuple[int, int] | None = None,
        pointer: str | None = None,
        **parts: Any,
    ) -> Self:
        """A document that is part of another one: from byte `start` to byte `end`, `pages` from .. to, or the value at a JSON `pointer`.

        Its content is that part, unless `text`, `data` or `content` is given (for pages it must be); typed fields are given as always.
        Where it stands is kept in lineage and shown by `aipctl show REF --context`. It is no part of the document's identity; a name
        that is made of it (the default) is, so give it a `name` that does not change when text is inserted before it.

            Chunk.part_of(topic, start, end, name=f"{topic.stem}-{i}", ordinal=i)

        Positions are bytes, of text too: `len(topic.text[:i].encode())` for character i.
        Raises AssetcoreError for a part that is not there.
        """
        own = bool(parts.keys() & {"text", "data", "content"})
        given = (start is not None or end is not None) + (pages is not None) + (pointer is not None)
        if given != 1:
            raise AssetcoreError(
                f"{cls.__name__}.part_of({whole.name!r}) was given {given} of start and end, pages= and pointer=.",
                hint="Give exactly one of them.",
            )
        taken: dict[str, Any] = {}
        if pointer is not None:
            value = pointed_at(whole.content, pointer)
            taken = {"text": value} if isinstance(value, str) else {"content": _as_json(value), "media_type": JSON}
            excerpt, beginning = (
                Excerpt(whole.name, whole.sha256, "pointer", pointer=pointer),
                pointer.rpartition("/")[2],
            )
        elif pages is not None:
            beginning, last = pages
            if not own or not 1 <= beginning <= last:
                raise AssetcoreError(
                    f"{cls.__name__}.part_of({whole.name!r}, pages={pages}) needs pages from 1 on, and what they say.",
                    hint="Give text=, data= or content=.",
                )
            excerpt = Excerpt(whole.name, whole.sha256, "pages", beginning, last)
        else:
            beginning, last = start or 0, len(whole.content) if end is None else end
            if not 0 <= beginning <= last <= len(whole.content):
                raise AssetcoreError(
                    f"{cls.__name__}.part_of({whole.name!r}, {start}, {end}): it has {len(whole.content)} bytes."
                )
            taken = {"content": whole.content[beginning:last], "media_type": cls.fixed_media_type or whole.media_type}
            excerpt = Excerpt(whole.name, whole.sha256, "bytes", beginning, last)
        part = cls(name or f"{whole.stem}-{beginning}", **({} if own else taken) | parts)
        object.__setattr__(part, _EXCERPT, excerpt)
        return part

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """The typed fields that the subclass adds, in the order of their declaration."""
        return _field_names(cls)

    @property
    def stem(self) -> str:
        """The last part of the name, without its suffix: `with` for `reference/with.txt`."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name with its dot, or an empty string."""
        return PurePosixPath(self.name).suffix

    @cached_property
    def sha256(self) -> bytes:
        """SHA-256 of the content: 32 bytes."""
        return hashlib.sha256(self.content).digest()

    @property
    def id(self) -> str:
        """The first 6 characters of the base32 SHA-256: a label for people, never a key (30 bits collide)."""
        return document_id(self.sha256)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """The same document with some parts replaced (`text`, `data` or `content` among them), checked as when it was made."""
        parts: dict[str, Any] = {part: getattr(self, part) for part in (*BUILT_IN, *self.field_names())}
        changes = dict(update or {})
        if changes.keys() & {"text", "data"}:
            del parts["content"]
        parts = copy.deepcopy(parts) if deep else parts
        return type(self)(**(parts | changes))

    def field_values(self) -> dict[str, Any]:
        """The typed fields, nested models as plain dictionaries."""
        return {name: plain_value(getattr(self, name)) for name in _field_names(type(self))}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.content)} bytes, {self.media_type})"

    __str__ = __repr__

    def __hash__(self) -> int:
        return hash((type(self), self.name, self.sha256))


def excerpt_of(document: Document) -> Excerpt | None:
    """Which part of which other document this is, if `part_of` made it; of one that was stored and read again, lineage knows."""
    return document.__dict__.get(_EXCERPT)


def document_id(sha256: bytes, length: int = 6) -> str:
    """The label for people: `length` characters of the lower-case base32 of a content's SHA-256."""
    return base64.b32encode(sha256).decode().lower()[:length]


def _unfit(cls: type[Document], name: str, error: ValidationError) -> AssetcoreError:
    problems = "; ".join(
        f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e.get('input')!r:.80}" for e in error.errors()
    )
    return AssetcoreError(f"{cls.__name__}({name!r}) does not fit its declaration: {problems}.")


def check_name(name: str, what: str) -> None:
    """Raise AssetcoreError unless `name` can be a document's name: any printable text of 1 to 1024 bytes."""
    if problem := _unprintable(name):
        raise AssetcoreError(f"The name {name!r:.100} of a {what} {problem}.", hint="Give it another name.")


def _unprintable(text: str) -> str | None:
    """Why a text cannot stand where people and Postgres read it."""
    if not isinstance(text, str) or not text:
        return "is empty or not text"
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in text) if not text.isascii() else not text.isprintable():
        return "has control characters or bytes that are not UTF-8"
    return f"is longer than {NAME_LIMIT} bytes" if len(text.encode()) > NAME_LIMIT else None


_media_type_problem = lru_cache(maxsize=256)(_unprintable)  # there are few, and many documents of each


def field_digests(fields: Mapping[str, Any]) -> bytes:
    """16 bytes for each typed field, in the order of their names: in which order a class declares them changes nothing."""
    found: list[bytes] = []
    for name in sorted(fields):
        hashed = begun("field", name).copy()
        hashed.update(canonical(fields[name]))
        found.append(hashed.digest()[:16])
    return b"".join(found)


def field_digest_at(names: Iterable[str], field: str) -> int:
    """At which byte of `field_digests` the digest of a field begins, given the names of all fields."""
    return 16 * sorted(names).index(field)


def identity(type_name: str, name: str, media_type: str, sha256: bytes, fields: bytes) -> bytes:
    """A document's identity as an input: 32 bytes over all that a function can see of it. `fields` is `field_digests(...)`."""
    return digest("document", type_name, name, media_type, sha256, fields)


def projected_identity(
    type_name: str,
    name: str,
    media_type: str,
    sha256: bytes,
    fields: bytes,
    names: Iterable[str],
    chosen: frozenset[str],
) -> bytes:
    """The identity of what `each(..., fields=chosen)` hands over: only the chosen parts count. `names` are the typed fields."""
    parts: dict[str, bytes | str] = {"name": name, "media_type": media_type, "content": sha256}
    parts.update((field, fields[16 * i : 16 * i + 16]) for i, field in enumerate(sorted(names)))
    return digest("projected", type_name, {key: value for key, value in parts.items() if key in chosen})


def restrict(document: Document, chosen: frozenset[str]) -> Document:
    """The same document with only the chosen parts; touching another raises AssetcoreError, which says how to have it."""
    parts = {name: getattr(document, name) for name in (*BUILT_IN, *document.field_names()) if name in chosen}
    return _restricted(type(document), chosen).model_construct(**parts)


@lru_cache(maxsize=256)
def _restricted(cls: type[Document], chosen: frozenset[str]) -> type[Document]:
    hidden = {*BUILT_IN, *cls.field_names()} - chosen
    allowed = ", ".join(sorted(chosen))

    def __getattribute__(self: Document, name: str) -> Any:
        if name in hidden:
            raise AssetcoreError(
                f"{cls.__name__}.{name} is not handed over: fields= names only {allowed}.",
                hint=f"Add {name!r} to fields=.",
            )
        return object.__getattribute__(self, name)

    def __repr__(self: Document) -> str:
        return f"{cls.__name__}(... only {allowed or 'that it is there'})"

    namespace = {
        "__getattribute__": __getattribute__, "__repr__": __repr__, "__str__": __repr__, "__module__": cls.__module__,
        "__doc__": cls.__doc__,
    }  # fmt: skip
    return cast("type[Document]", type(cls.__name__, (cls,), namespace))


@lru_cache(maxsize=4096)
def _field_names(cls: type[Document]) -> tuple[str, ...]:
    return tuple(name for name in cls.model_fields if name not in BUILT_IN)


@lru_cache(maxsize=4096)
def has_validators(cls: type[Document]) -> bool:
    """Whether a class has code of its own that could make another value of the one that it is given."""
    own = cls.__init__ is not Document.__init__
    return own or any(node["type"].startswith("function-") for node in _nodes(_schema(cls)))


@lru_cache(maxsize=4096)
def _validator(cls: type[Document]) -> Any:
    """What validates the fields of a stored document: it finds members of enums by what JSON, without tuples and dates, made of them."""
    schema = _schema(cls)
    if not any(map(_unfound, _nodes(schema))):
        return cls.__pydantic_validator__
    return SchemaValidator(_lenient(schema), _use_prebuilt=False)  # those of nested models would be used as they are


def _schema(cls: type[Document]) -> Any:
    cls.model_rebuild(raise_errors=False)  # does nothing, unless an annotation names what was declared later
    return cls.__pydantic_core_schema__


def _parts(schema: Any) -> Iterator[tuple[Any, Any]]:
    """What a part of pydantic's schema consists of, by key or place, as far as it says how to validate."""
    if isinstance(schema, dict):
        for key, part in schema.items():
            if key not in _NO_VALIDATION or not _is_node(schema):
                yield key, part
    elif isinstance(schema, list | tuple):
        yield from enumerate(schema)


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if _is_node(schema):
        yield schema
    for _, part in _parts(schema):
        yield from _nodes(part)


def _is_node(schema: Any) -> bool:
    return isinstance(schema, dict) and isinstance(schema.get("type"), str)


def _unfound(node: Mapping[str, Any]) -> list[enum.Enum]:
    """The members of enums that pydantic does not find by what JSON makes of them. A literal takes the member alone."""
    if node["type"] == "literal":
        return [one for one in node["expected"] if isinstance(one, enum.Enum)]
    return [one for one in node["members"] if type(one.value) not in _EXACT] if node["type"] == "enum" else []


def _lenient(schema: Any) -> Any:
    """The schema, which finds all members of enums."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_lenient, schema))
    if not isinstance(schema, dict):
        return schema
    found: Any = schema | {key: _lenient(part) for key, part in _parts(schema)}
    unfound = _unfound(schema) if _is_node(schema) else []
    return core_schema.no_info_wrap_validator_function(_finding(unfound), found) if unfound else found


def _finding(members: Sequence[enum.Enum]) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """What finds a member by what JSON makes of its value, where pydantic does not."""
    adapters: list[tuple[TypeAdapter[Any], enum.Enum]] = []
    for member in members:
        with suppress(PydanticSchemaGenerationError):
            adapters.append((TypeAdapter(type(member.value)), member))

    def find(value: Any, by_itself: Callable[[Any], Any]) -> Any:
        try:
            return by_itself(value)
        except ValidationError:
            for adapter, member in adapters:
                with suppress(ValidationError):
                    if adapter.validate_python(value, strict=type(member.value) in _EXACT) == member.value:
                        return member
            raise

    return find


def _check_fields(cls: type[Document]) -> None:
    """Raise DeclarationError for a field that would hide what a document has, or would not be stored."""
    for owner in cls.__mro__:
        if owner in Document.__mro__:
            continue
        for name, annotation in inspect.get_annotations(owner).items():
            if get_origin(annotation) is ClassVar or re.match(r"([\w.]+\.)?ClassVar\b", str(annotation)):
                continue
            if name.startswith("_"):
                raise _declared_wrongly(
                    cls, f"has a private field {name!r}, which would not be stored.", "Name it without _."
                )
            if name in BUILT_IN or hasattr(Document, name):
                raise _declared_wrongly(
                    cls, f"has a field {name!r}, which every document has already.", "Rename the field."
                )


def _declared_wrongly(cls: type[Document], problem: str, fix: str) -> DeclarationError:
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("abc", "assetcore", "pydantic"):
        frame = frame.f_back
    return DeclarationError(f"{frame.f_code.co_filename}:{frame.f_lineno}: {cls.__name__} {problem}", hint=fix)


def _as_json(value: Any) -> bytes:
    """JSON with sorted keys, as `json.dumps` writes it with an indent of 1.

    That leaves thirty objects behind at each call for the garbage collector, and takes four times as long for plain values.
    """
    try:
        text = _indented(value, "\n")
    except (TypeError, ValueError, RecursionError):
        # It is no plain value, or none that JSON can hold: json knows, and says why not.
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    return text.encode()


def _indented(value: Any, line: str) -> str:
    """A plain value as JSON, where `line` begins a line of it. Raises TypeError or ValueError for any other."""
    kind = type(value)
    if kind is str:
        return encode_basestring(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if kind is dict:
        inner = line + " "
        members = [f"{encode_basestring(name)}: {_indented(member, inner)}" for name, member in sorted(value.items())]
        return f"{{{inner}{f',{inner}'.join(members)}{line}}}" if members else "{}"
    if kind is list:
        inner = line + " "
        return f"[{inner}{f',{inner}'.join([_indented(member, inner) for member in value])}{line}]" if value else "[]"
    if value is None or kind is bool:
        return _WORDS[value]
    raise TypeError


def plain_value(value: Any) -> Any:
    """The value of a field without models: what its digest is taken of."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, list | tuple):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    return value
