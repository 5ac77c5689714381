"""The table of a `logfile://` catalog in catalog.toml."""

from typing import Any

import attrs


def _truth(_: Any, field: Any, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{field.name} is true or false, not {value!r}")


@attrs.frozen
class LogOptions:
    """`sync`: whether what is written is forced to the disk."""

    sync: bool = attrs.field(default=True, validator=_truth)
