"""Publishing to OCI Data Science while answers are lost, processes die, rights lack and others interfere: whatever
happens, publishing again makes it whole, and never makes a second model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oci_datascience_catalog
import oci_server
import pytest
from oci_datascience_catalog import PLACE, calm, here, login, opened, run, saved
from oci_datascience_server import COMPARTMENT, PROJECT, DataScienceServer

import catalog_oci_datascience as ods
from catalog_core import Catalog
from catalog_core.errors import (
    BackendError,
    CatalogError,
    ConfigError,
    DeadlineExceeded,
    IntegrityError,
    NoSpace,
    NotFound,
    NotTrusted,
)
from catalog_oci_datascience import archive
from catalog_oci_datascience.options import Options
from catalog_oci_datascience.publishing import note_of
from catalog_oci_datascience.service import Service

pytestmark = pytest.mark.server


running = pytest.fixture(scope="module")(run)
server = pytest.fixture(calm)
options = pytest.fixture(login)
catalog = pytest.fixture(here)


def publish(catalog: Catalog, options: Options, **more: Any) -> ods.Published:
    return ods.publish(catalog.version("calo/gan"), options=options, **PLACE, **more)


def alive(server: DataScienceServer) -> list[str]:
    return [ocid for ocid, model in server.catalog.models.items() if model["lifecycleState"] != "DELETED"]


def whole(server: DataScienceServer, catalog: Catalog, ocid: str) -> None:
    """One model, with its provenance and the bytes that its record promises, noted at the version."""
    assert alive(server) == [ocid]
    model = server.catalog.models[ocid]
    promised = {item["key"]: item["value"] for item in model["customMetadataList"]}
    headers, data = server.catalog.artifacts[ocid]
    assert promised["CatalogArtifactSize"] == str(len(data))
    assert promised["CatalogArtifactMD5"] == headers["content-md5"]
    assert server.catalog.provenance[ocid] == {"trainingScript": "train.py"}
    assert catalog.version("calo/gan").tags[note_of(COMPARTMENT, PROJECT)] == ocid


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ answers that are lost


@pytest.mark.parametrize("fault", ["after", "drop", "429", "500", "503"])
@pytest.mark.parametrize("what", ["/models$", "/provenance$", "/artifact$", "/modelVersionSets$", "/artifact/content"])
def test_a_call_that_fails_once_or_whose_answer_is_lost_is_made_good(
    server: DataScienceServer, catalog: Catalog, options: Options, fault: str, what: str
) -> None:
    saved(catalog)
    method = "HEAD" if what == "/artifact/content" else "POST"
    server.fault({"fault": fault, "times": 1, "path": what, "method": method})
    done = publish(catalog, options, version_set="gan")
    assert server.control()["faults"] == []
    whole(server, catalog, done.ocid)
    assert len(server.catalog.sets) == 1


def test_an_artifact_that_arrived_is_not_sent_again_for_a_lost_answer(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    saved(catalog)
    server.fault({"fault": "after", "path": "/artifact$", "method": "POST"})
    whole(server, catalog, publish(catalog, options).ocid)
    assert server.control()["requests"]["begun artifact"] == 1


def test_publishing_goes_on_through_a_storm(server: DataScienceServer, catalog: Catalog, options: Options) -> None:
    saved(catalog, size=100_000)
    patient = Options(**server.login(deadline=60.0))
    server.fault(
        {"fault": "after", "times": -1, "chance": 0.2}, {"fault": "429", "times": -1, "chance": 0.1},
        {"fault": "drop", "times": -1, "chance": 0.1}, {"fault": "503", "times": -1, "chance": 0.1},
    )  # fmt: skip
    done = publish(catalog, patient, version_set="gan")
    server.fault()
    whole(server, catalog, done.ocid)
    assert publish(catalog, patient).ocid == done.ocid


def test_a_service_that_keeps_refusing_is_given_up_and_then_gone_on_with(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    saved(catalog)
    hasty = Options(**server.login(deadline=0.5))
    server.fault({"fault": "429", "times": -1, "path": "/artifact$", "method": "POST"})
    with pytest.raises(DeadlineExceeded, match=r"kept refusing for 0\.5 s \(429 TooManyRequests"):
        publish(catalog, hasty)
    assert len(alive(server)) == 1
    server.fault()
    whole(server, catalog, publish(catalog, options).ocid)


def test_no_answer_at_all(server: DataScienceServer, catalog: Catalog) -> None:
    saved(catalog)
    nowhere = Options(**server.login(deadline=0.5, endpoint="http://127.0.0.1:9"))
    with pytest.raises(DeadlineExceeded, match=r"no answer from http://127\.0\.0\.1:9"):
        publish(catalog, nowhere)


def test_every_call_may_be_the_last_one(server: DataScienceServer, catalog: Catalog, options: Options) -> None:
    """Given up after each call in turn, with and without its effect; the next try completes it."""
    hasty = Options(**server.login(deadline=0.05))
    for fault in ("drop", "after"):
        for count in range(30):
            server.calm()
            catalog.version(saved(catalog).ref)
            server.fault({"fault": fault, "times": -1, "path": "20190101", "skip": count})
            try:
                publish(catalog, hasty, version_set="gan")
                break
            except DeadlineExceeded:
                pass
            server.fault()
            assert len(alive(server)) <= 1
            whole(server, catalog, publish(catalog, options, version_set="gan").ocid)
            assert len(server.catalog.sets) == 1
        else:
            pytest.fail("it needs more than thirty calls")
        assert count > 8
        server.fault()


# ------------------------------------------------------------------------------------------------- processes that die


def spawn(server: DataScienceServer, folder: Path) -> subprocess.Popen[bytes]:
    login, place = json.dumps(server.login()), json.dumps(PLACE)
    command = [sys.executable, oci_datascience_catalog.__file__, str(folder), "calo/gan@1", login, place]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, env=environment)


def test_a_process_that_is_killed_while_it_uploads_leaves_one_model_that_the_next_one_completes(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    saved(catalog, size=1 << 20)
    server.control(settings={"slow": 0.2})
    worker = spawn(server, tmp_path / "catalog")
    wait_for(lambda: server.control()["requests"].get("begun artifact") or worker.poll() is not None)
    worker.kill()
    assert worker.wait() == -9
    wait_for(lambda: server.control()["requests"].get("broken artifact"))
    assert len(alive(server)) == 1
    assert server.catalog.artifacts == {}
    assert note_of(COMPARTMENT, PROJECT) not in catalog.version("calo/gan").tags
    server.control(settings={"slow": 0.0})
    whole(server, catalog, publish(catalog, options).ocid)


@pytest.mark.parametrize(
    ("what", "arrived"),
    [
        ({"path": "/provenance$", "method": "POST"}, False),  # the model is made, and nothing else
        ({"path": "/artifact/content", "method": "HEAD"}, False),  # and its provenance
        (
            {"path": "/artifact/content", "method": "HEAD", "skip": 1},
            True,
        ),  # and its artifact; the version notes nothing
    ],
    ids=["made", "told", "sent"],
)
def test_a_process_that_is_killed_between_its_calls_leaves_one_model_that_the_next_one_completes(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path, what: dict[str, Any], arrived: bool
) -> None:
    saved(catalog, size=1 << 16)
    server.fault({"fault": "hang", "rate": 5.0, "times": 1, **what})
    worker = spawn(server, tmp_path / "catalog")
    wait_for(lambda: not server.control()["faults"] or worker.poll() is not None)
    worker.kill()
    assert worker.wait() == -9
    (ocid,) = alive(server)
    assert list(server.catalog.artifacts) == ([ocid] if arrived else [])
    assert note_of(COMPARTMENT, PROJECT) not in catalog.version("calo/gan").tags
    done = publish(catalog, options)
    assert (done.ocid, done.how) == (ocid, "was there" if arrived else "directly")
    whole(server, catalog, ocid)


def test_two_processes_one_of_which_is_killed(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    saved(catalog, size=1 << 19)
    server.control(settings={"slow": 0.05})
    workers = [spawn(server, tmp_path / "catalog") for _ in range(2)]
    wait_for(lambda: server.control()["requests"].get("begun artifact") or workers[0].poll() is not None)
    workers[0].kill()
    assert workers[1].wait(60) == 0
    workers[0].wait()
    server.control(settings={"slow": 0.0})
    whole(server, catalog, publish(catalog, options).ocid)


def test_who_was_cut_off_by_another_release_does_not_hinder(
    server: DataScienceServer, catalog: Catalog, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact is written otherwise now: the record of the model must promise the new one."""
    saved(catalog)
    server.fault({"fault": "429", "times": -1, "path": "/artifact$", "method": "POST"})
    with pytest.raises(DeadlineExceeded):
        publish(catalog, Options(**server.login(deadline=0.3)))
    server.fault()
    monkeypatch.setattr(oci_datascience_catalog, "SCORE", "# a newer release\n")
    done = publish(catalog, options)
    assert done.how == "directly"
    whole(server, catalog, done.ocid)


# ---------------------------------------------------------------------------------------------------- who may do what


def test_an_expired_session_is_said_before_anything_is_done(server: DataScienceServer, catalog: Catalog) -> None:
    saved(catalog)
    with pytest.raises(ConfigError, match="session token of profile 'EXPIRED' expired at"):
        publish(catalog, Options(**server.login("EXPIRED")))
    assert server.catalog.models == {}


def test_a_token_that_ends_meanwhile_is_read_anew_from_its_file(
    server: DataScienceServer, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(catalog)
    path = server.run / "token.token"
    old = path.read_text()
    user = server.catalog.state.users[f"ST${old}"]
    create = Service.create

    def renewed(*given: Any) -> Any:
        fresh = oci_server.token(time.time() + 3600)
        server.catalog.state.users[f"ST${fresh}"] = {**user, "key_id": f"ST${fresh}", "expires": time.time() + 3600}
        path.write_text(fresh)
        monkeypatch.setitem(user, "expires", 0.0)
        return create(*given)

    monkeypatch.setattr(Service, "create", renewed)
    try:
        done = publish(catalog, Options(**server.login("TOKEN")))
    finally:
        path.write_text(old)
    assert user["expires"] == 0
    whole(server, catalog, done.ocid)


def test_a_token_that_is_refused_is_said_once_and_not_shown(
    server: DataScienceServer, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(catalog)
    token = (server.run / "token.token").read_text()
    monkeypatch.setitem(server.catalog.state.users[f"ST${token}"], "expires", 0.0)
    with pytest.raises(BackendError, match="does not accept the signature of profile 'TOKEN'") as caught:
        publish(catalog, Options(**server.login("TOKEN")))
    told = "".join(traceback.format_exception(caught.value))
    assert token not in told
    assert "PRIVATE KEY" not in told
    assert server.catalog.models == {}


@pytest.mark.parametrize(
    ("profile", "kind", "message"),
    [
        ("STRANGER", BackendError, "does not accept the signature of profile 'STRANGER'"),
        ("MISSING", ConfigError, "key file of profile 'MISSING'"),
        ("NOBODY", ConfigError, "has no profile 'NOBODY'"),
        ("READER", NotFound, "creating a model in compartment .* or this user may not do it"),
    ],
)
def test_who_may_not_publish_is_told_so(
    server: DataScienceServer, catalog: Catalog, profile: str, kind: type[CatalogError], message: str
) -> None:
    saved(catalog)
    with pytest.raises(kind, match=message) as caught:
        publish(catalog, Options(**server.login(profile)))
    assert caught.value.hint
    assert server.catalog.models == {}


@pytest.mark.parametrize("what", ["compartment", "project"])
def test_a_wrong_compartment_or_project_is_named(
    server: DataScienceServer, catalog: Catalog, options: Options, what: str
) -> None:
    wrong = {**PLACE, what: PLACE[what] + "x"}
    with pytest.raises(NotFound, match=f"{wrong[what]}.*404 NotAuthorizedOrNotFound, opc-request-id"):
        ods.publish(saved(catalog), options=options, **wrong)
    assert server.catalog.models == {}


def test_a_limit_that_is_reached_leaves_nothing_and_may_be_raised(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    saved(catalog)
    server.control(settings={"models": 0})
    with pytest.raises(NoSpace, match=r"limit is used up \(400 LimitExceeded"):
        publish(catalog, options)
    assert server.catalog.models == {}
    server.control(settings={"models": 1})
    whole(server, catalog, publish(catalog, options).ocid)


def test_a_catalog_that_cannot_be_written_is_published_from(
    server: DataScienceServer, catalog: Catalog, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = saved(catalog)
    monkeypatch.setattr(type(catalog), "writable", property(lambda self: False))
    done = ods.publish(version, options=options, **PLACE)
    assert done.notes == ("here cannot be written: the version does not note its model",)
    assert ods.publish(version, options=options, **PLACE).ocid == done.ocid


# --------------------------------------------------------------------------------------------------- bytes that differ


def test_bytes_that_change_on_the_way_are_noticed(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    saved(catalog)
    server.fault({"fault": "corrupt", "path": "/artifact$", "method": "POST"})
    with pytest.raises(IntegrityError, match=r"is not the one that was published.*delete that model"):
        publish(catalog, options)
    assert note_of(COMPARTMENT, PROJECT) not in catalog.version("calo/gan").tags
    (bad,) = alive(server)
    with pytest.raises(IntegrityError):  # and it stays so, until somebody removes it
        publish(catalog, options)
    assert alive(server) == [bad]
    server.catalog.models[bad]["lifecycleState"] = "DELETED"
    del server.catalog.artifacts[bad]
    whole(server, catalog, publish(catalog, options).ocid)


@pytest.mark.parametrize("data", [b"another artifact", b""])
def test_an_artifact_that_was_replaced_is_noticed(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path, data: bytes
) -> None:
    saved(catalog)
    done = publish(catalog, options)
    server.replace(done.ocid, data)
    with pytest.raises(IntegrityError, match="is not the one that was published"):
        publish(catalog, options)
    with opened(tmp_path / "other") as there:
        with pytest.raises(IntegrityError, match="is damaged or was changed"):
            ods.pull(there, done.ocid, options=options)
        assert len(there.models()) == 0


def test_one_changed_byte_is_noticed_though_size_and_reported_checksum_are_right(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    saved(catalog)
    done = publish(catalog, options)
    headers, data = server.catalog.artifacts[done.ocid]
    server.catalog.artifacts[done.ocid] = (headers, data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
    with opened(tmp_path / "other") as there, pytest.raises(IntegrityError, match="is damaged or was changed"):
        ods.pull(there, done.ocid, options=options)


def test_a_download_that_breaks_off_is_tried_again(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalog_oci_datascience.service.PIECE", 10_000)
    saved(catalog, size=20_000)
    done = publish(catalog, options)
    server.fault({"fault": "short", "times": 3, "path": "/content", "method": "GET"}, {"fault": "503", "method": "GET"})
    with opened(tmp_path / "other") as there:
        version = ods.pull(there, done.ocid, options=options)
        np.testing.assert_array_equal(version.load()["w"], np.arange(20_000, dtype=np.float32))
    assert server.control()["faults"] == []


def test_a_model_without_an_artifact_is_not_pulled(
    server: DataScienceServer, catalog: Catalog, options: Options, tmp_path: Path
) -> None:
    saved(catalog)
    done = publish(catalog, options)
    del server.catalog.artifacts[done.ocid]
    with opened(tmp_path / "other") as there, pytest.raises(NotFound, match="has no artifact"):
        ods.pull(there, done.ocid, options=options)
    whole(server, catalog, publish(catalog, options).ocid)  # and publishing again mends it


# ------------------------------------------------------------------------------------------------- models that vanish


@pytest.mark.parametrize("replay", ["invalidated", "as it is"])
def test_a_model_that_is_deleted_while_it_is_uploaded(
    server: DataScienceServer, catalog: Catalog, options: Options, replay: str
) -> None:
    saved(catalog, size=1 << 18)
    server.control(settings={"slow": 0.05, "replay": replay})
    errors: list[BaseException] = []

    def work() -> None:
        try:
            publish(opened(Path(catalog.url.partition("://")[2])), options)
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(lambda: server.control()["requests"].get("begun artifact") or errors)
    for model in server.catalog.models.values():
        model["lifecycleState"] = "DELETED"
    thread.join()
    (error,) = errors
    assert isinstance(error, NotFound)
    assert "the model is not there any more" in str(error) and "publish again" in str(error)
    server.control(settings={"slow": 0.0})
    whole(server, catalog, publish(catalog, options).ocid)
    assert len(server.catalog.models) == 2


@pytest.mark.parametrize("replay", ["invalidated", "as it is"])
def test_what_was_deleted_can_be_published_again_and_again(
    server: DataScienceServer, catalog: Catalog, options: Options, replay: str
) -> None:
    saved(catalog)
    server.control(settings={"replay": replay})
    seen = set()
    for _ in range(4):
        done = publish(catalog, options)
        whole(server, catalog, done.ocid)
        seen.add(done.ocid)
        server.catalog.models[done.ocid]["lifecycleState"] = "DELETED"
        del server.catalog.artifacts[done.ocid]
    assert len(seen) == 4


def test_a_deactivated_model_is_not_made_anew(server: DataScienceServer, catalog: Catalog, options: Options) -> None:
    saved(catalog)
    done = publish(catalog, options)
    server.catalog.models[done.ocid]["lifecycleState"] = "INACTIVE"
    catalog.version("calo/gan").untag(note_of(COMPARTMENT, PROJECT))
    assert publish(catalog, options).ocid == done.ocid


def test_a_note_that_points_at_another_model_is_not_believed(
    server: DataScienceServer, catalog: Catalog, options: Options
) -> None:
    other = ods.publish(saved(catalog, "other", 10), options=options, **PLACE)
    saved(catalog).tag(**{note_of(COMPARTMENT, PROJECT): other.ocid})
    done = publish(catalog, options)
    assert done.ocid != other.ocid
    assert catalog.version("calo/gan").tags[note_of(COMPARTMENT, PROJECT)] == done.ocid


# --------------------------------------------------------------------------------------------------- hostile archives


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        for file in sorted(["b", "a", "sub/c"], reverse=name == "two"):
            (tmp_path / name / file).write_text(file)
        time.sleep(0.01)
    first, second = (archive.pack(tmp_path / name, tmp_path / f"{name}.zip") for name in ("one", "two"))
    assert (first.sha256, first.md5, first.size) == (second.sha256, second.md5, second.size)
    archive.unpack(tmp_path / "one.zip", tmp_path / "out")
    assert {name: path.read_text() for name, path in archive.files(tmp_path / "out").items()} == {
        "a": "a", "b": "b", "sub/c": "sub/c",
    }  # fmt: skip


def _zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            made.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../evil", b"", 0o644)], "forbidden name"), ([("/etc/evil", b"", 0o644)], "forbidden name"),
        ([("a/../../evil", b"", 0o644)], "forbidden name"), ([("c:\\evil", b"", 0o644)], "forbidden name"),
        ([("link", b"/etc/passwd", 0o120777)], "is a link"),
        ([("a", b"1", 0o644), ("a", b"2", 0o644)], "is in the artifact twice"),
        ([("a", b"1", 0o644), ("A", b"2", 0o644)], "is in the artifact twice"),
        ([("bomb", b"\0" * 40_000_000, 0o644)], "would grow to more than"),
    ],
)  # fmt: skip
def test_archives_that_would_do_harm_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[tuple[str, bytes, int]], message: str
) -> None:
    monkeypatch.setattr(archive, "SMALL", 1000)
    path = _zip(tmp_path / "a.zip", *members)
    (tmp_path / "in").mkdir()
    with pytest.raises(NotTrusted, match=message):
        archive.unpack(path, tmp_path / "in")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "in"]


@pytest.mark.parametrize("damage", ["no zip", "cut", "flipped", "file and folder"])
def test_damaged_archives_are_refused(tmp_path: Path, damage: str) -> None:
    path = _zip(tmp_path / "a.zip", ("a", b"text " * 1000, 0o644), ("b", b"more", 0o644))
    data = path.read_bytes()
    if damage == "file and folder":
        _zip(path, ("a", b"1", 0o644), ("a/b", b"2", 0o644))
    else:
        path.write_bytes({"no zip": b"hello", "cut": data[:-40], "flipped": data[:45] + b"XX" + data[47:]}[damage])
    with pytest.raises(IntegrityError, match="no zip that can be read"):
        archive.unpack(path, tmp_path / "in")
