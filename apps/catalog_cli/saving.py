"""save: what `Catalog.save` takes, at the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from catalog_cli.output import json_option, opened, pairs, put, reference, text_of
from catalog_core import about
from catalog_core.errors import InvalidInput, NotFound
from catalog_core.events import STAGES
from catalog_core.names import check_alias, check_component, check_name
from catalog_core.plugins import registry
from catalog_core.show import size
from catalog_core.values import check_metric, check_tags


@click.command("save")
@reference("name")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--component", multiple=True, metavar="N=PATH", help="A component and its file or folder.")
@click.option("--serializer", multiple=True, metavar="[N=]KIND", help="What reads PATHS, or the component N, later, "
              "where their names do not say it: generic.")  # fmt: skip
@click.option("--option", multiple=True, metavar="K=V", help="An option of the serializer.")
@click.option("--entry-point", multiple=True, metavar="N=STEP[,STEP]", help="What can be run: component.method.")
@click.option("--example", metavar="FILE", help="Inputs that it is run on once: .npz, .npy, .json or .csv.")
@click.option("--axes", multiple=True, metavar="INPUT:AXIS[=NAME],…", help="Axes of any length: x:0=batch,2=height.")
@click.option("--skip", multiple=True, metavar="OUTPUT", help="An output to leave out, as it is no array.")
@click.option("--alias", "aliases", multiple=True, help="Point this alias at the new version.")
@click.option("--stage", type=click.Choice(STAGES), metavar="STAGE", help="Move the new version to this stage.")
@click.option("--tag", multiple=True, metavar="K=V", help="A tag.")
@click.option("--metric", multiple=True, metavar="K=NUMBER", help="A metric: a finite number.")
@click.option("--param", multiple=True, metavar="K=V", help="A parameter of the training.")
@click.option("--taxonomy", multiple=True, metavar="K=V", help="What it is for: use_case, and keys of your own.")
@click.option("--custom", multiple=True, metavar="K=V", help="Metadata of your own.")
@click.option("--parent", multiple=True, metavar="REF", help="A version this one was made from.")
@click.option(
    "--dataset",
    multiple=True,
    metavar="N=PATH",
    help="Data: a path is read for its digest; any other text is a reference.",
)
@click.option("--seed", type=int, metavar="N", help="The seed of the training.")
@click.option("--run", metavar="ID", help="The run that made it.")
@click.option("--description", help="A sentence, for full-text search.")
@click.option("--card", metavar="FILE", help="The card of the model NAME, licence included; - reads standard input.")
@click.option("--verify", is_flag=True, help="Check in a fresh process before publishing.")
@click.option("--force", is_flag=True, help="Publish even if the checks fail.")
@json_option
@click.pass_context
def save_command(
    ctx: click.Context, /, name: str, paths: tuple[Path, ...], aliases: tuple[str, ...], stage: str | None,
    card: str | None, verify: bool, force: bool, **given: Any,
) -> None:  # fmt: skip
    """Publish PATHS (files or one folder) as the next version of NAME."""
    components = _components(paths, given.pop("component"))
    if not components:
        raise click.UsageError("nothing to save: give a PATH, or --component name=PATH")
    check_name(name)  # all that can be checked is, before a catalog is made or anything is published
    for alias in aliases:
        check_alias(alias)
    told = _about(components, **given)
    text = None if card is None else text_of(card, "the card")
    catalog = opened(ctx, publish=not told["parents"])  # a catalog that is made for it holds no parent
    version = catalog.save(
        name, components=components, alias=next(iter(aliases), None), verify=verify, force=force, **told
    )
    for alias in aliases[1:]:
        version = catalog.version(version).alias(alias)
    if stage is not None and stage != version.stage:
        version = catalog.version(version).promote(stage)
    if text is not None:
        catalog.model(name).set_card(text)
    new = size(version.summary["new_bytes"])
    put(ctx, version, lines=[f"{version.ref}  {size(version.size)}, {new} new  {version.digest}"])


def _components(paths: Sequence[Path], named: Sequence[str]) -> dict[str, Path]:
    components = {check_component(key): Path(path) for key, path in pairs(named, "component").items()}
    for path in paths:
        key = "model" if len(paths) == 1 and not components else path.stem
        if key in components:
            raise InvalidInput(f"two components would be called {key!r}", hint="use --component name=path")
        components[key] = path
    for path in components.values():
        if not path.exists():
            raise NotFound(f"{path} does not exist")
    return components


def _about(components: dict[str, Path], **given: Any) -> dict[str, Any]:
    """The keywords of `Catalog.save`, checked as far as they can be without it."""
    metrics = pairs(given["metric"], "metric", numbers=True)
    for key, value in metrics.items():
        check_metric(key, value)
    return {
        "tags": check_tags(pairs(given["tag"], "tag", typed=True)),
        "metrics": metrics,
        "params": check_tags(pairs(given["param"], "param", typed=True), "parameter"),
        "taxonomy": about.check_taxonomy(pairs(given["taxonomy"], "taxonomy")),
        "custom": about.check_custom(pairs(given["custom"], "custom", typed=True)),
        "options": pairs(given["option"], "option", typed=True),
        "entry_points": _entry_points(given["entry_point"]),
        "example": _example(given["example"]),
        "axes": axes(given["axes"]),
        "skip": given["skip"],
        "serializer": _serializers(given["serializer"], components),
        "parents": given["parent"],
        "datasets": {key: _dataset(text) for key, text in pairs(given["dataset"], "dataset").items()} or None,
        "seed": given["seed"],
        "run": given["run"],
        "description": given["description"],
    }


def _example(path: str | None) -> Any:
    if path is None:
        return None
    from catalog_cli.examples import read

    return read(Path(path))


def _dataset(text: str) -> Path | str:
    path = Path(text)
    return path if "://" not in text and path.exists() else text


def _entry_points(given: Sequence[str]) -> dict[str, str | list[str]] | None:
    steps = {key: text.split(",") for key, text in pairs(given, "entry-point").items()}
    return {key: several[0] if len(several) == 1 else several for key, several in steps.items()} or None


def _serializers(given: Sequence[str], components: dict[str, Path]) -> str | dict[str, list[str]] | None:
    """One for all components, or some for each; the first that is told of a component is the one that it is read by."""
    if not given:
        return None
    alone = [text for text in given if "=" not in text]
    if alone and len(given) > 1:
        raise click.UsageError("--serializer is given twice: say which component each is for, N=KIND")
    chosen: dict[str, list[str]] = {}
    for text in given:
        name, mark, kind = text.rpartition("=")
        registry().serializer(kind)  # it is there
        if mark:
            chosen.setdefault(name, []).append(kind)
            if name not in components:
                raise InvalidInput(f"a serializer is named for {name!r}, which is no component")
    return alone[0] if alone else chosen


_AXIS = re.compile(r"(-?[0-9]{1,4})(?:=([A-Za-z_][A-Za-z0-9_]*)?)?")


def axes(given: Sequence[str]) -> dict[str, Any] | None:
    """`x:0=batch,2=height` as `{"x": {0: "batch", 2: "height"}}`; `entry/x:0` names the input of one entry point. An
    axis without a name may have any length by itself."""
    result: dict[str, Any] = {}
    for text in given:
        name, mark, rest = text.rpartition(":")
        found = [_AXIS.fullmatch(part.strip()) for part in rest.split(",")]
        if not mark or not name or not all(found):
            raise click.UsageError(f"axes {text!r} is not INPUT:AXIS=NAME[,AXIS=NAME], like x:0=batch,2=height")
        entry, slash, inner = name.partition("/")
        into = result.setdefault(entry, {}) if slash else result
        into = into.setdefault(inner if slash else name, {})
        for match in found:
            if match is not None:
                axis = int(match[1])
                if axis in into:
                    raise click.UsageError(f"axis {axis} of {name!r} is given twice")
                into[axis] = match[2] or None
    return result or None
