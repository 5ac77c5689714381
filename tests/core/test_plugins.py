from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import attrs
import pytest

from catalog_core import config, plugins
from catalog_core.errors import ConfigError, MissingPlugin, PluginError
from catalog_core.specs import BackendSpec

pytestmark = pytest.mark.unit
ROOT = Path(plugins.__file__).parents[1]
SPEC = "from catalog_core.specs import SerializerSpec as S\n"
HOOK = "def catalog_register_serializers():\n    "


def install(folder: Path, name: str, body: str, value: str | None = None) -> None:
    """A distribution as pip leaves it: a module, and a dist-info with an entry point."""
    (folder / f"{name}.py").write_text(body)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[catalog_core.plugins]\n{name} = {value or name}\n")


def look(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    code = (
        "import json; from catalog_core.plugins import registry; r = registry();"
        "print(json.dumps([{n: r.providers['serializers', n] for n in r.serializers},"
        "{p.plugin: p.message for p in r.problems}]))"
    )
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    found, problems = json.loads(done.stdout.splitlines()[-1])
    return found, problems


def test_broken_strangers_are_reported_and_the_rest_works(tmp_path: Path) -> None:
    install(tmp_path, "xa_good", SPEC + HOOK + "yield S('good', ('xx',), 'm:C')\n")
    install(tmp_path, "xb_import", "import nothing_of_this_name\n")
    install(tmp_path, "xc_exit", "raise SystemExit(3)\n")
    install(tmp_path, "xd_twice", SPEC + HOOK + "yield S('good', ('yy',), 'm:C')\n")
    install(tmp_path, "xe_api", SPEC + HOOK + "yield S('future', ('zz',), 'm:C', api=99)\n")
    install(tmp_path, "xf_midway", SPEC + HOOK + "yield S('half', ('hh',), 'm:C')\n    raise RuntimeError('no')\n")
    install(tmp_path, "xg_type", HOOK + "yield 'text'\n")
    body = SPEC + "class P:\n    @staticmethod\n    def catalog_register_serializers():\n"
    install(tmp_path, "xh_attr", body + "        yield S('attr', ('aa',), 'm:C')\n", "xh_attr:P")
    found, problems = look(tmp_path)
    assert found["good"] == "xa_good"
    assert found["attr"] == "xh_attr"
    assert not {"future", "half"} & set(found)
    assert "nothing_of_this_name" in problems["xb_import"]
    assert "SystemExit" in problems["xc_exit"]
    assert "xa_good" in problems["xd_twice"]
    assert "99" in problems["xe_api"]
    assert "RuntimeError: no" in problems["xf_midway"]
    assert "str" in problems["xg_type"]
    assert "xa_good" not in problems


def test_a_hook_that_does_not_exist_or_asks_for_more_is_reported(tmp_path: Path) -> None:
    install(tmp_path, "xa_typo", "def catalog_register_serialisers():\n    return ()\n")
    install(tmp_path, "xb_asks", "def catalog_saved(version, colour):\n    pass\n")
    install(tmp_path, "xc_less", "def catalog_saving(name):\n    pass\n")
    install(tmp_path, "xd_good", SPEC + HOOK + "yield S('good', ('xx',), 'm:C')\n")
    found, problems = look(tmp_path)
    assert "catalog_register_serialisers" in problems["xa_typo"]
    assert "colour" in problems["xb_asks"]
    assert set(problems) == {"xa_typo", "xb_asks"}
    assert "good" in found


def test_events_reach_plug_ins_with_the_arguments_they_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "told_of_names.py").write_text("seen = []\ndef catalog_saving(name):\n    seen.append(name)\n")
    (tmp_path / "told_and_fails.py").write_text("def catalog_saved(version):\n    raise RuntimeError('no')\n")
    registry = plugins.Registry([("a", "told_of_names"), ("b", "told_and_fails")])
    registry.saving("calo/gan", None)  # type: ignore[arg-type]
    registry.saved(types.SimpleNamespace(ref="calo/gan@1"))  # logged, nothing else
    assert sys.modules["told_of_names"].seen == ["calo/gan"]


def test_one_plugin_installed_twice_is_loaded_once(tmp_path: Path) -> None:
    install(tmp_path, "xa_good", SPEC + HOOK + "yield S('good', ('xx',), 'm:C')\n")
    second = tmp_path / "other-1.0.dist-info"
    second.mkdir()
    (second / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (second / "entry_points.txt").write_text("[catalog_core.plugins]\nagain = xa_good\n")
    found, problems = look(tmp_path)
    assert "good" in found
    assert not {"again", "xa_good"} & set(problems)


def test_load_tells_a_missing_dependency_from_a_broken_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "abcplug.py").write_text("import abcp\n")
    (tmp_path / "soplug.py").write_text("raise OSError('libx.so: cannot open')\n")
    registry = plugins.Registry(())
    with pytest.raises(MissingPlugin, match="abcp"):
        registry.load("abcplug:X")
    with pytest.raises(PluginError, match=r"libx\.so"):
        registry.load("soplug:X")
    with pytest.raises(PluginError):
        registry.load("no_such_plugin.deep:X")


def test_ancestors_in_builtins_say_nothing_except_dict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "states.py").write_text(SPEC + HOOK + "yield S('state', ('builtins', 'collections'), 'm:C')\n")
    registry = plugins.Registry([("states", "states")])

    class State(collections.OrderedDict):  # type: ignore[type-arg]
        pass

    class Failure(Exception):
        pass

    for taken in ({}, collections.OrderedDict(), State()):
        assert registry.find_serializer(taken).name == "state"
    with pytest.raises(MissingPlugin, match="Failure"):
        registry.find_serializer(Failure())


@attrs.frozen
class Options:
    profile: str = attrs.field(default="a", validator=attrs.validators.instance_of(str))


def test_options_are_checked_by_the_class_of_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "options_of_test", sys.modules[__name__])
    spec = BackendSpec("x", ("x",), "m:f", options="options_of_test:Options")
    plugins.check_options(spec, config.Target("ab", "x://", {"profile": "b"}))
    for bad in ({"profil": "b"}, {"profile": 3}):
        with pytest.raises(ConfigError, match=r"catalog\.toml.*profil") as caught:
            plugins.check_options(spec, config.Target("ab", "x://", bad, "catalog.toml"))
        assert "Attribute(" not in caught.value.message and len(caught.value.message) < 150


@pytest.mark.parametrize(
    ("url", "needs"), [("root://127.0.0.1:1//eos/x", "XRootD"), ("oci://b@n/x", "oci"), ("s3://bucket/x", "obstore")]
)
def test_a_client_that_is_not_installed_is_told_with_the_way_out(url: str, needs: str) -> None:
    import subprocess
    import sys

    block = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {needs!r}: raise ModuleNotFoundError(name, name={needs!r})\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from catalog_core import Catalog\n"
        f"Catalog.open({url!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=60)
    assert "MissingPlugin" in done.stderr, done.stderr
    assert "pip install 'catalog-core[" in done.stderr
