"""What `catalog doctor` asks of a hybrid: whether its parts are there, and agree on who is the primary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from catalog_core.interfaces.store import Place
from catalog_core.records import Check
from catalog_hybrid.options import Options
from catalog_hybrid.parts import Part


def checks(url: str, options: Mapping[str, Any], *, parts: Mapping[str, Place]) -> Iterator[Check]:
    """One check for each part, and one for the primary."""
    for part in [Part(name, parts[name]) for name in Options(**options).names]:
        part.look(False)
        told = f"{part.url}: {len(part.records)} epochs known" if part.error is None else str(part.error)
        yield Check(f"hybrid.{part.name}", "passed" if part.error is None else "warned", 0.0, told)
        part.close()
