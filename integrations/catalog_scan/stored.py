"""The files of a stored version or draft, looked at as any other files; and the check of `catalog verify`."""

from __future__ import annotations

from catalog_core.interfaces.runtime import Artifact
from catalog_scan.scanner import Scanner

# What nothing runs, or makes, without trust. All else has no good reason to be there.
ASKED_FOR = ("call", "cannot read", "code", "native code", "type")


def look_at(artifact: Artifact) -> Scanner:
    """A scanner that has looked at the files of all components."""
    scanner = Scanner()
    for component in artifact.manifest.components:
        reader = artifact.reader(component)
        names = list(reader.files)
        for name in names:
            scanner.look(f"{component.name}/{name}", reader.view(name), name, names)
    return scanner


def check(artifact: Artifact) -> tuple[str, str] | None:
    """`failed` with the first finding that nobody could have asked for; `warned` with the first other one."""
    findings = sorted(look_at(artifact).findings, key=lambda finding: finding.rule in ASKED_FOR)
    if not findings:
        return None
    first, more = findings[0], f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    return "warned" if first.rule in ASKED_FOR else "failed", f"{first.file}: {first.rule}: {first.cause}{more}"
