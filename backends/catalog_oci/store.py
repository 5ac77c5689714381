"""An ObjectStore in a bucket of OCI Object Storage, on the official SDK."""

from __future__ import annotations

import base64
import binascii
import io
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from importlib.util import find_spec
from itertools import islice
from typing import Any, BinaryIO, cast

from catalog_core.errors import BackendError, BlobMissing, InvalidInput, KeyTaken
from catalog_core.interfaces.store import BlobInfo, Mode
from catalog_oci.calls import Calls
from catalog_oci.download import Download
from catalog_oci.options import Options
from catalog_oci.parts import CONTENT_TYPE, WHOLE, Parts, md5_of_parts
from catalog_oci.source import Source
from catalog_oracle.client import answer

WRITER = "catalog-put"  # our id of one put, among the object's metadata
_URL = re.compile(r"oci://([A-Za-z0-9._-]{1,256})@([A-Za-z0-9._-]+)(?:/(.*))?\Z", re.DOTALL)
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+"
_PATH = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*\Z")
_DIGEST_KEY = re.compile(r"blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})(?:~[0-9]+)?\Z")
Put = Callable[[dict[str, str], dict[str, str]], None]  # metadata, conditions
_BATCH = 1000  # objects that one request may delete


def split_url(url: str) -> tuple[str, str, str]:
    """Bucket, namespace and prefix (empty, or with a slash at its end) of `oci://bucket@namespace/prefix`."""
    match = _URL.match(url)
    prefix = (match[3] or "").strip("/") if match else ""
    if match is None or (prefix and not _PATH.match(prefix)):
        raise InvalidInput(f"not a URL of OCI Object Storage: {url!r}", hint="oci://bucket@namespace/prefix")
    return match[1], match[2], prefix + "/" if prefix else ""


class OCIStore:
    """See `interfaces.store.ObjectStore`. Keys are names of objects below the prefix; everything else in the bucket is
    left alone and not seen."""

    writable = True
    many_writers = True

    def __init__(self, url: str, options: Options) -> None:
        self.bucket, self.namespace, self.prefix = split_url(url)
        self.calls = Calls(self.namespace, self.bucket, options)

    def _name(self, key: str) -> str:
        if not _PATH.match(key):
            raise InvalidInput(f"not a key: {key[:100]!r}")
        return self.prefix + key

    def put(self, key: str, stream: BinaryIO, size: int, mode: Mode) -> None:
        """See `ObjectStore.put`."""
        name, digest = self._name(key), _DIGEST_KEY.match(key)
        source = Source(stream, size, digest[1] if digest else None)
        try:
            if size > WHOLE:
                put = Parts(self.calls, key, name, source, resume=mode == "content").put
            else:
                put = partial(self._put_whole, key, name, source)
            self._put(key, name, source, mode, put)
        finally:
            source.close()

    def _put(self, key: str, name: str, source: Source, mode: Mode, put: Put) -> None:
        """Put, and where an object is in the way find out whose it is: our own, if only the answer was lost."""
        from oci.exceptions import ServiceError

        writer = secrets.token_hex(16)
        condition = {} if mode == "hint" else {"if_none_match": "*"}
        for _ in range(4):  # more only where others delete the key again and again meanwhile
            try:
                put({WRITER: writer}, condition)
                return
            except ServiceError as exc:
                found, last = self._look(name), exc
            if found is None:
                continue
            if found.get(f"opc-meta-{WRITER}") == writer:
                return
            if mode == "exclusive":
                raise KeyTaken(f"{key} is taken", backend="oci") from last
            if mode == "content" and _same(source, found):
                return
            condition = {}  # it holds other bytes than its name says: they are replaced
        raise BackendError(f"writing {key}: {answer(last)}", backend="oci") from last

    def _put_whole(self, key: str, name: str, source: Source, meta: dict[str, str], condition: dict[str, str]) -> None:
        def put(client: Any) -> Any:
            return client.put_object(
                self.namespace,
                self.bucket,
                name,
                source.body(),
                content_type=CONTENT_TYPE,
                opc_checksum_algorithm="SHA256",  # else the service checks the digest, and does not keep it
                opc_content_sha256=source.sha256(),
                opc_meta=meta,
                **condition,
            )

        self.calls(f"writing {key}", put, source.size)

    def get(self, key: str, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `ObjectStore.get`."""
        name = self._name(key)
        if length == 0:
            if self._look(name) is None:
                raise self._missing(key)
            return io.BytesIO()
        download = Download(self.calls, key, name, start, length)
        if not download.found:
            raise self._missing(key)
        return cast(BinaryIO, io.BufferedReader(download, 1 << 18))

    def _missing(self, key: str) -> BlobMissing:
        return BlobMissing(f"{key} is not in bucket {self.bucket!r}", backend="oci")

    def stat(self, key: str) -> BlobInfo | None:
        """See `ObjectStore.stat`. The checksums are those of the service: MD5, and SHA-256 of what this store wrote."""
        found = self._look(self._name(key))
        if found is None:
            return None
        sums = {"md5": found.get("opc-content-md5"), "sha256": found.get("opc-content-sha256")}
        when = parsedate_to_datetime(found["last-modified"]).timestamp()
        return BlobInfo(key, _size(found), when, _hexadecimal(sums))

    def _look(self, name: str) -> Mapping[str, str] | None:
        """The headers of an object, or None.

        One byte is asked for and not a HEAD, whose 404 has no body: it would not tell a missing object from the service
        saying by mistake that there is no such bucket.
        """
        from oci.exceptions import ServiceError

        what = f"looking for {name}"
        for last in (False, False, True):
            try:
                found: Mapping[str, str] = self.calls(what, lambda c: _first_byte(c, self.namespace, self.bucket, name))
                if "opc-content-md5" in found or "opc-multipart-md5" in found:
                    return found
            except ServiceError as exc:
                if exc.code == "ObjectNotFound":
                    return None
                if exc.status != 416:  # it is empty
                    raise self.calls.meaning(exc, what) from exc
            try:
                found = self.calls(what, lambda c: c.head_object(self.namespace, self.bucket, name)).headers
                return found
            except BackendError as exc:  # was it deleted since?
                if last or getattr(exc.__cause__, "status", None) != 404:
                    raise
        return None

    def list(self, prefix: str, after: str = "") -> Iterator[BlobInfo]:
        """See `ObjectStore.list`."""
        where: dict[str, str] = {"start_after": self._name(after)} if after else {}
        fields = "name,size,md5,timeCreated,timeModified"
        while True:

            def ask(client: Any, where: dict[str, str] = where) -> Any:
                return client.list_objects(
                    self.namespace, self.bucket, prefix=self.prefix + prefix, fields=fields, **where
                )

            page = self.calls(f"listing {prefix or 'all'}", ask).data
            for item in page.objects:
                key = item.name[len(self.prefix) :]
                if _PATH.match(key):  # else it is somebody else's
                    when = (item.time_modified or item.time_created).timestamp()
                    yield BlobInfo(key, item.size, when, _hexadecimal({"md5": item.md5}))
            if not page.next_start_with:
                return
            where = {"start": page.next_start_with}

    def delete(self, keys: Iterable[str]) -> None:
        """See `ObjectStore.delete`."""
        from oci.exceptions import ServiceError
        from oci.object_storage.models import BatchDeleteObjectIdentifier, BatchDeleteObjectsDetails

        names = iter([self._name(key) for key in keys])
        while batch := list(islice(names, _BATCH)):
            what = f"deleting {len(batch)} objects"
            details = BatchDeleteObjectsDetails(
                objects=[BatchDeleteObjectIdentifier(object_name=name) for name in batch], is_skip_deleted_result=True
            )

            def ask(client: Any, details: Any = details) -> None:
                done = client.batch_delete_objects(self.namespace, self.bucket, details)
                for item in done.data.failed or []:
                    if item.status_code != 404:
                        code = "RetentionRule" if "retention" in (item.error_message or "").lower() else None
                        raise ServiceError(item.status_code, code, done.headers, item.error_message)

            self.calls(what, ask)

    def sweep_uploads(self, older_than: float) -> int:
        """Abort unfinished uploads below the prefix that began more than `older_than` seconds ago; return how many.
        Until then the service keeps their parts, and bills them."""
        count = 0
        for upload in self.calls.uploads():
            key = upload.object.removeprefix(self.prefix)
            ours = upload.object.startswith(self.prefix) and key.startswith("blobs/") and _PATH.match(key)
            if ours and time.time() - upload.time_created.timestamp() > older_than:
                self.calls.abort(upload.object, upload.upload_id)
                count += 1
        return count

    def close(self) -> None:
        """Close the idle connections."""
        self.calls.close()


def _first_byte(client: Any, namespace: str, bucket: str, name: str) -> Mapping[str, str]:
    found = client.get_object(namespace, bucket, name, range="bytes=0-0")
    found.data.content  # noqa: B018 - read, so that the connection is of use again
    return cast(Mapping[str, str], found.headers)


def _size(headers: Mapping[str, str]) -> int:
    return int(headers["content-range"].rpartition("/")[2] if "content-range" in headers else headers["content-length"])


def _hexadecimal(sums: Mapping[str, str | None]) -> dict[str, str]:
    """Digests of whole objects; what the service reports of one made of parts (`…-12`) is none."""
    found = {}
    for name, text in sums.items():
        try:
            raw = base64.b64decode(text or "", validate=True)
        except binascii.Error:
            continue
        if len(raw) == {"md5": 16, "sha256": 32}[name]:
            found[name] = raw.hex()
    return found


def _same(source: Source, found: Mapping[str, str]) -> bool:
    """Whether an object holds the bytes of `source`, as far as the service can tell without reading it."""
    if _size(found) != source.size:
        return False
    if "opc-content-sha256" in found:
        return found["opc-content-sha256"] == source.sha256()
    if "opc-content-md5" in found:
        return found["opc-content-md5"] == source.md5()
    return found.get("opc-multipart-md5") == md5_of_parts(source)


def open_store(url: str, options: Mapping[str, object], create: bool) -> OCIStore:
    """Open `oci://bucket@namespace/prefix`. Nothing is asked of the service yet; the bucket has to exist."""
    if find_spec("oci") is None:  # it takes half a second to import, and is not needed yet
        raise ModuleNotFoundError("No module named 'oci'", name="oci")
    return OCIStore(url, Options(**options))  # type: ignore[arg-type]
