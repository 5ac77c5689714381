"""Calls to Object Storage: clients, tries until a deadline, and what the service's errors mean."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from catalog_core import forks
from catalog_core.errors import BackendError, CatalogError, DeadlineExceeded, NoSpace, ReadOnly
from catalog_oci.options import Options
from catalog_oracle.client import SLOWEST, answer, is_broken, is_busy, is_renewable, new_client, pages
from catalog_oracle.login import log_in
from catalog_oracle.options import PRINCIPALS

CONNECT, ANSWER = 5.0, 10.0  # seconds of one try: to connect, and for the next bytes of an answer
HIDDEN_TRIES = 5  # the live service answers 404 BucketNotFound to valid calls at times
SKEW = 240  # seconds; it refuses more than 300


class Calls:
    """Calls of one bucket. May be used by several threads."""

    def __init__(self, namespace: str, bucket: str, options: Options) -> None:
        self.namespace = namespace
        self.bucket = bucket
        self.options = options
        self._lock = forks.Lock()
        self._login: Any = None
        self._idle: list[Any] = []
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks.Forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks.Forks`: a child must not talk on its parent's connections."""
        if child:
            self._idle = []

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A client that no other thread uses meanwhile: the SDK closes a client's connections after some answers
        (412, 413), under whoever else is using them."""
        with self._lock:
            client = self._idle.pop() if self._idle else None
        if client is None:
            client = self._new()
        yield client
        with self._lock:  # one that failed is dropped
            self._idle.append(client)

    def _new(self) -> Any:
        with self._lock:
            if self._login is None:
                self._login = log_in(self.options)
            login = self._login
        return new_client(
            "object_storage.ObjectStorageClient",
            login,
            self.options.service_endpoint,
            hint="set region, or service_endpoint, for this catalog",
        )

    def __call__(self, what: str, ask: Callable[[Any], Any], size: int = 0) -> Any:
        """Let `ask` talk to a client until it succeeds, for as long as trying again may help and the deadline allows.

        `what` says what is done, for messages; `size` counts the bytes that travel. Raises the SDK's `ServiceError` for
        404 ObjectNotFound and UploadNotFound, 412 and 416, which mean something to the caller; else errors of ours.
        """
        from oci.exceptions import ServiceError

        end = time.monotonic() + self.options.deadline + size / SLOWEST
        lost = 0.0  # seconds without success; those that a body took do not count
        pause, hidden, fresh_login = 0.05, 0, False
        while True:
            began = time.monotonic()
            try:
                with self.client() as client:
                    left = max(self.options.deadline - lost, 0.5)
                    # half of what is left at most: a server that hangs must leave time for another try
                    client.base_client.timeout = (min(CONNECT, left / 2), min(ANSWER, left / 2))
                    return ask(client)
            except ServiceError as exc:
                if _is_answer(exc):
                    raise
                if exc.status == 401 and not fresh_login and self._log_in_again():
                    fresh_login = True
                    continue
                hidden += exc.code == "BucketNotFound"
                if not (_passing(exc) or (exc.code == "BucketNotFound" and hidden < HIDDEN_TRIES)):
                    raise self.meaning(exc, what) from exc
                last: Exception = exc
            except CatalogError:
                raise
            except Exception as exc:
                if not is_broken(exc):
                    raise
                last = exc
            lost += min(time.monotonic() - began, ANSWER) + pause
            if lost > self.options.deadline or time.monotonic() > end:
                raise self._gave_up(last, what) from last
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, 4.0)

    def _log_in_again(self) -> bool:
        """A session token may have been renewed in its file since, that of a principal is renewed on request. Says
        whether it is worth another try."""
        with self._lock:
            if self._login is None or not is_renewable(self.options, self._login[0]):
                return False
            self._login, self._idle = None, []
            return True

    def _gave_up(self, exc: Exception, what: str) -> CatalogError:
        seconds = f"{self.options.deadline:g} s"
        if hasattr(exc, "status"):
            text = f"{what}: the service kept refusing for {seconds} ({answer(exc)})"
            return DeadlineExceeded(text, hint="try again later", backend="oci")
        return DeadlineExceeded(
            f"{what}: no answer from {self.endpoint()} in {seconds} ({reason(exc)})",
            hint="check the network, the region and service_endpoint",
            backend="oci",
        )

    def endpoint(self) -> str:
        """The host that is asked."""
        if self.options.service_endpoint:
            return self.options.service_endpoint
        region = (self._login[0] if self._login else {}).get("region", "…")
        return f"objectstorage.{region}.oraclecloud.com"

    def meaning(self, exc: Any, what: str) -> CatalogError:
        """One clear sentence for an error of the service."""
        where = f"bucket {self.bucket!r} of namespace {self.namespace!r}"
        code, status = exc.code or "", exc.status
        if status == 401:
            skew = clock_skew(exc.headers)
            if skew is not None and abs(skew) > SKEW:
                return BackendError(
                    f"{what}: this machine's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}, "
                    f"and OCI refuses more than 300 s ({answer(exc)})",
                    hint="set the clock (NTP)",
                    backend="oci",
                )
            if self.options.auth in PRINCIPALS:
                who = f"the {self.options.auth.replace('_', ' ')}"
                return BackendError(
                    f"{what}: OCI does not accept {who} ({answer(exc)})",
                    hint="check its dynamic group and policies, and the clock",
                    backend="oci",
                )
            return BackendError(
                f"{what}: OCI does not accept the signature of profile {self.options.oci_profile!r} ({answer(exc)})",
                hint="check user, tenancy, fingerprint and key in the profile; a session may have expired "
                "(`oci session authenticate`)",
                backend="oci",
            )
        if "Quota" in code or "LimitExceeded" in code or status == 507:
            return NoSpace(
                f"{what}: the quota is used up ({answer(exc)})",
                hint="`catalog gc`, or ask for more quota; nothing was published",
                backend="oci",
            )
        if "Retention" in code:
            return ReadOnly(
                f"{what}: a retention rule of {where} forbids it ({answer(exc)})",
                hint="what a rule protects can be deleted when its time is over",
                backend="oci",
            )
        if code == "NamespaceNotFound":
            return BackendError(
                f"{what}: there is no namespace {self.namespace!r} for this user ({answer(exc)})",
                hint="`oci os ns get` prints yours; the URL is oci://bucket@namespace/prefix",
                backend="oci",
            )
        if status in (403, 404):
            if what.startswith(("writing", "deleting", "ending")) and self._readable():
                return ReadOnly(
                    f"{what}: this user may read, but not write, {where} ({answer(exc)})",
                    hint="a policy must allow it to `manage objects` there",
                    backend="oci",
                )
            return BackendError(
                f"{what}: {where} does not exist, or this user may not see it ({answer(exc)})",
                hint="check the URL (oci://bucket@namespace/prefix), the region and the policies",
                backend="oci",
            )
        if status == 413:
            return BackendError(
                f"{what}: it is larger than the service takes in one request ({answer(exc)})", backend="oci"
            )
        if code.startswith("Unmatched"):
            return BackendError(
                f"{what}: the bytes that arrived are not those that their checksum promised ({answer(exc)})",
                hint="the source was damaged or changed while it was read; nothing was stored",
                backend="oci",
            )
        return BackendError(f"{what}: {answer(exc)}", backend="oci")

    def _readable(self) -> bool:
        from oci.exceptions import ServiceError

        for _ in range(HIDDEN_TRIES):
            try:
                with self.client() as client:
                    client.list_objects(self.namespace, self.bucket, limit=1)
                return True
            except ServiceError:
                continue
            except Exception:
                return False
        return False

    def uploads(self) -> Iterator[Any]:
        """All unfinished uploads in the bucket."""
        return self._pages(
            "looking for unfinished uploads",
            lambda c, **kw: c.list_multipart_uploads(self.namespace, self.bucket, **kw),
        )

    def parts(self, name: str, upload: str) -> Iterator[Any]:
        """The parts that have arrived of an upload."""
        return self._pages(
            "looking for parts",
            lambda c, **kw: c.list_multipart_upload_parts(self.namespace, self.bucket, name, upload, **kw),
        )

    def _pages(self, what: str, ask: Callable[..., Any]) -> Iterator[Any]:
        return pages(lambda **more: self(what, partial(ask, **more)))

    def abort(self, name: str, upload: str) -> None:
        """End an upload; its parts are removed. One that has ended is no error."""
        from oci.exceptions import ServiceError

        try:
            self(
                f"ending the upload of {name}",
                lambda c: c.abort_multipart_upload(self.namespace, self.bucket, name, upload),
            )
        except ServiceError as exc:
            if exc.status != 404:
                raise self.meaning(exc, f"ending the upload of {name}") from exc

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for client in idle:
            client.base_client.session.close()


def reason(exc: BaseException) -> str:
    """The kind of failure of a connection. The text of these errors holds addresses of objects in memory, no more."""
    text = repr(exc)
    for sign, words in (
        ("NameResolution", "the name of the host is not known"),
        ("refused", "connection refused"),
        ("CERTIFICATE", "its certificate is not trusted"),
        ("imeout", "time out"),
        ("timed out", "time out"),
    ):
        if sign in text:
            return words
    return "the connection broke"


def clock_skew(headers: Any) -> float | None:
    """How many seconds this machine is ahead of the clock in the `Date` of an answer."""
    try:
        return time.time() - parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None


def _is_answer(exc: Any) -> bool:
    return exc.status in (304, 412, 416) or exc.code in ("ObjectNotFound", "UploadNotFound", "InvalidUploadPart")


def _passing(exc: Any) -> bool:
    """Whether the same call may succeed a moment later."""
    if exc.status == 409:
        return exc.code not in ("NotRestored",) and "Retention" not in (exc.code or "")
    return is_busy(exc)
