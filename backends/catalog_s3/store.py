"""An ObjectStore in a bucket of any S3 endpoint, through obstore."""

from __future__ import annotations

import configparser
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import attrs

from catalog_core import forks
from catalog_core.durable import BLOCK, blocks
from catalog_core.errors import BackendError, BlobMissing, InvalidInput, KeyTaken, NoSpace, NotFound, ReadOnly
from catalog_core.interfaces.store import BlobInfo, Mode
from catalog_s3.library import LIBRARY

SINGLE = 64 * BLOCK  # what is larger goes up in parts
PART = 16 * BLOCK
HINTS = {
    "SignatureDoesNotMatch": "check the secret key",
    "InvalidAccessKeyId": "check the access key, and that it is one of this endpoint",
    "ExpiredToken": "get a new token",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "NoSuchBucket": "make the bucket, or correct its name",
}
FULL = ("QuotaExceeded", "InsufficientStorage", "StorageFull")


# Where obstore looks for keys when it has none: the services of Amazon's machines and containers.
_KEY_SERVICES = re.compile(r"169\.254\.(169\.254|170\.2)|/latest/(api/token|meta-data)|AssumeRoleWithWebIdentity")


def _loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


def _check_endpoint(_: Any, __: Any, url: str | None) -> None:
    parts = urlsplit(url or "https://amazon")
    if parts.username or parts.query or not parts.hostname:
        raise ValueError("endpoint must be https://host[:port], without a user or a query")
    if parts.scheme != "https" and not (parts.scheme == "http" and _loopback(str(url))):
        raise ValueError(f"endpoint {url!r} must begin with https:// (http:// only on this machine)")


_text = attrs.validators.optional(attrs.validators.instance_of(str))


@attrs.frozen
class Options:
    """`endpoint`: else `$AWS_ENDPOINT_URL`, else Amazon's. `profile`: of the shared credentials file. `timeout`: of one
    request, in seconds; one more for each MiB that it moves. `etag`: `md5` where the ETag of what went up in one piece
    is its MD5, as nearly everywhere; `opaque` where it is not (SSE-KMS, SSE-C)."""

    endpoint: str | None = attrs.field(default=None, validator=[_text, _check_endpoint])
    region: str | None = attrs.field(default=None, validator=_text)
    profile: str | None = attrs.field(default=None, validator=_text)
    timeout: float = attrs.field(default=15.0, converter=float, validator=attrs.validators.gt(0))
    etag: str = attrs.field(default="md5", validator=attrs.validators.in_(["md5", "opaque"]))


def credentials(profile: str | None) -> Any:
    """What reads the keys of a profile from the shared file; None where obstore shall look for keys itself: in the
    environment, then with the services of the cloud."""
    name = profile or os.environ.get("AWS_PROFILE") or "default"
    path = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials").expanduser()

    def read() -> dict[str, Any]:
        keys = configparser.RawConfigParser(default_section="")
        try:
            keys.read(path, encoding="utf-8")
            found = {"token": keys[name].get("aws_session_token")}
            found |= {field: keys[name][f"aws_{field}"] for field in ("access_key_id", "secret_access_key")}
        except (OSError, ValueError, KeyError, configparser.Error):  # not chained: it may quote the file
            hint = "`aws configure --profile` writes one, or set $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY"
            raise BackendError(f"{path} has no keys of a profile {name!r}", hint=hint, backend="s3") from None
        return {**found, "expires_at": datetime.now(UTC) + timedelta(minutes=15)}  # then read again: others renew it

    if profile is None and (os.environ.get("AWS_ACCESS_KEY_ID") or not path.exists()):
        return None
    read()
    return read


class S3Store:
    """See `interfaces.store.ObjectStore`."""

    many_writers = None  # some servers ignore `If-None-Match`, old ones of Ceph among them

    def __init__(self, bucket: str, prefix: str, options: Options) -> None:
        endpoint = options.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self._options = options
        self._http = bool(endpoint) and _loopback(str(endpoint))
        self._config = {
            "bucket": bucket, "prefix": prefix or None, "credential_provider": credentials(options.profile),
            "virtual_hosted_style_request": False,
            "retry_config": {
                "max_retries": 5, "retry_timeout": timedelta(seconds=options.timeout),
                "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
            },
            **({"endpoint": endpoint} if endpoint else {}), **({"region": options.region} if options.region else {}),
        }  # fmt: skip
        self._clients: dict[tuple[object, int], Any] = {}
        self._reader()

    def _connect(self, seconds: float, **limits: Any) -> Any:
        connect = timedelta(seconds=min(5, self._options.timeout))
        limits |= {"allow_http": self._http, "connect_timeout": connect, "timeout": timedelta(seconds=seconds)}
        return LIBRARY.package.store.S3Store(**self._config, client_options=limits)

    def _reader(self) -> Any:
        """The client for bodies of answers: it waits for each piece, not for the end."""
        return self._kept(-1, lambda: self._connect(86400, read_timeout=timedelta(seconds=self._options.timeout)))

    def _kept(self, step: int, make: Callable[[], Any]) -> Any:
        """The client `step` of this process: those of its parent are left alone, and never closed here."""
        key = forks.process(), step
        if key not in self._clients:
            self._clients[key] = make()
        return self._clients[key]

    def _client(self, size: int = 0) -> Any:
        """The client for requests that send `size` bytes: its deadline grows with the power of two above. (One for all,
        with a limit on idle time only, is no way: obstore counts sending as waiting for the answer.)"""
        step = (size // BLOCK).bit_length()
        return self._kept(step, lambda: self._connect(self._options.timeout + (1 << step)))

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        with translated(key, writing=True):
            if size > SINGLE:
                parts = blocks(stream, size)
                self._client(SINGLE).put(key, parts, use_multipart=True, chunk_size=PART, max_concurrency=4)
                return
            data, mine = b"".join(blocks(stream, size)), secrets.token_hex(16)
            create = {"mode": "create", "attributes": {"writer": mine}} if mode == "exclusive" else {}
            try:
                self._client(size).put(key, data, use_multipart=False, **create)
            except (LIBRARY.exceptions.AlreadyExistsError, LIBRARY.exceptions.GenericError):
                if not create or self._writer(key) != mine:  # it may be there by our own put, whose answer was lost
                    raise

    def _writer(self, key: str) -> str | None:
        try:
            attributes: Mapping[str, str] = self._client().get(key, options={"head": True}).attributes
        except FileNotFoundError:
            return None
        return attributes.get("writer")

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`."""
        options: dict[str, Any] = {"range": {"offset": start} if length is None else (start, start + length)}
        with translated(key):
            if length == 0:  # no range of HTTP is empty
                self._client().head(key)
                return io.BytesIO()
            try:
                found = self._reader().get(key, options=options if start or length else {})
            except LIBRARY.exceptions.GenericError as exc:
                if "status code: 416 " not in str(exc).partition("<")[0]:
                    raise
                return io.BytesIO()  # it ends before `start`
        return io.BufferedReader(_Body(key, found), BLOCK)

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`."""
        try:
            with translated(key):
                return self._info(key, self._client().head(key))
        except BlobMissing:
            return None

    def _info(self, key: str, meta: Mapping[str, Any]) -> BlobInfo:
        etag = str(meta["e_tag"]).strip('"')
        plain = self._options.etag == "md5" and re.fullmatch("[0-9a-f]{32}", etag)  # of parts it is `<hex>-<count>`
        return BlobInfo(key, meta["size"], meta["last_modified"].timestamp(), {"md5": etag} if plain else {})

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`."""
        folder = prefix.rpartition("/")[0]  # obstore takes whole segments
        # some servers (SeaweedFS, S3 Express) sort by segment, `b/c` before `b.d`, and begin after `after` so too
        begin = after if re.fullmatch("[A-Za-z0-9_~/]+", after) else None
        with translated(prefix):
            found = [
                meta for page in self._client().list(folder or None, offset=begin, chunk_size=1000) for meta in page
            ]
        for meta in sorted(found, key=lambda meta: str(meta["path"])):
            if meta["path"].startswith(prefix) and meta["path"] > after:
                yield self._info(meta["path"], meta)

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        with translated("delete", writing=True):
            self._client().delete(list(keys))


class _Body(io.RawIOBase):
    """The body of an answer as a raw file."""

    def __init__(self, key: str, found: Any) -> None:
        self._key, self._stream, self._rest = key, iter(found.stream(min_chunk_size=BLOCK)), memoryview(b"")
        self._process = forks.process()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        forks.check(self._process, self._key, "s3")
        if not self._rest:
            with translated(self._key):
                self._rest = memoryview(next(self._stream, b""))
        count = min(len(self._rest), len(buffer))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


@contextmanager
def translated(what: str, writing: bool = False) -> Iterator[None]:
    """Turn obstore's errors into ours, with what the server said: its code, and what to do."""
    try:
        yield
    except FileNotFoundError as exc:
        raise BlobMissing(f"{what} is not in the bucket", backend="s3") from exc
    except LIBRARY.exceptions.AlreadyExistsError as exc:
        raise KeyTaken(f"{what} is taken", backend="s3") from exc
    except LIBRARY.exceptions.BaseError as exc:
        exceptions = LIBRARY.exceptions
        text = str(exc)
        code = next(iter(re.findall(r"(?:<Code>|\(code: )([A-Za-z]+)", text)), "")
        said = re.sub(r"\s+", " ", text.partition("Debug source")[0].partition("<")[0])[:300].strip()
        denied = isinstance(exc, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError))
        if _KEY_SERVICES.search(text):
            raise BackendError(
                f"{what}: there are no keys for S3: $AWS_ACCESS_KEY_ID is not set, no profile was found, and this "
                "machine has no service that gives keys",
                hint="set $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws/credentials: "
                'profile = "…" in catalog.toml',
                backend="s3",
            ) from exc
        hint = HINTS.get(code) or ("check the key and its rights on the bucket" if denied else None)
        if code == "NoSuchBucket":
            name = next(iter(re.findall(r"<BucketName>([a-z0-9.-]+)<", text)), "")
            raise NotFound(f"there is no such bucket{name and f': {name}'}", hint=HINTS[code], backend="s3") from exc
        if writing and code == "AccessDenied":
            raise ReadOnly(f"{what}: may not be written", hint=hint, backend="s3") from exc
        kind = NoSpace if code in FULL else BackendError
        answer = f"the S3 endpoint answers {code}" if code else said
        raise kind(f"{what}: {answer}", hint=hint or "check the endpoint and the network", backend="s3") from exc


def open_store(url: str, options: Mapping[str, Any], create: bool) -> S3Store:
    """Open the store of `s3://bucket/prefix`. Raises `NotFound` where `create` finds no bucket."""
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9._-]{1,62})(?:/([A-Za-z0-9._~/-]*))?", url)
    if not match:
        raise InvalidInput(f"{url!r} is not s3://bucket/prefix", hint="the endpoint goes into the configuration")
    store = S3Store(match[1], (match[2] or "").strip("/"), Options(**options))
    if create:
        next(iter(store.list("journal/")), None)  # a missing bucket is told here
    return store
