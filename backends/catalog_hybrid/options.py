"""What `[catalogs.x]` may say with `backend = "hybrid"`."""

from __future__ import annotations

import attrs

from catalog_core.names import check_catalog

DURABILITY = ("sync", "async", "manual")


def _names(replicas: object) -> tuple[str, ...]:
    if not isinstance(replicas, (list, tuple)):
        raise TypeError(f"replicas is {replicas!r}: a list of names of catalogs")
    return tuple(replicas)


@attrs.frozen
class Options:
    """`primary` and `replicas` are names of other catalogs of the configuration; what makes a replica the primary
    (`catalog hybrid failover`) is kept in the stores themselves and counts more. `durability` says when a change is on
    the replicas: `sync`, before the call that made it returns; `async`, soon after, by the same process; `manual`, by
    `catalog sync`."""

    primary: str
    replicas: tuple[str, ...] = attrs.field(converter=_names)
    durability: str = attrs.field(default="async", validator=attrs.validators.in_(DURABILITY))

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, the primary first."""
        return (self.primary, *self.replicas)

    def __attrs_post_init__(self) -> None:
        for name in self.names:
            check_catalog(name)
        if not self.replicas or len(set(self.names)) != len(self.names):
            raise ValueError("primary and replicas must be the names of two or more different catalogs")
