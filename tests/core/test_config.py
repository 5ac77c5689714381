from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog_core import config, plugins
from catalog_core.errors import ConfigError, NotFound
from catalog_core.specs import BackendSpec

pytestmark = pytest.mark.unit


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    path = tmp_path / "conf" / "catalog.toml"
    path.parent.mkdir()
    monkeypatch.setenv("CATALOG_CONFIG", str(path))
    monkeypatch.delenv("CATALOG", raising=False)

    def _write(text: str) -> Path:
        path.write_text(text, encoding="utf-8")
        return path

    return _write


@pytest.mark.parametrize(
    "text",
    [
        "catalogs = 3",
        '[catalogs.x]\nurl = "file:///a"',
        "[catalogs.ab]\nurl = 3",
        "[catalogs]\nab = 3",
        "default = 3",
        "other = 1",
        "not toml",
    ],
)
def test_errors_are_config_errors_that_name_the_file(write, text: str) -> None:  # type: ignore[no-untyped-def]
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        config.settings()
    assert str(path) in caught.value.message


@pytest.mark.parametrize("key", ["password", "auth_token", "apiKey", "secret_key", "credentials", "key"])
def test_secrets_are_refused(write, key: str) -> None:  # type: ignore[no-untyped-def]
    write(f'[catalogs.ab]\nurl = "file:///a"\n{key} = "x"')
    with pytest.raises(ConfigError, match=key):
        config.settings()


@pytest.mark.parametrize("key", ["keyring", "tokenizer", "monkey", "key_file", "keyboard"])
def test_words_that_only_look_like_secrets_are_allowed(write, key: str) -> None:  # type: ignore[no-untyped-def]
    write(f'[catalogs.ab]\nurl = "file:///a"\n{key} = "x"')
    assert dict(config.settings().catalogs["ab"].options) == {key: "x"}


@pytest.mark.parametrize("default", ["./models", "file://models", "file://./models"])
def test_a_relative_default_stands_beside_its_file(write, default: str) -> None:  # type: ignore[no-untyped-def]
    path = write(f'default = "{default}"')
    assert config.resolve(None).url.partition("://")[2] == str(path.parent.resolve() / "models")


def test_a_relative_url_is_a_path_where_the_backend_says_so(  # type: ignore[no-untyped-def]
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, local in (("rows", True), ("bucket", False)):
        monkeypatch.setitem(plugins.registry().backends, name, BackendSpec(name, (name,), "m:f", local=local))
    path = write('[catalogs.ab]\nurl = "rows://b.log"\n[catalogs.cd]\nurl = "bucket://b/c"')
    assert config.resolve("ab").url == f"rows://{path.parent.resolve()}/b.log"
    monkeypatch.chdir(tmp_path)
    assert config.resolve("rows://b.log").url == f"rows://{tmp_path.resolve()}/b.log"
    assert config.resolve("cd").url == config.resolve("bucket://b/c").url == "bucket://b/c"


@pytest.mark.parametrize("url", ["logfile:b.log", "file:/srv/models", "sqlite:models"])
def test_a_scheme_without_its_slashes_is_no_folder(write, url: str) -> None:  # type: ignore[no-untyped-def]
    wanted = url.replace(":", "://", 1)
    path = write(f'[catalogs.ab]\nurl = "{url}"')
    with pytest.raises(ConfigError, match="neither a URL nor a folder") as caught:
        config.settings()
    assert str(path) in caught.value.message and wanted in (caught.value.hint or "")
    write("")
    with pytest.raises(NotFound) as missing:
        config.resolve(url)
    assert wanted in (missing.value.hint or "")
    write(f'[catalogs.ab]\nurl = "./{url}"')
    assert config.resolve("ab").url.endswith(url)


def test_the_file_is_utf8_in_every_locale(write) -> None:  # type: ignore[no-untyped-def]
    write('[catalogs.ab]\nurl = "file:///müll"')
    code = "from catalog_core import config; print(ascii(config.resolve('ab').url))"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ascii("file:///müll")
