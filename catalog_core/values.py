"""Values of tags, metrics, parameters and times: what may be stored, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from catalog_core.errors import InvalidInput
from catalog_core.names import check_key

if TYPE_CHECKING:
    from datetime import datetime

MAX_TAG = 4096
MAX_TAGS = 12 << 10


def check_tags(tags: Mapping[str, Any], kind: str = "tag") -> dict[str, Any]:
    """Return `tags` if they may be stored: texts, finite numbers and booleans, 4 KiB each, 12 KiB in all."""
    total = 0
    for key, value in tags.items():
        check_key(key, kind)
        if not isinstance(value, (str, bool, int, float)):
            raise InvalidInput(f"{kind} {key!r} is a {type(value).__name__}; texts, numbers and booleans are allowed")
        if isinstance(value, float) and value - value != 0:
            raise InvalidInput(f"{kind} {key!r} is {value}, which cannot be stored as JSON", hint="store it as text")
        size = len(str(value).encode(errors="replace"))
        total += size + len(key)
        if size > MAX_TAG or total > MAX_TAGS:
            raise InvalidInput(
                f"{kind} {key!r} takes {size:,} bytes: {MAX_TAG:,} are allowed for one, {MAX_TAGS:,} for all",
                hint="long texts go into the card or an attachment",
            )
    return dict(tags)


def check_metric(key: str, value: Any) -> float | int:
    """Return `value` if it may be a metric: a finite number. Raises `InvalidInput`."""
    from catalog_core.digests import MAX_INTEGER

    check_key(key, "metric")
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise InvalidInput(f"metric {key!r} must be a number, not {str(value)[:60]!r}", hint="texts go into tags=")
    number = value if isinstance(value, int) else float(value)
    if number != number or number in (float("inf"), float("-inf")):
        raise InvalidInput(f"metric {key!r} is {number}: only finite numbers can be compared", hint="leave it out")
    if isinstance(number, int) and abs(number) > MAX_INTEGER:
        raise InvalidInput(f"metric {key!r} is an integer beyond ±(2^53-1)")
    return number


def check_limit(limit: int) -> int:
    """Return `limit` if so many rows may be asked for: 1 to a million. Raises `InvalidInput`."""
    if type(limit) is not int or not 1 <= limit <= 1_000_000:
        raise InvalidInput(f"limit is {limit!r}; 1 to 1,000,000 are allowed")
    return limit


def when(seconds: float) -> datetime:
    """A time of the journal (seconds since 1970), as an aware datetime in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC)


def typed(word: str, number: float | None) -> Any:
    """A stored value as it was given: the number (whole where it was written so), else the text."""
    if number is None:
        return word
    return int(number) if "." not in word and "e" not in word else number
