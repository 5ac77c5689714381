"""Clients of the SDK that leave trying again to us, and what the answers of a service say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from catalog_core.errors import ConfigError
from catalog_oracle.login import Login
from catalog_oracle.options import PRINCIPALS, Who

SLOWEST = 64 * 1024  # bytes per second: a body of this many bytes gets one second more


def new_client(kind: str, login: Login, endpoint: str | None, *, hint: str) -> Any:
    """A client of the SDK, such as `object_storage.ObjectStorageClient`, that tries each call once. Raises
    `ConfigError` with `hint` where neither the login nor `endpoint` tells where the service is."""
    import oci

    config, signer = login
    package, _, name = kind.partition(".")
    try:
        client = getattr(getattr(oci, package), name)(
            config,
            signer=signer,
            retry_strategy=oci.retry.NoneRetryStrategy(),  # its own turns a lost answer into a false 412
            circuit_breaker_strategy=oci.circuit_breaker.NoCircuitBreakerStrategy(),  # one for the whole process
            **({"service_endpoint": endpoint} if endpoint else {}),
        )
    except (ValueError, oci.exceptions.InvalidConfig) as exc:
        raise ConfigError(f"no endpoint of {_SERVICES[package]} is known", hint=hint) from exc
    # after a 401 to a principal the SDK would send a body again that it has read already
    client.base_client.is_instance_principal_or_resource_principal_signer = lambda: False
    return client


_SERVICES = {"object_storage": "Object Storage", "data_science": "Data Science"}


def is_renewable(options: Who, config: dict[str, Any]) -> bool:
    """Whether a second login may help after a 401: a session token may be another one in its file by now, a principal
    gets another."""
    return options.auth in PRINCIPALS or bool(config.get("security_token_file"))


def pages(ask: Callable[..., Any]) -> Iterator[Any]:
    """All items of a listing; `ask` is called with `page=`, and without it for the first page."""
    more: dict[str, str] = {}
    while True:
        found = ask(**more)
        yield from getattr(found.data, "items", found.data)
        page = found.headers.get("opc-next-page")
        if not page or more.get("page") == page:
            return
        more = {"page": page}


def answer(exc: Any) -> str:
    """What the service said, and the id under which Oracle's support finds it."""
    return f"{exc.status} {exc.code or 'without a code'}, opc-request-id {exc.request_id}"


def is_busy(exc: Any) -> bool:
    """Whether the status of an error says that the same call may succeed a moment later."""
    return exc.status == 429 or (exc.status >= 500 and exc.status not in (501, 507))


def is_broken(exc: BaseException) -> bool:
    """Whether `exc` is the end of a connection."""
    from urllib3.exceptions import HTTPError

    return isinstance(exc, (OSError, HTTPError))  # those of the SDK and of its `requests` are OSErrors
