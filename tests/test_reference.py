"""The reference is complete: the page of commands is what the program says, the Python page names what is public.

`python tests/test_reference.py` writes the page of commands anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click
import pytest

from catalog_cli.main import COMMANDS as OURS
from catalog_cli.main import group
from catalog_core import config, errors, hookspecs, interfaces, records, specs
from catalog_core.interfaces import serializer, store

pytestmark = pytest.mark.unit
REFERENCE = Path(__file__).parent.parent / "docs/reference"
COMMANDS = REFERENCE / "commands.md"
MARK = re.compile(r"<!-- commands: .*? -->\n", re.S)


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else f" {option.metavar or option.type.name.upper()}"
    default = (
        "" if option.is_flag or option.default in (None, ()) or option.multiple else f" Default: {option.default}."
    )
    shown = default if isinstance(option.default, (int, float, str)) else ""
    often = " May be given several times." if option.multiple else ""
    return f"| {names}{value} | {option.help or ''}{often}{shown} |"


def _usage(command: click.Command, context: click.Context) -> str:
    pieces = []
    for param in command.params:
        if isinstance(param, click.Argument):
            name = (param.metavar or str(param.name)).upper()
            many = "" if param.nargs != -1 or "..." in name else "..."
            pieces.append(name + many if param.required else f"[{name.strip('[]').removesuffix(']...')}]{many}")
    return " ".join([context.command_path, "[OPTIONS]", *pieces])


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Every command that comes with the program, at any depth; strangers' plug-ins may add more where they are
    installed."""
    root = click.Context(group, info_name="catalog")

    def below(name: str, command: click.Command | None, parent: click.Context) -> Iterator[Any]:
        assert command is not None
        context = click.Context(command, info_name=name.split()[-1], parent=parent)
        inner = command.commands if isinstance(command, click.Group) else {}
        if not inner or getattr(command, "invoke_without_command", False):
            yield name, command, context
        for each, found in inner.items():
            yield from below(f"{name} {each}", found, context)

    for name in (*OURS, "demo", "scan", "oci"):
        yield from below(name, group.get_command(root, name), root)


def page() -> str:
    """What the program says of its commands, as Markdown."""
    lines = ["## Options of all commands", "", "| option | |", "|---|---|"]
    lines += [_option(param) for param in group.params if isinstance(param, click.Option) and param.name != "version"]
    for name, command, context in commands():
        lines += ["", f"## `{name}`", "", " ".join((command.help or "").split()), "", "```text"]
        lines += [_usage(command, context), "```"]
        options = [p for p in command.params if isinstance(p, click.Option) and p.name != "as_json"]
        if options:
            lines += ["", "| option | |", "|---|---|", *map(_option, options)]
    return "\n".join(lines) + "\n"


def test_the_page_of_commands_is_what_the_program_says() -> None:
    _, shown = MARK.split(COMMANDS.read_text(encoding="utf-8"))
    assert shown.strip() == page().strip(), "run: python tests/test_reference.py"


def test_the_page_has_a_heading_for_each_command_of_the_tree() -> None:
    text = COMMANDS.read_text(encoding="utf-8")

    def leaves(command: click.Command, context: click.Context, path: list[str]) -> Iterator[str]:
        for name in command.list_commands(context) if isinstance(command, click.Group) else ():
            found = command.get_command(context, name)
            assert found is not None and isinstance(command, click.Group)
            inner = click.Context(found, info_name=name, parent=context)
            if isinstance(found, click.Group):
                yield from leaves(found, inner, [*path, name])
            else:
                yield " ".join([*path, name])

    found = set(leaves(group, click.Context(group, info_name="catalog"), []))
    assert {"env show", "env create", "cache pin", "hybrid failover", "oci pull"} <= found
    ours = {name for name in found if name.split()[0] in (*OURS, "demo", "scan", "oci")}
    assert [name for name in sorted(ours) if f"\n## `{name}`\n" not in text] == []


def test_every_command_and_option_has_a_help_and_takes_json() -> None:
    for name, command, _ in commands():
        assert command.help, name
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, f"{name} {param.opts}"
        assert any("--json" in param.opts for param in command.params), name


def test_the_python_page_names_all_that_is_public() -> None:
    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: ([\w.]+)", text, re.M))

    def covered(path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:n]) in shown for n in range(1, len(parts) + 1))

    modules = [errors, hookspecs, records, specs, store]
    names = [f"catalog_core.interfaces.{getattr(interfaces, name).__module__.rpartition('.')[2]}.{name}"
             for name in interfaces.__all__]  # fmt: skip
    for module in modules:
        names += [f"{module.__name__}.{name}" for name, value in vars(module).items()
                  if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")]  # fmt: skip
    for name in ("catalog.Catalog", "draft.Draft", "handles.Version", "handles.Model", "page.Page",
                 "compare.Comparison", "compare.Difference", "verify.Report", "verify.Check", "fsck.Findings",
                 "maintain.Collected", "artifact.Components", "session.Session", "show.Event",
                 "testing.contract", "testing.memory", "testing.faults", "tensors"):  # fmt: skip
        names.append(f"catalog_core.{name}")
    assert [name for name in [*names, "catalog_cli.output"] if not covered(name)] == []


def test_the_fields_of_what_plug_ins_make_are_shown_and_explained() -> None:
    page = (REFERENCE / "python.md").read_text(encoding="utf-8")
    words = {"catalog", "cpu", "cuda", "torch", "float32", "bfloat16", "component", "import_path"}
    for module in (records, specs, store, serializer):
        assert f"::: {module.__name__}\n    options:\n      show_if_no_docstring: true" in page
        for kind in vars(module).values():
            if not attrs.has(kind) or kind.__module__ != module.__name__:
                continue
            fields = {field.name for field in attrs.fields(kind)}
            named = set(re.findall(r"`([a-z_]+)`", kind.__doc__ or ""))
            assert named <= fields | words, f"{kind.__name__} explains {named - fields - words}, which it does not have"
            if module is specs:
                assert fields - {"name", "extra", "api"} <= named, f"{kind.__name__} does not explain all fields"


def test_the_configuration_page_names_every_key_and_variable() -> None:
    text = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    root = Path(config.__file__).parent
    sources = "".join(path.read_text() for path in [*root.rglob("*.py"), *root.parent.glob("catalog_cli/*.py")])
    variables = set(re.findall(r"\bCATALOG(?:_[A-Z]+)*\b", sources)) - {"CATALOG_TEST_MOUNTS"}
    assert {"CATALOG", "CATALOG_CACHE_DIR"} <= variables
    assert [name for name in sorted(variables) if f"`{name}`" not in text] == []
    assert all(f"`{key}`" in text for key in ("default", "url"))


def test_every_test_that_a_page_names_exists() -> None:
    root = REFERENCE.parents[1]
    named = {(page.name, name) for page in (root / "docs").rglob("*.md")
             for name in re.findall(r"`((?:tests|bench)/[\w/]+\.py)", page.read_text(encoding="utf-8"))}  # fmt: skip
    assert len(named) > 10
    assert [pair for pair in sorted(named) if not (root / pair[1]).exists()] == []


if __name__ == "__main__":
    before = COMMANDS.read_text(encoding="utf-8")
    end = MARK.search(before)
    assert end is not None
    COMMANDS.write_text(before[: end.end()] + "\n" + page(), encoding="utf-8")
