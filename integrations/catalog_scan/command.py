"""`catalog scan PATH|REF`."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import click

from catalog_cli.output import json_option, opened, put
from catalog_core.errors import InvalidReference, NotFound
from catalog_scan.scanner import Report, scan_path
from catalog_scan.stored import look_at


@click.command("scan")
@click.argument("what", metavar="PATH|REF")
@json_option
@click.pass_context
def scan_command(ctx: click.Context, what: str) -> None:
    """Look for what would run code in a file, a folder, or a version of the catalog.

    Files are told by their content, not by their names, and never loaded. What cannot be read is a finding too. Exit
    code 1 where there is one.
    """
    report = scan_path(Path(what)) if Path(what).exists() else _stored(ctx, what)
    told = {
        "files": [attrs.asdict(file) for file in report.files],
        "findings": [attrs.asdict(finding) for finding in report.findings],
    }
    lines = [f"{finding.file}: {finding.rule}: {finding.cause}" for finding in report.findings]
    counts = [
        f"{len(found):,} {what}{'s' * (len(found) != 1)}"
        for found, what in ((report.files, "file"), (report.findings, "finding"))
    ]
    put(ctx, told, lines=[*lines, f"{counts[0]} looked at, {counts[1]}"])
    if report.findings:
        sys.exit(1)


def _stored(ctx: click.Context, ref: str) -> Report:
    catalog = opened(ctx)
    try:
        artifact = catalog.artifact(ref)
    except (InvalidReference, NotFound) as exc:
        raise NotFound(f"{ref} is no file or folder here, and no version: {exc.message}", hint=exc.hint) from exc
    scanner = look_at(artifact)
    version = catalog.version(ref)
    for name in (attached := version.attachments):
        scanner.look(f"attachment {name}", memoryview(version.attachment(name)), name, list(attached))
    return scanner.report()
