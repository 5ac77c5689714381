"""Secrets: one scrubber for command lines, provenance, addresses, messages and what is shown."""

from __future__ import annotations

import inspect
import json
import os
import random
import string
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog_core import Catalog, about, capture, config, redact
from catalog_core.draft import _flat
from catalog_core.errors import BackendError, CatalogError, ConfigError, InvalidInput
from catalog_core.secret_shapes import looks_secret, secret_name
from catalog_core.testing.memory import memory_catalog

pytestmark = pytest.mark.unit
S = "hunter2"
OFFLINE = {"CATALOG_OFFLINE": "1"}


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with memory_catalog() as made:
        yield made


def tokens() -> list[str]:
    """Tokens as services make them."""
    chance = random.Random(7)
    letters = string.ascii_letters + string.digits

    def word(size: int, of: str = letters) -> str:
        return "".join(chance.choices(of, k=size))

    return [
        f"hf_{word(34)}",
        f"ghp_{word(36)}",
        f"gho_{word(36)}",
        f"github_pat_{word(22)}_{word(59)}",
        f"glpat-{word(20)}",
        f"xoxb-{word(11, string.digits)}-{word(24)}",
        f"sk-{word(48)}",
        f"sk_live_{word(24)}",
        f"AKIA{word(16, string.ascii_uppercase + string.digits)}",
        f"AIza{word(35)}",
        f"ya29.{word(60)}",
        f"eyJ{word(30)}.eyJ{word(60)}.{word(43)}",
        f"npm_{word(36)}",
        f"pypi-{word(80)}",
        f"dapi{word(32, '0123456789abcdef')}",
        word(40),
        word(64),
        word(40, letters + "+/"),
        word(43, letters + "-_"),
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        *(word(32) for _ in range(20)),
    ]


SECRETS = [
    (["-p", S], S),
    (["-p" + S], S),
    (["-p", "123456"], "123456"),
    (["--auth", S], S),
    (["--pwd", S], S),
    (["--pwd=" + S], S),
    (["-u", f"alice:{S}"], S),
    ([f"+trainer.token={S}"], S),
    ([f"++wandb.api_key={S}"], S),
    ([f"~x.secret={S}"], S),
    ([f"TOKEN={S}", "train.py"], S),
    (["--config", json.dumps({"db": {"password": S}, "lr": 0.1})], S),
    ([json.dumps({"token": S})], S),
    ([json.dumps([{"auth": S}])], S),
    (["-H", f"Authorization: Bearer {S}"], S),
    (["-H", f"X-Api-Key: {S}"], S),
    (["--header", f"Cookie: a={S}"], S),
    (["--url", f"https://h/x?sig={S}&v=1"], S),
    (["--url", f"https://h/x?token={S}"], S),
    ([f"https://alice:{S}@h/x"], S),
    ([f"https://h/x#access_token={S}"], S),
    ([f"postgresql://alice:{S}@db/x"], S),
    ([f"redis://:{S}@h:6379/0"], S),
    (["--conn", f"Server=h;Password={S}"], S),
    (["--user", S], S),
    (["login", S], S),
    ([S], S),
    (["--magic", S], S),
    (["-k", S], S),
    (["-e", f"PASSWORD={S}"], S),
    (["--env", f"HF_TOKEN={S}"], S),
    (["--param", f"api_key={S}"], S),
    (["--set", f"a.password={S}"], S),
    (["--passphrase", S], S),
    (["--client-secret", S], S),
    (["--private-key", S], S),
    (["--storage-account-key", S], S),
    (["--apiKey", S], S),
    (["--accessToken", S], S),
    (["--sas", S], S),
    (["--cookie", S], S),
    (["--dsn", S], S),
    (["-c", f"login('{S}')"], S),
    (["--", S], S),
    (["--password", f"--{S}"], S),
    (["--token", "512"], "512"),
    ([f"[a,{S}]"], S),
    (["--list", f"[{S},b]"], S),
    ([f"x={{token: {S}}}"], S),
    (["--key", S], S),
    ([f"--{S}={S}-x"], S + "-x"),
    (["--netrc", f"machine h login a password {S}"], S),
    ([f"s3://KEY:{S}@bucket/x"], S),
    ([f"https://u:p/{S}@h/x"], S),
    (["--url", f"https://objectstorage.eu/p/{S}{S}/n/ns/b/x/o/y"], S + S),
    (["--hook", f"https://hooks.slack.com/services/T0/B0/{S}"], S),
]


@pytest.mark.parametrize(
    ("given", "secret"), SECRETS, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else ""
)
def test_no_secret_of_a_command_line_is_recorded(given: list[str], secret: str) -> None:
    kept = redact.command(given)
    if not given[0].startswith(f"--{S}"):
        assert secret not in " ".join(kept), kept
    assert redact.MASK in " ".join(kept) or "://" in given[-1]  # of an address, the user is left out


@pytest.mark.parametrize("token", tokens())
def test_tokens_are_masked_by_their_shape_wherever_they_stand(token: str) -> None:
    for given in (
        [token],
        ["--model", token],
        [f"--model={token}"],
        [f"model={token}"],
        ["--path", f"a/{token}"],
        [f"./{token}"],
        [json.dumps({"model": token})],
        [f"https://h/{token.replace('/', '%2F')}/x"],
        [f"--{token}"],
    ):
        kept = " ".join(redact.command(given))
        assert token not in kept and redact.MASK in kept, given


HARMLESS = [
    ["train.py", "--lr", "0.1", "--epochs=3", "--optimizer", "adam", "data/train.h5"],
    ["--learning-rate", "1e-3", "-v", "-n", "4", "--batch_size", "256", "--seed", "-1"],
    ["model=resnet50", "optimizer.lr=3e-4", "+trainer.max_epochs=10", "trainer.devices=[0,1]", "model.layers=[64,32]"],
    ["-m", "package.module", "--config", "conf/exp.yaml", "--dtype", "bfloat16", "--device", "cuda"],
    [
        "--max-tokens",
        "512",
        "--num-tokens=100",
        "--pad_token_id",
        "0",
        "--key-dim",
        "64",
        "--tokenizer-path",
        "./tok.json",
    ],
    ["--data", "https://opendata.cern.ch/record/1?version=2", "--revision", "0123456789abcdef0123456789abcdef01234567"],
    ["--config", '{"lr": 0.1, "optimizer": "adam", "layers": [64, 32]}', "--param", "lr=0.1", "-P", "lr=0.1"],
    [
        "save",
        "--model",
        "calo/3dgan",
        "--flag",
        "--tag",
        "run-12",
        "true",
        "root://eospublic.cern.ch//eos/x.root",
        "train",
    ],
    ["oci://models@openlab/prod", "--lr=.5", "--gamma", "+1.5", "-lr", "0.1", "--amp", "False", "--size", "20GB"],
]


@pytest.mark.parametrize("given", HARMLESS, ids=lambda given: " ".join(given)[:50])
def test_what_is_known_to_be_harmless_stays_readable(given: list[str]) -> None:
    assert redact.command(given) == given


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://u:p@ss@host/x", "https://host/x"),
        ("s3://KEY:SECRET@bucket/a b", "s3://bucket/a b"),
        ("oci://models@openlab/prod", "oci://models@openlab/prod"),
        ("oci://user:pw@models/prod", "oci://models/prod"),
        ("git@host:group/x.git", "git@host:group/x.git"),
        ("https://host:8443/x@y?rev=main", "https://host:8443/x@y?rev=main"),
        ("https://h/x?X-Amz-Signature=abc&versionId=3", "https://h/x?X-Amz-Signature=***&versionId=3"),
        ("https://h?sig=abc", "https://h?sig=***"),
        ("see https://u:p@h/x, or s3://a:b@c", "see https://h/x, or s3://c"),
        ("Authorization: Basic YWxpY2U6aHVudGVyMg==", "Authorization: ***"),
        ('{"token": "x", "lr": 1}', '{"token": "***", "lr": 1}'),
        ("{'api_key': 'x'}", "{'api_key': '***'}"),
        ("password=x;user=y", "password=***;user=y"),
        ("Password: x", "Password: ***"),
        ("python train.py --password x --lr 0.1", "python train.py --password *** --lr 0.1"),
        ("run --token 'a b' --max-tokens 5 -v", "run --token *** --max-tokens 5 -v"),
        ("no token: it ended; the key of a - b", "no token: it ended; the key of a - b"),
        ("max_tokens=5 key=3 sort_key=a", "max_tokens=5 key=3 sort_key=a"),
        ("nothing here: 12:30, a=b", "nothing here: 12:30, a=b"),
        ("sha256:" + "0a" * 32, "sha256:" + "0a" * 32),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "***"),
    ],
)
def test_texts_lose_their_secrets_only(given: str, kept: str) -> None:
    assert redact.text(given) == kept
    assert redact.text(kept) == kept  # nothing is taken twice


def test_trees_lose_their_secrets_at_any_depth() -> None:
    given = {
        "tags": [{"key": "api_key", "value": S}, {"key": "lr", "value": 0.1}, {"name": "token", "value": [S]}],
        "auth": {"user": S, "more": [S, {"x": S}]}, "max_tokens": 5, "token": None, "password": "",
        "on": {"secret": True}, "command": ["train.py", "--auth", S], "deep": [[{"a": {"client_secret": S}}]],
    }  # fmt: skip
    found = redact.tree(given)
    assert S not in json.dumps(found)
    assert found["tags"][1] == {"key": "lr", "value": 0.1} and found["max_tokens"] == 5 and found["token"] is None
    assert S in json.dumps(given)  # what was given is as it was


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "api_key",
        "apiKey",
        "trainer.token",
        "HF_TOKEN",
        "--db-password",
        "AWS_SECRET_ACCESS_KEY",
        "client_secret",
        "key",
        "private-key",
        "dbPasswd",
        "Authorization",
        "smtp_pass",
        "credentials",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_tokens",
        "pad_token_id",
        "tokenizer",
        "token_file",
        "sort_key",
        "key_dim",
        "num_keys",
        "author",
        "keyring",
        "passes",
        "lr",
        "monkey",
        "bypass",
        "signature",
        "key_file",
        "pad_token",
        "token_pattern",
        "vectorizer__token_pattern",
    ],
)
def test_names_that_only_sound_like_it(name: str) -> None:
    assert not secret_name(name)


def test_parameters_that_are_read_from_an_object_hold_no_secrets() -> None:
    """An estimator that asks a service has its key among its parameters: nobody asked to publish them."""
    given = {
        "api_token": "hunter2", "model__openai_key": "hunter2", "base_url": "https://u:hunter2@host/v1",
        "key": "hunter2", "headers": "Authorization: Bearer hunter2", "note": "sk-hunter2abcdefghij",
        "token_pattern": r"(?u)\b\w\w+\b",
        "max_tokens": 5, "warm_start": True, "kernel": "rbf", "alpha": 0.5,
    }  # fmt: skip
    found = _flat(given)
    assert found.keys() == given.keys() and "hunter2" not in str(found)
    assert {key: found[key] for key in list(given)[6:]} == {key: given[key] for key in list(given)[6:]}


def test_the_parameters_of_public_estimators_are_no_secrets() -> None:
    pytest.importorskip("sklearn")
    from sklearn.utils import all_estimators

    names = [name for _, kind in all_estimators() for name in inspect.signature(kind.__init__).parameters]
    assert len(names) > 1000 and not [name for name in names if secret_name(name)]


@pytest.mark.parametrize(
    "word",
    [
        "resnet50",
        "ResNet50-ImageNet1K_V2",
        "conv2d_backprop_filter",
        "20240131T120000Z",
        "mlp-mixer-b16-224",
        "7f3e2a10-1c2d-4e5f-8a9b-0c1d2e3f4a5b",
        "sha256:" + "ab" * 32,
        "0123456789abcdef" * 2,
        "ocid1.datasciencemodel.oc1.eu-frankfurt-1.amaaaaaa7kx3q2d4bhz5",
        "EfficientNetV2",
        "vit_base_patch16_224",
        "BatchNormalization",
        "checkpoint-1000000",
        "Llama-3.1-8B-Instruct",
        "bert-base-uncased",
    ],
)
def test_names_of_models_and_ids_are_no_tokens(word: str) -> None:
    assert not looks_secret(word)


# -- the places --------------------------------------------------------------------------------------------------------


def stored(catalog: Catalog, ref: str) -> str:
    """All that is written of a version: its manifest, and every entry of the journal."""
    version = catalog.version(ref)
    manifest = catalog.repository.content.blob(version.digest, "manifest").decode()
    return manifest + repr(catalog.history(version.model)) + repr(version) + repr(version.params) + repr(version.tags)


def test_nothing_secret_lands_in_a_version(catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tokens()[0]
    monkeypatch.setattr(sys, "argv", ["train.py", "--token", S, "-p", S, "--lr", "0.1", token])
    monkeypatch.setenv("MLFLOW_RUN_ID", f"https://alice:{S}@mlflow/1")
    monkeypatch.chdir(tmp_path)
    capture._provenance.clear()
    catalog.save(
        "m",
        {"w": np.zeros(2)},
        run=f"https://h/r?token={S}",
        datasets={"a": f"s3://KEY:{S}@b/x", "b": {"reference": f"https://h/x?sig={S}", "description": f"password={S}"}},
    )
    told = catalog.version("m").manifest.provenance
    assert told["command"] == ["train.py", "--token", "***", "-p", "***", "--lr", "0.1", "***"]
    assert told["datasets"]["a"]["reference"] == "s3://b/x"
    catalog.save(
        "n",
        {"w": np.ones(2)},
        provenance={"tracker": {"api_key": S, "command": ["x", "--pwd", S], "url": f"http://u:{S}@h"}},
    )
    for ref in ("m", "n"):
        assert S not in stored(catalog, ref) and token not in stored(catalog, ref)


def test_capture_can_be_turned_off(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_CAPTURE", "none")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    version = catalog.save("m", {"w": np.zeros(2)}, seed=3, run="mine")
    found = version.manifest.provenance
    assert (found["git"], found["script"], found["command"]) == (None, None, [])
    assert (found["run"], found["seed"]) == ({"id": "mine"}, 3)  # what was given stays
    monkeypatch.setenv("CATALOG_CAPTURE", "some")
    with pytest.raises(ConfigError, match="CATALOG_CAPTURE is 'some'"):
        catalog.save("m", {"w": np.ones(2)})
    with pytest.raises(ConfigError):
        about.training(None, None, None)


@pytest.mark.parametrize("kind", [CatalogError, InvalidInput, BackendError, ConfigError])
def test_messages_name_no_secret(kind: type[CatalogError]) -> None:
    error = kind(f"s3://KEY:{S}@bucket: 403 for https://h/x?sig={S}", hint=f"curl -H 'Authorization: Bearer {S}'")
    assert S not in str(error) and S not in repr(error) and S not in error.message and S not in str(error.hint)
    assert "bucket" in error.message


def test_catalogs_and_targets_show_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "catalog.toml").write_text(f'default = "x1"\n[catalogs.x1]\nurl = "s3://KEY:{S}@bucket/x"\n')
    monkeypatch.chdir(tmp_path)
    for arguments in (["config"], ["config", "--json"], ["list"], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "catalog_cli", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **OFFLINE},
        )
        assert S not in done.stdout + done.stderr, arguments
        assert ("bucket" in done.stdout) is (arguments[0] == "config")
    target = config.resolve("x1")
    assert S not in repr(target) and S in target.url
    assert S not in repr(config.Target("x", "u://h", {"token": S, "region": "eu"}))


def test_what_trackers_say_is_scrubbed(catalog: Catalog, tmp_path: Path) -> None:
    from catalog_core.tensors import FILE

    version = catalog.save("m", {"w": np.zeros(2)})
    catalog.download(version, tmp_path / "mlflow")
    (tmp_path / "mlflow" / "MLmodel").write_text(
        f"run_id: abc\nflavors:\n  python_function:\n    data: {FILE}\n    env: {{PASSWORD: {S}}}\n"
        f"metadata:\n  repo: https://bob:{S}@h/x\n  api_key: {S}\n  max_tokens: 5\nparams:\n  token: {S}\n  lr: 0.1\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (found,) = catalog.import_(tmp_path / "mlflow", "k", format="mlflow")
    assert S not in stored(catalog, "k")
    assert found.params["lr"] == 0.1 and found.tags["max_tokens"] == 5


def test_exports_scrub_what_earlier_releases_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from catalog_oracle.taxonomy import provenance_to_oci

    old: dict[str, Any] = {"git": {"url": f"https://u:{S}@h/x", "branch": "main"}}
    assert provenance_to_oci(old) == {"repository_url": "https://h/x", "git_branch": "main"}
