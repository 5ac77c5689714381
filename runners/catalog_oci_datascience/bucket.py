"""A bucket of Object Storage, by which large artifacts go in and out."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import partial
from pathlib import Path
from typing import Any

from catalog_core.errors import IntegrityError, InvalidInput
from catalog_oci_datascience.archive import BLOCK, Packed
from catalog_oci_datascience.calls import Calls
from catalog_oci_datascience.options import Options

PART = 128 << 20  # bytes of one request
_URL = re.compile(r"oci://(?P<bucket>[^@/]+)@(?P<namespace>[^@/]+)(?:/(?P<prefix>.*))?\Z")


class Bucket:
    """The objects below a prefix of a bucket, `oci://bucket@namespace/prefix`. `InvalidInput` for another URL."""

    def __init__(self, url: str, options: Options) -> None:
        match = _URL.match(url)
        if match is None:
            raise InvalidInput(f"{url!r} names no bucket", hint="oci://bucket@namespace/prefix")
        self.name, self.namespace = match["bucket"], match["namespace"]
        self.prefix = (match["prefix"] or "").strip("/")
        self._calls = Calls(options, "object_storage.ObjectStorageClient", options.storage_endpoint)
        self.region = self._calls.region

    def key(self, *names: str) -> str:
        """The name of an object below the prefix."""
        return "/".join(filter(None, (self.prefix, *names)))

    def put(self, key: str, packed: Packed) -> str:
        """Upload a file, in parts where it is large; an upload that was cut off goes on, and an object that holds the
        same is left as it is. Returns its version. Raises `IntegrityError`, `NoSpace`, `BackendError`."""
        found = self._look(key, packed)
        if found is None:
            what = f"uploading {key} to bucket {self.name!r}"
            with packed.path.open("rb") as file:
                if packed.size <= PART:
                    data = file.read()
                    self._calls(
                        what,
                        lambda c: c.put_object(
                            self.namespace, self.name, key, data,
                            content_md5=packed.md5, opc_meta={"sha256": packed.sha256},
                        ),
                        size=packed.size,
                    )  # fmt: skip
                else:
                    self._put_parts(what, key, packed, file)
            found = self._look(key, packed)
        if found is None:
            raise IntegrityError(f"{key} in bucket {self.name!r} is not what was uploaded")
        return found

    def _look(self, key: str, packed: Packed) -> str | None:
        """The version of the object, if it is the one that was uploaded from such a file."""
        from oci.exceptions import ServiceError

        try:
            found = self._calls(
                f"looking for {key}", lambda c: c.head_object(self.namespace, self.name, key), answers=(404,)
            ).headers
        except ServiceError:
            return None
        same = int(found["content-length"]) == packed.size and found.get("opc-meta-sha256") == packed.sha256
        return str(found.get("version-id", "")) if same else None

    def _put_parts(self, what: str, key: str, packed: Packed, file: Any) -> None:
        at = (self.namespace, self.name)
        upload = next(
            (
                each.upload_id
                for each in self._calls.pages(what, lambda c, **kw: c.list_multipart_uploads(*at, **kw))
                if each.object == key
            ),
            None,
        )
        etags: dict[int, tuple[str, str]] = {}
        if upload is None:
            asked = {"object": key, "metadata": {"opc-meta-sha256": packed.sha256}}
            upload = self._calls(what, lambda c: c.create_multipart_upload(*at, asked)).data.upload_id
        else:
            parts = self._calls.pages(what, lambda c, **kw: c.list_multipart_upload_parts(*at, key, upload, **kw))
            etags = {part.part_number: (part.etag, part.md5) for part in parts}
        count = -(-packed.size // PART)
        for number in range(1, count + 1):
            file.seek((number - 1) * PART)
            data = file.read(PART)
            md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
            if number in etags and etags[number][1] == md5:
                continue
            etags[number] = (self._put_part(what, key, upload, number, data, md5), md5)
        commit = {"partsToCommit": [{"partNum": n, "etag": etags[n][0]} for n in range(1, count + 1)]}
        commit["partsToExclude"] = [n for n in etags if n > count]  # type: ignore[misc]
        self._calls(
            what,
            lambda c: c.commit_multipart_upload(*at, key, upload, commit),
            settled=lambda: self._look(key, packed) is not None,
        )

    def _put_part(self, what: str, key: str, upload: str, number: int, data: bytes, md5: str) -> str:
        answer = self._calls(
            f"{what}, part {number}",
            lambda c: c.upload_part(self.namespace, self.name, key, upload, number, data, content_md5=md5),
            size=len(data),
        )
        return str(answer.headers["etag"])

    def get(self, key: str, target: Path, version: str | None = None) -> Packed:
        """Download an object to a new file, in parts, each tried again where it breaks off."""
        from catalog_oci_datascience.archive import measure

        more = {"version_id": version} if version else {}
        what = f"downloading {key} from bucket {self.name!r}"
        size = int(
            self._calls(what, lambda c: c.head_object(self.namespace, self.name, key, **more)).headers["content-length"]
        )
        with target.open("xb") as file:
            for low in range(0, size, PART):
                high = min(low + PART, size)
                ask = partial(self._part, key=key, file=file, low=low, high=high, more=more)
                self._calls(what, ask, size=high - low)
        return measure(target)

    def _part(self, client: Any, key: str, file: Any, low: int, high: int, more: dict[str, str]) -> None:
        found = client.get_object(self.namespace, self.name, key, range=f"bytes={low}-{high - 1}", **more)
        file.seek(low)
        for piece in found.data.raw.stream(BLOCK, decode_content=False):
            file.write(piece)
        if file.tell() != high:
            raise ConnectionError("the answer broke off")

    def delete(self, key: str) -> None:
        """Remove an object; one that is gone is no error."""
        from oci.exceptions import ServiceError

        try:
            self._calls(
                f"removing {key} from bucket {self.name!r}",
                lambda c: c.delete_object(self.namespace, self.name, key),
                answers=(404,),
            )
        except ServiceError:
            return
