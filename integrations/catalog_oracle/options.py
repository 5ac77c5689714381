"""Options that every service of OCI has: who asks, and where it is."""

from __future__ import annotations

import ipaddress
import urllib.parse
from typing import Any, Protocol

PRINCIPALS = ("instance_principal", "resource_principal")
AUTH = ("api_key", "security_token", *PRINCIPALS)


class Who(Protocol):
    """Who asks. `oci_profile`: the profile in the configuration file of Oracle's tools, `oci_config_file` (None: where
    those tools look, `~/.oci/config`). `auth`: one of `AUTH`; None takes what the profile has. `region` overrides the
    profile's."""

    @property
    def oci_profile(self) -> str: ...
    @property
    def oci_config_file(self) -> str | None: ...
    @property
    def auth(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...


def check_endpoint(_: Any, attribute: Any, value: str | None) -> None:
    """`https`, or `http` to this machine alone: what is sent must not be seen or changed on the way."""
    if value is None:
        return
    url = urllib.parse.urlsplit(value)
    if not url.hostname or url.scheme not in ("http", "https") or url.username or url.query or url.fragment:
        raise ValueError(f"{attribute.name} must be https://host[:port]")
    if url.scheme == "http" and not _loopback(url.hostname):
        raise ValueError(f"{attribute.name} must be https (http is for this machine only)")


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
