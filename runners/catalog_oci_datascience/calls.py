"""Calls to Data Science and Object Storage: tries until a deadline, and what the services' errors mean."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from catalog_core.errors import BackendError, DeadlineExceeded, NoSpace, NotFound
from catalog_oci_datascience.options import Options
from catalog_oracle.client import SLOWEST, answer, is_broken, is_busy, is_renewable, new_client, pages
from catalog_oracle.login import log_in
from catalog_oracle.options import PRINCIPALS

CONNECT, ANSWER = 5.0, 30.0  # seconds of one try: to connect, and for the next bytes of an answer


class Calls:
    """A client of the SDK, `data_science.DataScienceClient` or `object_storage.ObjectStorageClient`; for one thread."""

    def __init__(self, options: Options, kind: str, endpoint: str | None) -> None:
        self.options = options
        self.kind = kind
        self.endpoint = endpoint
        self.region: str | None = None
        self._client: Any = None
        self._log_in()  # what is wrong with a profile is said before anything is done

    def _log_in(self) -> None:
        try:
            login = log_in(self.options)
        except Exception as exc:
            if not hasattr(exc, "status"):
                raise
            who = str(self.options.auth).replace("_", " ")
            raise BackendError(f"the service that hands out tokens to an {who} is busy", hint="try again") from exc
        self.region = login[0].get("region")
        self._renewable = is_renewable(self.options, login[0])
        self._client = new_client(self.kind, login, self.endpoint, hint="name a region, or an endpoint")
        self._client.base_client.timeout = (CONNECT, ANSWER)

    def __call__(
        self,
        what: str,
        ask: Callable[[Any], Any],
        *,
        answers: tuple[int, ...] = (),
        size: int = 0,
        settled: Callable[[], bool] | None = None,
    ) -> Any:
        """Let `ask` talk to the client until it succeeds, while trying again may help and the deadline allows.

        `what` says what is done, for messages; `size` counts the bytes that travel; after a lost answer `settled` tells
        whether the call had its effect (None is returned then). Raises the SDK's `ServiceError` for statuses in
        `answers`, else errors of ours."""
        from oci.exceptions import ServiceError

        end = time.monotonic() + self.options.deadline + size / SLOWEST
        pause, renewed = 0.1, False
        while True:
            try:
                return ask(self._client)
            except ServiceError as exc:
                if exc.status == 401 and self._renewable and not renewed:
                    renewed = True  # a session token may be another one in its file by now, a principal gets another
                    self._log_in()
                    continue
                if exc.status in answers:
                    raise
                if not is_busy(exc):
                    raise self.meaning(exc, what) from exc
                last: Exception = exc
            except Exception as exc:
                if not is_broken(exc):
                    raise
                last = exc
                if settled is not None and settled():
                    return None
            if time.monotonic() + pause > end:
                raise self._gave_up(last, what) from last
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 2, 8.0)

    def pages(self, what: str, ask: Callable[..., Any], **asked: Any) -> Iterator[Any]:
        """All items of a listing, asked for page by page; `ask` is called with the client and page=."""
        return pages(lambda **more: self(what, partial(ask, **asked, **more)))

    def _gave_up(self, exc: Exception, what: str) -> DeadlineExceeded:
        seconds = f"{self.options.deadline:g} s"
        if hasattr(exc, "status"):
            text = f"{what}: the service kept refusing for {seconds} ({answer(exc)})"
            return DeadlineExceeded(text, hint="try again later: it goes on where it stopped", backend="oci")
        where = self.endpoint or f"OCI in {self.region}"
        return DeadlineExceeded(
            f"{what}: no answer from {where} in {seconds} (the connection broke)",
            hint="check the network, the region and the endpoint, and try again: it goes on where it stopped",
            backend="oci",
        )

    def meaning(self, exc: Any, what: str) -> Exception:
        """One clear sentence for an error of the service."""
        code, status, told = exc.code or "", exc.status, answer(exc)
        if status == 401:
            who = self.options.auth if self.options.auth in PRINCIPALS else f"profile {self.options.oci_profile!r}"
            return BackendError(
                f"{what}: OCI does not accept the signature of {who} ({told})",
                hint="check user, tenancy, fingerprint and key, and the clock; a session may have expired "
                "(`oci session authenticate`)",
                backend="oci",
            )
        if "Quota" in code or "LimitExceeded" in code or status == 507:
            return NoSpace(
                f"{what}: the quota or limit is used up ({told})",
                hint="delete models, or ask for more; then publish again: it goes on where it stopped",
                backend="oci",
            )
        if status in (403, 404):
            return NotFound(
                f"{what}: it does not exist, or this user may not do it ({told})",
                hint="check the OCIDs, the region, and the policies (`manage data-science-models in compartment …`)",
            )
        said = " ".join(str(exc.message or "").split())[:300]
        return BackendError(f"{what}: {said or 'refused'} ({told})", backend="oci")
