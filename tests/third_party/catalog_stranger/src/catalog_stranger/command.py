"""`catalog stranger-info`."""

import json

import click

from catalog_core import Catalog


@click.command("stranger-info")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def info(context: click.Context, as_json: bool) -> None:
    """Say how many models the catalog holds, and which versions of them are calibrations."""
    said = context.obj or {}  # found by trying: {"catalog": what --catalog says, "json": bool}
    with Catalog.open(said.get("catalog"), create=False) as catalog:
        versions = list(catalog.search("framework = polycal"))
        told = {
            "url": catalog.url,
            "position": catalog.position,
            "models": len(catalog.models()),
            "calibrations": [{"ref": v.ref, "params": v.params, "size": v.size} for v in versions],
        }
    if as_json or said.get("json"):
        click.echo(json.dumps(told))
        return
    click.echo(f"{told['url']}: position {told['position']}, {told['models']} models")
    for row in told["calibrations"]:
        click.echo(f"{row['ref']}  {', '.join(f'{k}={v}' for k, v in row['params'].items())}  {row['size']} B")
