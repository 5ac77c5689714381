"""How large an artifact may be, by the way that it goes; and the check `size` of `catalog verify`."""

from __future__ import annotations

from catalog_core.interfaces.runtime import Artifact
from catalog_core.show import size

DIRECT = 2 << 30  # bytes of an artifact that one request may carry
EXPORT = 400 * 10**9  # bytes that the service copies from a bucket


def check(artifact: Artifact) -> tuple[str, str] | None:
    """`warned` where the artifact is too large to be copied into the model catalog of OCI Data Science."""
    total = sum(file.size for component in artifact.manifest.components for file in component.files)
    if total > EXPORT:
        return "warned", f"{size(total)}: OCI Data Science takes at most {size(EXPORT)}, more by reference only"
    if total > DIRECT:
        return "passed", f"{size(total)}: OCI Data Science takes more than {size(DIRECT)} through a bucket only"
    return None
