"""What the table of a catalog in the configuration may hold beside its URL."""

from __future__ import annotations

import attrs

from catalog_oracle.options import AUTH, check_endpoint

_text = attrs.validators.optional(attrs.validators.instance_of(str))


@attrs.frozen
class Options:
    """`oci_profile`: the profile in the configuration file of Oracle's tools, `oci_config_file` (default: where those
    tools look, `~/.oci/config`). `auth`: `api_key`, `security_token`, `instance_principal` or `resource_principal`;
    None takes what the profile has. `region` and `service_endpoint` override the profile's. `deadline`: how long one
    request is tried, in seconds; large bodies get more, see `calls.SLOWEST`. `parallel`: parts of one large blob that
    travel at once."""

    oci_profile: str = attrs.field(default="DEFAULT", validator=attrs.validators.instance_of(str))
    oci_config_file: str | None = attrs.field(default=None, validator=_text)
    auth: str | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.in_(AUTH)))
    region: str | None = attrs.field(default=None, validator=_text)
    service_endpoint: str | None = attrs.field(default=None, validator=[_text, check_endpoint])
    deadline: float = attrs.field(default=20.0, converter=float, validator=attrs.validators.gt(0))
    parallel: int = attrs.field(
        default=4, validator=[attrs.validators.instance_of(int), attrs.validators.in_(range(1, 33))]
    )
