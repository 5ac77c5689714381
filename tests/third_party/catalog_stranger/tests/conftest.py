import pytest


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """No file of this user is read or written."""
    monkeypatch.setenv("CATALOG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CATALOG_CONFIG", str(tmp_path / "catalog.toml"))
    monkeypatch.setenv("CATALOG_ACTOR", "stranger@lab")
    monkeypatch.delenv("CATALOG", raising=False)
    (tmp_path / "catalog.toml").write_text("")
