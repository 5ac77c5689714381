"""Large objects: parts that travel in parallel, and an upload that is taken up again after a kill."""

from __future__ import annotations

import base64
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from catalog_core.errors import BackendError, DeadlineExceeded
from catalog_oci.calls import Calls
from catalog_oci.source import Source

WHOLE = 128 << 20  # bytes; what is larger travels in parts
PART = 16 << 20
CONTENT_TYPE = "application/octet-stream"


def part_size(size: int) -> int:
    """Depends on the object's size alone, so that who takes an upload up again cuts alike. 10,000 parts at most."""
    return max(PART, -(-size // 5000 >> 20) << 20)


def cuts(size: int) -> list[tuple[int, int, int]]:
    """Number, start and size of each part."""
    step = part_size(size)
    return [(n + 1, at, min(step, size - at)) for n, at in enumerate(range(0, size, step))]


def md5_of_parts(source: Source) -> str:
    """What the service reports as `opc-multipart-md5` for an object that was cut as here."""
    md5s = [hashlib.md5(source.piece(at, size)).digest() for _, at, size in cuts(source.size)]
    return f"{base64.b64encode(hashlib.md5(b''.join(md5s)).digest()).decode()}-{len(md5s)}"


class Parts:
    """One object of one upload in parts.

    `resume`: the name says what the bytes are (mode `content`), so an unfinished upload of it, of whoever, is taken up:
    the parts that are there and equal are not sent again. Two writers that take up the same one send the same parts;
    whoever commits first ends it, and the other finds the object.
    """

    def __init__(self, calls: Calls, key: str, name: str, source: Source, resume: bool) -> None:
        self._calls = calls
        self._what = f"writing {key}"
        self._name = name
        self._source = source
        self._resume = resume
        self._lock = threading.Lock()  # the source has one place at a time

    def put(self, meta: dict[str, str], condition: dict[str, str]) -> None:
        """Send all parts, then commit. Raises the SDK's `ServiceError` where the condition does not hold, or somebody
        else ended the upload; after any other error the upload is left, to be taken up or swept."""
        from oci.exceptions import ServiceError

        upload, there = self._find() if self._resume else None, {}
        if upload is None:
            upload = self._create(meta, condition)
        else:
            there = {part.part_number: part for part in self._calls.parts(self._name, upload)}
        etags: dict[int, str] = {}
        todo = iter(cuts(self._source.size))
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                with self._lock:
                    cut = next(todo, None)
                    if cut is None:
                        return
                    number, at, size = cut
                    data = self._source.piece(at, size)
                try:
                    etags[number] = self._send(upload, number, data, there.get(number))
                except BaseException:
                    stop.set()  # the others need not go on
                    raise

        with ThreadPoolExecutor(self._calls.options.parallel, "catalog-oci") as pool:
            try:
                for future in [pool.submit(work) for _ in range(self._calls.options.parallel)]:
                    future.result()
            finally:
                stop.set()  # one that failed, or an interrupt, ends the others
        try:
            self._commit(upload, etags, set(there) - set(etags), condition)
        except ServiceError as exc:
            if exc.status == 412:  # another object has the name: nobody needs these parts
                self._calls.abort(self._name, upload)
            raise

    def _find(self) -> str | None:
        try:
            found = [upload for upload in self._calls.uploads() if upload.object == self._name]
        except DeadlineExceeded:
            raise
        except BackendError:  # who may put objects may still not look at the bucket
            return None
        return max(found, key=lambda upload: upload.time_created).upload_id if found else None

    def _create(self, meta: dict[str, str], condition: dict[str, str]) -> str:
        from oci.object_storage.models import CreateMultipartUploadDetails

        details = CreateMultipartUploadDetails(
            object=self._name,
            content_type=CONTENT_TYPE,
            metadata={f"opc-meta-{key}": value for key, value in meta.items()},
        )
        made = self._calls(
            self._what,
            lambda c: c.create_multipart_upload(
                self._calls.namespace, self._calls.bucket, details, opc_checksum_algorithm="SHA256", **condition
            ),
        )
        return str(made.data.upload_id)

    def _send(self, upload: str, number: int, data: bytes, there: Any) -> str:
        """Send one part, unless it is there; return its ETag."""
        if there is not None and there.md5 == base64.b64encode(hashlib.md5(data).digest()).decode():
            return str(there.etag)
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        sent = self._calls(
            self._what,
            lambda c: c.upload_part(
                self._calls.namespace,
                self._calls.bucket,
                self._name,
                upload,
                number,
                data,
                opc_checksum_algorithm="SHA256",
                opc_content_sha256=digest,
            ),
            len(data),
        )
        return str(sent.headers["etag"])

    def _commit(self, upload: str, etags: dict[int, str], extra: set[int], condition: dict[str, str]) -> None:
        from oci.object_storage.models import CommitMultipartUploadDetails, CommitMultipartUploadPartDetails

        details = CommitMultipartUploadDetails(
            parts_to_commit=[
                CommitMultipartUploadPartDetails(part_num=number, etag=etag) for number, etag in sorted(etags.items())
            ],
            parts_to_exclude=sorted(extra),
        )
        self._calls(
            self._what,
            lambda c: c.commit_multipart_upload(
                self._calls.namespace, self._calls.bucket, self._name, upload, details, **condition
            ),
            self._source.size,
        )
