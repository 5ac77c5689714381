"""`catalog oci publish | models | pull`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from catalog_cli.output import json_option, opened, pairs, put, put_table, reference
from catalog_oci_datascience.options import Options
from catalog_oci_datascience.publishing import publish
from catalog_oci_datascience.reading import models, pull
from catalog_oci_datascience.record import Item
from catalog_oracle.options import AUTH

_SHARED = [
    click.option("--profile", default="DEFAULT", help="The section of OCI's configuration file.", show_default=True),
    click.option("--config-file", metavar="PATH", help="OCI's configuration file, if not ~/.oci/config."),
    click.option("--auth", type=click.Choice(AUTH), help="How to log in, where the profile does not decide."),
    click.option("--region", help="The region, if not that of the profile."),
    click.option("--endpoint", metavar="URL", help="The endpoint of Data Science, if not that of the region."),
    click.option("--storage-endpoint", metavar="URL", help="That of Object Storage."),
]


def _login(command: Callable[..., Any]) -> Any:
    for option in reversed(_SHARED):
        command = option(command)
    return command


def _options(given: dict[str, Any]) -> Options:
    return Options(
        oci_profile=given["profile"], oci_config_file=given["config_file"], auth=given["auth"], region=given["region"],
        endpoint=given["endpoint"], storage_endpoint=given["storage_endpoint"],
    )  # fmt: skip


_compartment = click.option(
    "--compartment", metavar="OCID", help="The compartment; in OCI's notebooks and jobs theirs."
)
_project = click.option("--project", metavar="OCID", help="The project.")
_bucket = click.option("--bucket", metavar="URL", help="oci://bucket@namespace/prefix, for artifacts over 2 GiB.")


@click.group("oci")
def oci_command() -> None:
    """The Model Catalog of OCI Data Science: publish versions to it, list its models, and pull from it."""


@oci_command.command("publish")
@reference("ref")
@_compartment
@_project
@click.option("--name", help="What the model is called there, if not REF.")
@click.option("--description", help="A sentence; else that of the model.")
@click.option("--version-set", metavar="NAME", help="The version set to join, for good; made where there is none.")
@click.option("--label", help="The version's label in that set, if not its number.")
@click.option("--custom", multiple=True, metavar="K=V", help="More custom metadata.")
@click.option("--leave-out", multiple=True, metavar="KEY", help="Metadata or a schema not to send.")
@_bucket
@click.option("--by-reference", is_flag=True, help="Leave the files in the bucket; the model points at them.")
@click.option("--format", default="ads", show_default=True, help="The format of the artifact.")
@_login
@json_option
@click.pass_context
def publish_command(
    ctx: click.Context, /, ref: str, compartment: str | None, project: str | None, name: str | None,
    description: str | None, version_set: str | None, label: str | None, custom: tuple[str, ...],
    leave_out: tuple[str, ...], bucket: str | None, by_reference: bool, format: str, **login: Any,
) -> None:  # fmt: skip
    """Make REF a model of OCI Data Science. Doing so again, or after it was cut off, makes no second one."""
    done = publish(
        opened(ctx).version(ref), compartment=compartment, project=project, options=_options(login), name=name,
        description=description, version_set=version_set, label=label, leave_out=leave_out, bucket=bucket,
        custom=[Item(key, value) for key, value in pairs(custom, "custom").items()], by_reference=by_reference,
        format=format,
    )  # fmt: skip
    put(ctx, done, lines=[f"{done.ref}  {done.ocid}  {done.how}", *done.notes])


@oci_command.command("models")
@_compartment
@_project
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many, newest first.")
@_login
@json_option
@click.pass_context
def models_command(
    ctx: click.Context, /, compartment: str | None, project: str | None, limit: int, **login: Any
) -> None:
    """List the models of a compartment, or of one project in it."""
    found = models(compartment=compartment, project=project, options=_options(login), limit=limit)
    rows = [{"name": m.name, "created": m.created, "reference": m.reference or "", "ocid": m.ocid} for m in found]
    put_table(ctx, found if ctx.obj["json"] else rows, "no models")


@oci_command.command("pull")
@click.argument("ocid")
@click.argument("name", required=False)
@_bucket
@click.option("--format", default="ads", show_default=True, help="The format that reads the artifact.")
@click.option("--unsafe", is_flag=True, help="Convert pickles and the like, in a process of its own.")
@_login
@json_option
@click.pass_context
def pull_command(
    ctx: click.Context, /, ocid: str, name: str | None, bucket: str | None, format: str, unsafe: bool, **login: Any
) -> None:
    """Publish the model OCID here, under NAME or the name it had. One that came before is not pulled again."""
    catalog = opened(ctx, create=True)
    version = pull(catalog, ocid, name, options=_options(login), bucket=bucket, format=format, unsafe=unsafe)
    put(ctx, version, lines=[f"{version.ref}  {ocid}  {version.digest}"])
