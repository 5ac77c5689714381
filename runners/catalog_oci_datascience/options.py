"""Who we are, and where the service is."""

from __future__ import annotations

import os
from typing import Any

import attrs

from catalog_core.errors import ConfigError
from catalog_oracle.options import AUTH, check_endpoint

_text = attrs.validators.optional(attrs.validators.instance_of(str))


def _endpoint(options: Any, attribute: Any, value: str | None) -> None:
    try:
        check_endpoint(options, attribute, value)
    except ValueError as exc:
        raise ConfigError(str(exc)) from exc


def _as_ads(value: str | None) -> str | None:
    """The endpoint that Oracle's own client would take, where none is given."""
    return value or os.environ.get("OCI_ODSC_SERVICE_ENDPOINT") or None


def _known(_: Any, __: Any, value: str | None) -> None:
    if value not in (None, *AUTH):
        raise ConfigError(f"auth = {value!r} is not known", hint=", ".join(AUTH))


@attrs.frozen
class Options:
    """`oci_profile` and `oci_config_file` (else `~/.oci/config`) say who asks; without `auth` the profile decides (a
    session token where it has one, else its API key). `region`, `endpoint` (of Data Science; else
    `$OCI_ODSC_SERVICE_ENDPOINT`) and `storage_endpoint` (of Object Storage) override what the profile says.
    `deadline`: how long one request is tried, in seconds; bodies get more. `patience`: how long the service may take
    to copy a large artifact, in seconds."""

    oci_profile: str = attrs.field(default="DEFAULT", validator=attrs.validators.instance_of(str))
    oci_config_file: str | None = attrs.field(default=None, validator=_text)
    auth: str | None = attrs.field(default=None, validator=_known)
    region: str | None = attrs.field(default=None, validator=_text)
    endpoint: str | None = attrs.field(default=None, converter=_as_ads, validator=[_text, _endpoint])
    storage_endpoint: str | None = attrs.field(default=None, validator=[_text, _endpoint])
    deadline: float = attrs.field(default=60.0, converter=float, validator=attrs.validators.gt(0))
    patience: float = attrs.field(default=3600.0, converter=float, validator=attrs.validators.gt(0))
