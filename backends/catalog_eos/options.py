"""What the table of a catalog on EOS may say beside its URL."""

from __future__ import annotations

import attrs


@attrs.frozen
class Options:
    """`timeout`: the longest that one request may take, in seconds, 1 to 600. `token_file`: the path of a file that
    holds an EOS token (`zteos64:…`) or a bearer token, sent with each request; it is read again when it changes."""

    timeout: int = attrs.field(
        default=8, validator=[attrs.validators.instance_of(int), attrs.validators.in_(range(1, 601))]
    )
    token_file: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )
