"""A server with the native API of OCI Object Storage, for tests and benchmarks with the real `oci` client.

It follows what is known of the live service (conditions, ETags, ranges, multipart, paging, errors, RSA signatures),
keeps the bytes of objects in files and what it knows of them in a log, so that it can be killed and started again, and
fails where it is told to. What no public source settles is marked `not settled`.

Run by hand: python oci_server.py RUN_DIRECTORY PORT [tls]  (127.0.0.1 only; the directory is made by `OCIServer`)
"""

from __future__ import annotations

import base64
import bisect
import email.utils
import functools
import hashlib
import hmac
import ipaddress
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

NAMESPACE = "openlab"
TENANCY = "ocid1.tenancy.oc1..test"
SKEW = 300  # seconds between the Date of a request and the server's clock
BLOCK = 1 << 20
HIDDEN = "or you are not authorized to access it"


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "", **headers: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.headers = status, code, message, headers


def stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def b64(digest: Any) -> str:
    return base64.b64encode(digest.digest()).decode()


# ---------------------------------------------------------------------------------------------------------- the state


class Bucket:
    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.objects: dict[str, dict[str, Any]] = {}
        self.names: list[str] = []
        self.used = 0

    def set(self, name: str, found: dict[str, Any] | None) -> None:
        """Give `name` another object, or none."""
        old = self.objects.pop(name, None)
        if old is None and found is not None:
            bisect.insort(self.names, name)
        elif old is not None and found is None:
            del self.names[bisect.bisect_left(self.names, name)]
        self.used += (found["size"] if found else 0) - (old["size"] if old else 0)
        if found is not None:
            self.objects[name] = found


class State:
    """What the server knows. Every change is a line of the log, applied in memory and written before the answer."""

    def __init__(self, run: Path) -> None:
        self.files = run / "objects"
        self.files.mkdir(exist_ok=True)
        self.lock = threading.RLock()
        self.buckets: dict[str, Bucket] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.users: dict[str, dict[str, Any]] = {}
        for user in json.loads((run / "users.json").read_text()):
            self.let_in(user)
        self.faults: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {"latency": 0.0, "skew": 0.0, "denied": "hidden"}
        self.requests: dict[str, int] = {}
        self.random = random.Random(1)
        path = run / "log"
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    self._apply(json.loads(line))
                except ValueError:
                    break  # killed in the middle of the last line
        self.log = path.open("ab", buffering=0)

    def let_in(self, user: dict[str, Any]) -> None:
        self.users[user["key_id"]] = {**user, "public": serialization.load_pem_public_key(user["pem"].encode())}

    def change(self, **record: Any) -> None:
        self._apply(record)
        self.log.write(json.dumps(record).encode() + b"\n")

    def _apply(self, record: dict[str, Any]) -> None:
        kind = record["do"]
        if kind == "bucket":
            self.buckets[record["facts"]["name"]] = Bucket(record["facts"])
        elif kind == "drop bucket":
            del self.buckets[record["bucket"]]
        elif kind == "object":
            self.buckets[record["bucket"]].set(record["name"], record["object"])
        elif kind == "upload":
            self.uploads[record["upload"]["uploadId"]] = record["upload"]
        elif kind == "part":
            self.uploads[record["id"]]["parts"][str(record["number"])] = record["part"]
        elif kind == "end upload":
            del self.uploads[record["id"]]


def check_signature(h: BaseHTTPRequestHandler, users: dict[str, Any], skew: float, host: bool = True) -> dict[str, Any]:
    """The user who signed the request; draft-cavage-http-signatures-08 as the service uses it."""
    no = functools.partial(Refused, 401, "NotAuthenticated")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', h.headers.get("authorization", "")))
    user = users.get(fields.get("keyId", ""))
    if user is None or fields.get("algorithm") != "rsa-sha256":
        raise no("The required information to complete authentication was not provided or was incorrect.")
    signed = fields.get("headers", "date").split()
    needed = {"date", "(request-target)"} | ({"host"} if host else set())
    bare = {"PUT": r"/n/[^/]+/b/[^/]+/[ou]/", "POST": r"/20190101/models/[^/]+/artifact$"}  # large bodies
    if h.command in bare and not re.match(bare[h.command], h.path):
        needed |= {"content-length", "content-type", "x-content-sha256"}
    if not needed <= set(signed):
        raise no("required headers are not signed")
    lines = []
    for name in signed:
        value = f"{h.command.lower()} {h.path}" if name == "(request-target)" else h.headers.get(name)
        if value is None:
            raise no(f"signed header {name} is absent")
        lines.append(f"{name}: {value}")
    try:
        signature = base64.b64decode(fields["signature"])
        user["public"].verify(signature, "\n".join(lines).encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise no("The required information to complete authentication was not provided or was incorrect.") from None
    date = email.utils.parsedate_to_datetime(h.headers["date"]).timestamp()
    if abs(time.time() + skew - date) > SKEW:
        raise no(f"Date '{h.headers['date']}' is not within allowed clock skew")
    if user.get("expires", float("inf")) < time.time() + skew:
        raise no("The required information to complete authentication was not provided or was incorrect.")
    return user


def check_conditions(current: dict[str, Any] | None, if_match: str | None, if_none: str | None) -> None:
    """The conditions of a write."""
    if if_match is not None and (current is None or if_match not in ("*", current["etag"])):
        raise Refused(412, "IfMatchFailed", "The If-Match header does not match the current entity tag")
    if if_none is not None:
        if if_none != "*":
            raise Refused(400, "IfNoneMatchDisallowed", "The only valid value of If-None-Match is '*'")
        if current is not None:
            raise Refused(412, "IfNoneMatchFailed", "The If-None-Match header is '*' but there is an existing entity")


# -------------------------------------------------------------------------------------------------------- the answers


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_all(self) -> None:
        st = self.server.state
        self.body = b""
        self.received: dict[str, Any] | None = None
        self.fault: str | None = None
        url = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        raw = url.path.lstrip("/").split("/", 5)
        self.parts = [urllib.parse.unquote(part) for part in raw]
        try:
            if not self.receive():
                return
            if url.path == "/control":
                self.answer(200, {}, self.control(json.loads(self.body or b"{}")))
                return
            if st.settings["latency"]:
                time.sleep(st.settings["latency"])
            with st.lock:
                kind = f"{self.command} {self.parts[4] if len(self.parts) > 4 else 'b'}"
                st.requests[kind] = st.requests.get(kind, 0) + 1
                self.fault, rate = self.next_fault()
            if self.fault == "drop":
                self.hang_up()
                return
            if self.fault == "404":
                raise Refused(404, "BucketNotFound", f"Either the bucket does not exist {HIDDEN}")
            if self.fault and self.fault.isdigit():
                codes = {"429": "TooManyRequests", "503": "ServiceUnavailable", "409": "IncorrectState"}
                raise Refused(int(self.fault), codes.get(self.fault, "InternalServerError"), "failed on request")
            if self.fault == "hang":
                time.sleep(rate)
                self.hang_up()
                return
            self.rate = rate
            self.user = check_signature(self, st.users, st.settings["skew"])
            if self.command == "GET" and len(self.parts) > 5 and self.parts[4] == "o":
                self.send_object()
                return
            with st.lock:
                status, headers, body = self.route()
            self.answer(status, headers, body)
        except Refused as exc:
            headers = {key.replace("_", "-"): value for key, value in exc.headers.items()}
            self.answer(exc.status, headers, {"code": exc.code, "message": exc.message})
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True
        finally:
            if self.received is not None:  # nobody took the file
                self.received["path"].unlink(missing_ok=True)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_all

    def handle_expect_100(self) -> bool:
        """Refuse before the body comes, where the condition of a put does not hold: who waits for this, over TLS, need
        not send it. (Without TLS the SDK does not wait.)"""
        parts = [urllib.parse.unquote(part) for part in urllib.parse.urlsplit(self.path).path.lstrip("/").split("/", 5)]
        if self.server.tls and self.headers.get("if-none-match") == "*" and parts[4:5] == ["o"]:
            with self.server.state.lock:
                bucket = self.server.state.buckets.get(parts[3])
                taken = bucket is not None and parts[5] in bucket.objects
            if taken:
                self.fault, self.close_connection = None, True
                self.answer(412, {"connection": "close"}, {"code": "IfNoneMatchFailed", "message": "it exists"})
                return False
        return super().handle_expect_100()

    def next_fault(self) -> tuple[str | None, float]:
        st = self.server.state
        for fault in st.faults:
            if fault.get("method", self.command) != self.command or not re.search(fault.get("path", ""), self.path):
                continue
            if fault.get("skip", 0) > 0:
                fault["skip"] -= 1
                continue
            if st.random.random() >= fault.get("chance", 1.0):
                continue
            fault["times"] -= 1
            if not fault["times"]:
                st.faults.remove(fault)
            return str(fault["fault"]), float(fault.get("rate", 0.0))
        return None, 0.0

    def hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def receive(self) -> bool:
        """Take the body: that of an object or part into a file, hashed on the way. False if it did not come whole."""
        left = int(self.headers.get("content-length") or 0)
        if not (self.command == "PUT" and len(self.parts) > 5 and self.parts[4] in "ou"):
            self.body = self.rfile.read(left)
            return len(self.body) == left
        path = self.server.state.files / uuid.uuid4().hex
        md5, sha256 = hashlib.md5(), hashlib.sha256()
        want = self.headers.get("opc-content-sha256") or self.headers.get("opc-checksum-algorithm")
        view = memoryview(bytearray(min(left, BLOCK)))
        size = left
        with path.open("xb", buffering=0) as file:
            while left:
                count = self.rfile.readinto(view[: min(left, BLOCK)])
                if not count:
                    path.unlink()
                    self.close_connection = True
                    return False
                md5.update(view[:count])
                if want:
                    sha256.update(view[:count])
                file.write(view[:count])
                left -= count
        self.received = {"path": path, "size": size, "md5": b64(md5), "sha256": b64(sha256) if want else None}
        return True

    def take_body(self) -> dict[str, Any]:
        """The received file, once its checksums are those that the client promised."""
        h, found = self.headers, self.received
        assert found is not None
        if h.get("content-length") is None:
            raise Refused(411, "ContentLengthRequired", "The Content-Length header is required")
        for header, code in (("content-md5", "md5"), ("opc-content-sha256", "sha256")):
            if h.get(header) and h[header] != found[code]:
                raise Refused(
                    400,
                    f"UnmatchedContent{code.upper()}",
                    f"The computed {code.upper()} of the request body ({found[code]}) "
                    f"does not match the {header} header ({h[header]})",
                )
        self.received = None
        return {"file": found["path"].name, **{key: found[key] for key in ("size", "md5", "sha256")}}

    def answer(self, status: int, headers: dict[str, str] | None = None, body: Any = None) -> None:
        if self.fault == "after":
            self.hang_up()
            return
        raw = b"" if body is None else json.dumps(body).encode()
        self.start(status, headers or {}, len(raw), "application/json" if body is not None else None)
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(raw)
        self.wfile.flush()

    def start(self, status: int, headers: dict[str, str], length: int, ctype: str | None = None) -> None:
        self.send_response_only(status)
        rid = self.headers.get("opc-request-id") or uuid.uuid4().hex.upper()
        found = {"date": email.utils.formatdate(time.time() + self.server.state.settings["skew"], usegmt=True)}
        found["opc-request-id"] = f"{rid}/{uuid.uuid4().hex.upper()}"
        if self.headers.get("opc-client-request-id"):
            found["opc-client-request-id"] = self.headers["opc-client-request-id"]
        if status not in (204, 304):
            found["content-length"] = str(length)
        if ctype:
            found["content-type"] = ctype
        for key, value in {**found, **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    # ------------------------------------------------------------------------------------------------ what is asked

    def bucket(self, write: bool = False) -> Bucket:
        name = self.parts[3]
        found = self.server.state.buckets.get(name)
        if found is not None and write and self.user["rights"] == "read":
            if self.server.state.settings["denied"] == "hidden":  # the live service hides what you may not do
                found = None
            else:
                raise Refused(403, "NotAllowed", "You are not allowed to do this")
        if found is None:
            where = f"'{name}' does not exist in the namespace '{NAMESPACE}'"
            raise Refused(404, "BucketNotFound", f"Either the bucket named {where} {HIDDEN}")
        return found

    def route(self) -> tuple[int, dict[str, str], Any]:
        m, p, st = self.command, self.parts, self.server.state
        if p[0] != "n":
            raise Refused(404, "NotFound", "no such path")
        if len(p) == 1 or not p[1]:
            return 200, {}, NAMESPACE
        if p[1] != NAMESPACE:
            text = "You do not have authorization, or the requested resource could not be found."
            raise Refused(404, "NamespaceNotFound", text)
        if len(p) == 3:
            names = sorted(st.buckets)
            start, limit = int(self.query.get("page", 0)), int(self.query.get("limit", 25))
            more = {"opc-next-page": str(start + limit)} if start + limit < len(names) else {}
            return 200, more, [st.buckets[name].facts for name in names[start : start + limit]]
        if len(p) == 4:
            bucket = self.bucket()
            return 200, {"etag": bucket.facts["etag"]}, bucket.facts if m == "GET" else None
        kind, name = p[4], p[5] if len(p) > 5 and p[5] else None
        if kind == "o" and name is None:
            return self.list_objects(self.bucket())
        if kind == "o":
            assert name is not None
            return self.put_or_delete(name)
        if kind == "u":
            return self.upload(name)
        if kind == "retentionRules":
            return 200, {}, {"items": self.bucket().facts.get("retention", [])}
        if kind == "actions":
            return self.action(str(name), json.loads(self.body))
        raise Refused(404, "NotFound", "no such path")

    def list_objects(self, bucket: Bucket) -> tuple[int, dict[str, str], Any]:
        q = self.query
        prefix, delimiter = q.get("prefix", ""), q.get("delimiter")
        limit = min(int(q.get("limit", 1000)), self.server.state.settings.get("page", 1000))
        fields = {field.strip() for field in q.get("fields", "name").split(",")} | {"name"}
        names, found, prefixes = bucket.names, [], []
        at = bisect.bisect_left(names, max(prefix, q.get("start", "")))
        if "startAfter" in q:
            at = max(at, bisect.bisect_right(names, q["startAfter"]))
        answer: dict[str, Any] = {"objects": found}
        for name in itertools.islice(names, at, None):
            if not name.startswith(prefix) or ("end" in q and name >= q["end"]):
                break
            folder = None
            if delimiter and delimiter in name[len(prefix) :]:
                folder = name[: name.index(delimiter, len(prefix)) + 1]
                if folder in prefixes:
                    continue
            if len(found) + len(prefixes) >= limit:
                answer["nextStartWith"] = name
                break
            if folder:
                prefixes.append(folder)
                continue
            o = bucket.objects[name]
            facts = {"name": name, "size": o["size"], "etag": o["etag"], "md5": o["multi"] or o["md5"]}
            facts |= {"timeCreated": o["created"], "timeModified": o["modified"], "storageTier": "Standard"}
            found.append({key: value for key, value in facts.items() if key in fields})
        if delimiter:
            answer["prefixes"] = prefixes
        return 200, {}, answer

    def object_headers(self, o: dict[str, Any]) -> dict[str, str]:
        when = datetime.fromisoformat(o["modified"])
        headers = {"etag": o["etag"], "last-modified": email.utils.format_datetime(when, usegmt=True)}
        headers |= {"content-type": o["type"], "accept-ranges": "bytes", "storage-tier": "Standard"}
        headers |= {"version-id": o["version"]}
        if o["multi"]:
            headers["opc-multipart-md5"] = o["multi"]
        else:
            headers["opc-content-md5"] = o["md5"]
            if o["sha256"]:
                headers["opc-content-sha256"] = o["sha256"]
        return headers | {f"opc-meta-{key}": value for key, value in o["meta"].items()}

    def store(self, bucket: Bucket, name: str, found: dict[str, Any], meta: dict[str, str], ctype: str | None) -> Any:
        """Make `found` (file, size, checksums) the object `name`."""
        if not name or len(name.encode()) > 1024 or re.search("[\r\n\0]", name):
            raise Refused(400, "InvalidObjectName", name)
        old = bucket.objects.get(name)
        quota = bucket.facts.get("quota")
        if quota is not None and bucket.used - (old["size"] if old else 0) + found["size"] > quota:
            (self.server.state.files / found["file"]).unlink(missing_ok=True)
            raise Refused(400, "QuotaExceeded", "You have exceeded the storage quota of the compartment")
        when = stamp()
        facts = {"etag": str(uuid.uuid4()), "version": str(uuid.uuid4()), "created": when, "modified": when}
        o = {"multi": None, **found, **facts, "meta": meta, "type": ctype or "application/octet-stream"}
        self.server.state.change(do="object", bucket=bucket.facts["name"], name=name, object=o)
        if old is not None and old["file"] != o["file"]:
            (self.server.state.files / old["file"]).unlink(missing_ok=True)  # who reads it has it open
        return o

    def put_or_delete(self, name: str) -> tuple[int, dict[str, str], Any]:
        h, write = self.headers, self.command in ("PUT", "DELETE")
        bucket = self.bucket(write)
        current = bucket.objects.get(name)
        if self.command == "PUT":
            check_conditions(current, h.get("if-match"), h.get("if-none-match"))  # not settled: before the checksums?
            meta = {key.lower()[9:]: value for key, value in h.items() if key.lower().startswith("opc-meta-")}
            o = self.store(bucket, name, self.take_body(), meta, h.get("content-type"))
            headers = self.object_headers(o)
            keep = ("etag", "opc-content-md5", "opc-content-sha256", "last-modified", "version-id")
            return 200, {key: headers[key] for key in keep if key in headers}, None
        if current is None:
            raise Refused(404, "ObjectNotFound", f"The object '{name}' was not found in the bucket")
        if self.command == "HEAD":
            return 200, {**self.object_headers(current), "content-length": str(current["size"])}, None
        check_conditions(current, h.get("if-match"), None)
        self.remove(bucket, name)
        return 204, {"last-modified": stamp()}, None

    def remove(self, bucket: Bucket, name: str) -> None:
        if bucket.facts.get("retention"):  # not settled: status and code
            raise Refused(403, "RetentionRuleViolation", f"The object '{name}' is protected by a retention rule")
        old = bucket.objects[name]
        self.server.state.change(do="object", bucket=bucket.facts["name"], name=name, object=None)
        (self.server.state.files / old["file"]).unlink(missing_ok=True)

    def send_object(self) -> None:
        st, name = self.server.state, self.parts[5]
        with st.lock:
            self.parts[1] == NAMESPACE or self.route()
            o = self.bucket().objects.get(name)
            if o is None:
                raise Refused(404, "ObjectNotFound", f"The object '{name}' was not found in the bucket")
            file = (st.files / o["file"]).open("rb", buffering=0)
        with file:
            if_match, if_none = self.headers.get("if-match"), self.headers.get("if-none-match")
            if if_match not in (None, "*", o["etag"]):
                raise Refused(412, "IfMatchFailed", "The If-Match header does not match the current entity tag")
            if if_none == o["etag"]:
                raise Refused(304, "NotModified", etag=o["etag"])
            status, headers, low, high = 200, self.object_headers(o), 0, o["size"]
            match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
            if match:
                first, last = match.groups()
                if first:
                    low, high = int(first), min(int(last) + 1 if last else high, high)
                else:
                    low = max(high - int(last), 0)
                if low >= high:
                    raise Refused(416, "InvalidRange", "out of range", content_range=f"bytes */{o['size']}")
                status, headers["content-range"] = 206, f"bytes {low}-{high - 1}/{o['size']}"
            if self.fault == "after":
                self.hang_up()
                return
            self.start(status, headers, high - low)
            self.wfile.flush()
            if self.fault == "short":
                high = low + (high - low) // 2
            if self.fault == "slow":
                step = max(int(self.rate / 20), 1)
                for at in range(low, high, step):
                    file.seek(at)
                    self.connection.sendall(file.read(min(step, high - at)))
                    time.sleep(0.05)
            elif high > low:
                self.connection.sendfile(file, low, high - low)
            if self.fault == "short":
                self.hang_up()

    def upload(self, name: str | None) -> tuple[int, dict[str, str], Any]:
        st, h, m, q = self.server.state, self.headers, self.command, self.query
        bucket = self.bucket(m != "GET")
        shown = ("namespace", "bucket", "object", "uploadId", "timeCreated", "storageTier")
        if name is None and m == "GET":
            found = [u for u in st.uploads.values() if u["bucket"] == self.parts[3]]
            at, limit = int(q.get("page", 0)), min(int(q.get("limit", 1000)), st.settings.get("page", 1000))
            more = {"opc-next-page": str(at + limit)} if at + limit < len(found) else {}
            return 200, more, [{key: u[key] for key in shown} for u in found[at : at + limit]]
        if name is None:
            asked = json.loads(self.body)
            check_conditions(bucket.objects.get(asked["object"]), h.get("if-match"), h.get("if-none-match"))
            made = {"namespace": NAMESPACE, "bucket": self.parts[3], "object": asked["object"]}
            made |= {"uploadId": str(uuid.uuid4()), "timeCreated": stamp(), "storageTier": "Standard"}
            meta = {re.sub("^opc-meta-", "", key.lower()): v for key, v in (asked.get("metadata") or {}).items()}
            st.change(do="upload", upload={**made, "meta": meta, "type": asked.get("contentType"), "parts": {}})
            return 200, {"location": f"/n/{NAMESPACE}/b/{self.parts[3]}/u/{asked['object']}"}, made
        u = st.uploads.get(q.get("uploadId", ""))
        if u is None or (u["object"], u["bucket"]) != (name, self.parts[3]):
            raise Refused(404, "UploadNotFound", "The upload was not found")
        if m == "PUT":
            number = int(q["uploadPartNum"])
            if not 1 <= number <= 10_000:
                raise Refused(400, "InvalidUploadPartNumber", str(number))
            part = {**self.take_body(), "etag": str(uuid.uuid4())}
            old = u["parts"].get(str(number))
            st.change(do="part", id=u["uploadId"], number=number, part=part)
            if old is not None:
                (st.files / old["file"]).unlink(missing_ok=True)
            return 200, {"etag": part["etag"], "opc-content-md5": part["md5"]}, None
        parts = {int(number): part for number, part in u["parts"].items()}
        if m == "GET":
            numbers = sorted(parts)
            at, limit = int(q.get("page", 0)), min(int(q.get("limit", 1000)), st.settings.get("page", 1000))
            more = {"opc-next-page": str(at + limit)} if at + limit < len(numbers) else {}
            listed = [{"partNumber": n, **{k: parts[n][k] for k in ("etag", "md5", "size")}} for n in numbers]
            return 200, more, listed[at : at + limit]
        if m == "DELETE":
            self.end_upload(u, parts)
            return 204, {}, None
        asked = json.loads(self.body)
        wanted = [(x["partNum"], x["etag"]) for x in asked.get("partsToCommit") or []]
        if not wanted or [n for n, _ in wanted] != sorted({n for n, _ in wanted}):
            raise Refused(400, "InvalidUploadPartOrder", "the parts are not in order")
        for number, etag in wanted:
            if number not in parts or parts[number]["etag"] != etag:
                raise Refused(400, "InvalidUploadPart", f"part {number}")
        if set(parts) - {n for n, _ in wanted} - set(asked.get("partsToExclude") or []):
            raise Refused(400, "InvalidUploadPart", "there are parts that are neither committed nor excluded")
        check_conditions(bucket.objects.get(name), h.get("if-match"), h.get("if-none-match"))
        chosen = [parts[n] for n, _ in wanted]
        whole = st.files / uuid.uuid4().hex
        with whole.open("xb") as file:
            for part in chosen:
                with (st.files / part["file"]).open("rb") as source:
                    copy_file(source.fileno(), file.fileno(), part["size"])
        md5s = hashlib.md5(b"".join(base64.b64decode(part["md5"]) for part in chosen))
        size, multi = sum(part["size"] for part in chosen), f"{b64(md5s)}-{len(chosen)}"
        facts = {"file": whole.name, "size": size, "md5": None, "sha256": None, "multi": multi}
        o = self.store(bucket, name, facts, u["meta"], u["type"])
        self.end_upload(u, parts)
        headers = self.object_headers(o)
        return 200, {key: headers[key] for key in ("etag", "opc-multipart-md5", "last-modified")}, None

    def end_upload(self, u: dict[str, Any], parts: dict[int, Any]) -> None:
        self.server.state.change(do="end upload", id=u["uploadId"])
        for part in parts.values():
            (self.server.state.files / part["file"]).unlink(missing_ok=True)

    def action(self, what: str, asked: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        st, bucket = self.server.state, self.bucket(write=True)
        if what == "renameObject":
            old, new = asked["sourceName"], asked["newName"]
            source = bucket.objects.get(old)
            if source is None:
                raise Refused(404, "ObjectNotFound", old)
            if old == new:
                raise Refused(400, "SourceNameSameAsNewName", old)
            check_conditions(source, asked.get("srcObjIfMatchETag"), None)
            target = bucket.objects.get(new)
            check_conditions(target, asked.get("newObjIfMatchETag"), asked.get("newObjIfNoneMatchETag"))
            moved = {**source, "etag": str(uuid.uuid4()), "modified": stamp()}
            st.change(do="object", bucket=self.parts[3], name=old, object=None)
            st.change(do="object", bucket=self.parts[3], name=new, object=moved)
            return 200, {"etag": moved["etag"]}, None
        if what == "batchDeleteObjects":
            deleted, failed = [], []
            if len(asked["objects"]) > 1000:
                raise Refused(400, "InvalidParameter", "at most 1000 objects")
            for item in asked["objects"]:
                name = item["objectName"]
                try:
                    if name not in bucket.objects:
                        raise Refused(404, "ObjectNotFound", f"The object '{name}' was not found in the bucket")
                    self.remove(bucket, name)
                    deleted.append({"objectName": name})
                except Refused as exc:
                    why = {"errorCode": exc.code, "errorMessage": exc.message, "statusCode": exc.status}
                    failed.append({"objectName": name, **why})
            return 200, {}, {"deleted": [] if asked.get("isSkipDeletedResult") else deleted, "failed": failed}
        raise Refused(404, "NotFound", what)

    def control(self, asked: dict[str, Any]) -> Any:
        """The tests' own door: no signature, no faults."""
        st = self.server.state
        with st.lock:
            if "bucket" in asked:
                facts = {"namespace": NAMESPACE, "compartmentId": "ocid1.compartment.oc1..test", "metadata": {}}
                facts |= {"timeCreated": stamp(), "etag": str(uuid.uuid4()), "storageTier": "Standard"}
                facts |= {"publicAccessType": "NoPublicAccess", "versioning": "Disabled", "createdBy": "test"}
                st.change(do="bucket", facts=facts | asked["bucket"])
            if "user" in asked:
                st.let_in(asked["user"])
            st.settings |= asked.get("settings", {})
            if "faults" in asked:
                st.faults = [{"times": 1, **fault} for fault in asked["faults"]]
            seen = dict(st.requests)
            if asked.get("reset"):
                st.requests.clear()
            uploads = [u["object"] for u in st.uploads.values()]
            parts = [len(u["parts"]) for u in st.uploads.values()]
            return {"requests": seen, "faults": st.faults, "uploads": uploads, "parts": parts}


def copy_file(source: int, target: int, size: int) -> None:
    while size:
        size -= os.copy_file_range(source, target, size)


class Server(ThreadingHTTPServer):
    handler: type[Handler] = Handler
    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, run: Path, port: int, tls: bool = False) -> None:
        self.state = State(run)
        self.tls = tls
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if tls:
            self.context.load_cert_chain(run / "server.pem")
        super().__init__(("127.0.0.1", port), self.handler)

    def get_request(self) -> tuple[Any, Any]:
        sock, address = super().get_request()
        if self.tls:  # the handshake comes with the first read, in the thread of the connection
            sock = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


# ------------------------------------------------------------------------------------------------------ for the tests


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def token(expires: float) -> str:
    """A session token as the service hands them out: a JWT; only its holder's key and `exp` matter here."""
    body = {"sub": "ocid1.user.oc1..session", "jti": uuid.uuid4().hex, "exp": int(expires)}
    parts = [{"alg": "HS256", "typ": "JWT"}, body]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    mac = hmac.digest(b"the server's", text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def private_pem(key: rsa.RSAPrivateKey) -> bytes:
    form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, plain)


def write_users(run: Path) -> None:
    """Keys, the server's list of users, and a configuration file of the SDK with a profile for each.

    DEFAULT may do all, READER may read, TOKEN has a session token, EXPIRED an expired one, STRANGER a key that the
    server does not know, MISSING names a key file that does not exist.
    """
    users, text = [], ""
    for profile in ("DEFAULT", "READER", "TOKEN", "EXPIRED", "STRANGER", "MISSING"):
        path = run / f"{profile.lower()}.pem"
        key = rsa.generate_private_key(65537, 2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        fingerprint = hashlib.md5(der).hexdigest()
        fingerprint = ":".join(fingerprint[at : at + 2] for at in range(0, 32, 2))
        if profile != "MISSING":
            path.touch(mode=0o600)
            path.write_bytes(private_pem(key))
        user = f"ocid1.user.oc1..{profile.lower()}"
        text += f"[{profile}]\nuser={user}\ntenancy={TENANCY}\nfingerprint={fingerprint}\n"
        text += f"key_file={path}\nregion=eu-frankfurt-1\n"
        known: dict[str, Any] = {"pem": public.decode(), "rights": "read" if profile == "READER" else "all"}
        known["key_id"] = f"{TENANCY}/{user}/{fingerprint}"
        if profile in ("TOKEN", "EXPIRED"):
            known["expires"] = time.time() + (3600 if profile == "TOKEN" else -60)
            jwt = token(known["expires"])
            known["key_id"] = f"ST${jwt}"
            (run / f"{profile.lower()}.token").write_text(jwt)
            text += f"security_token_file={run / f'{profile.lower()}.token'}\n"
        if profile not in ("STRANGER", "MISSING"):
            users.append(known)
        text += "\n"
    (run / "config").write_text(text)
    (run / "config").chmod(0o600)
    (run / "users.json").write_text(json.dumps(users))


def write_certificate(run: Path) -> None:
    """A certificate for 127.0.0.1 and the names of a region that vouches for itself, with its key: `server.pem`, and
    `ca.pem` without."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    names += [x509.DNSName(f"*{under}.eu-frankfurt-1.oraclecloud.com") for under in ("", ".objectstorage")]
    names += [x509.DNSName("*.eu-frankfurt-1.oci.oraclecloud.com")]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    (run / "ca.pem").write_bytes(made)
    (run / "server.pem").touch(mode=0o600)
    (run / "server.pem").write_bytes(made + private_pem(key))


class OCIServer:
    """The server in a process of its own (`process=True`), which can be killed and started again on the same port with
    the same data, or in a thread of this one. With `tls` the client needs `REQUESTS_CA_BUNDLE=` its `ca`."""

    kind: type[Server] = Server

    def __init__(self, process: bool = False, run: Path | None = None, tls: bool = False) -> None:
        self.own = run is None
        self.run = Path(tempfile.mkdtemp(prefix="oci-")) if run is None else run
        self.process = process
        self.tls = tls
        self.port = free_port()
        self.pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._server: Server | None = None
        if not (self.run / "config").exists():
            write_users(self.run)
            write_certificate(self.run)

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate that a client has to trust."""
        return self.run / "ca.pem"

    @property
    def config(self) -> Path:
        """The configuration file of the SDK."""
        return self.run / "config"

    def start(self) -> OCIServer:
        if not self.process:
            self._server = self.kind(self.run, self.port, self.tls)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
            return self
        command = [sys.executable, __file__, str(self.run), str(self.port), *(["tls"] if self.tls else [])]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.pid = self._child.pid
        assert self._child.stdout is not None
        if self._child.stdout.readline().strip() != b"ready":
            raise RuntimeError("the OCI server did not start")
        return self

    def kill(self) -> None:
        """SIGKILL, or in a thread an end without goodbye."""
        if self._child is not None:
            os.kill(self._child.pid, signal.SIGKILL)
            self._child.wait()
            assert self._child.stdout is not None
            self._child.stdout.close()
            self._child = None
        elif self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.state.log.close()
            self._server = None

    def stop(self) -> None:
        self.kill()
        if self.own:
            shutil.rmtree(self.run, ignore_errors=True)

    def __enter__(self) -> OCIServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def control(self, **asked: Any) -> dict[str, Any]:
        """Faults, settings, a bucket; the answer tells what was asked of the server so far."""
        request = urllib.request.Request(f"{self.endpoint}/control", json.dumps(asked).encode(), method="POST")
        trust = ssl.create_default_context(cafile=self.ca)
        handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def fault(self, *faults: str | int | dict[str, Any]) -> None:
        """The next requests fail: a status, `drop`, `after`, `404`, `short`, `slow`, `hang`; or a dict with
        `fault`, `times`, `method`, `path` (a pattern), `skip`, `chance`, `rate`. No argument: no more faults."""
        self.control(faults=[fault if isinstance(fault, dict) else {"fault": fault} for fault in faults])

    def bucket(self, **facts: Any) -> str:
        """A new bucket: `name=…`, `versioning="Enabled"`, `retention=[…]`, `quota=bytes`."""
        facts.setdefault("name", f"b-{uuid.uuid4().hex[:12]}")
        self.control(bucket=facts)
        return str(facts["name"])

    def options(self, profile: str = "DEFAULT", **more: Any) -> dict[str, Any]:
        return {
            "oci_profile": profile,
            "oci_config_file": str(self.config),
            "service_endpoint": self.endpoint,
            **more,
        }

    def fresh(self, profile: str = "DEFAULT", prefix: str = "team/models", **facts: Any) -> tuple[str, dict[str, Any]]:
        """URL and options of an empty place for a catalog in a bucket of its own."""
        return f"oci://{self.bucket(**facts)}@{NAMESPACE}/{prefix}", self.options(profile)


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["tls"])
    print("ready", flush=True)
    server.serve_forever()
