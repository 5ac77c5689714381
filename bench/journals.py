"""A journal of many versions, for benchmarks that write it where they need it."""

from __future__ import annotations

from collections.abc import Iterator

from catalog_core.digests import digest_of
from catalog_core.events import Intent, event, new_id, write_entry
from catalog_core.interfaces.backend import Head


def versions(head: Head | None, count: int) -> Iterator[tuple[Head, bytes]]:
    """Entries that continue `head`, each with a version that has a tag, a metric and a text; count / 10 models with an
    alias each."""
    for number in range(count):
        name = f"group{number % (count // 10) % 7}/model{number % (count // 10)}"
        published = event(
            "version.published",
            model=name,
            number=number // (count // 10) + 1,
            manifest=digest_of(b"m%d" % number),
            layout=digest_of(b"l%d" % number),
            size=4000,
            blobs="",
            checked=-1,
            summary={"framework": "torch", "algorithm": "Net"},
            tags={"team": f"team{number % 50}"},
            metrics={"auc": number / count},
            text=f"calorimeter shower {number}",
        )
        events = [published]
        if published["number"] == 10:
            events.append(event("alias.set", model=name, alias="champion", number=10, seen="any"))
        data = write_entry(head, 1_750_000_000_000 + number, [Intent(new_id(), "bench", 0, head, tuple(events))])
        head = Head(0 if head is None else head.position + 1, digest_of(data))
        yield head, data
