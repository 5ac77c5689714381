"""The model catalog of OCI Data Science (REST 20190101) beside Object Storage, for tests with the real `oci` client.

It follows the documented contract: models, provenance, version sets, artifacts with their headers, work requests for
the ways through a bucket, pages, retry tokens, conditions, error bodies, and the signatures of `oci_server`. What it
knows is in memory. What no public source settles is marked `not settled`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import time
import uuid
from typing import Any

import oci_server
from oci_server import HIDDEN, OCIServer, Refused, b64, stamp

COMPARTMENT = "ocid1.compartment.oc1..test"
PROJECT = "ocid1.datascienceproject.oc1.eu-frankfurt-1.test"
CATEGORIES = ("performance", "training profile", "training and validation datasets", "training environment", "reports",
              "readme", "other")  # fmt: skip
USE_CASES = (
    "binary_classification", "regression", "multinomial_classification", "clustering", "recommender",
    "dimensionality_reduction/representation", "time_series_forecasting", "anomaly_detection", "topic_modeling", "ner",
    "sentiment_analysis", "image_classification", "object_localization", "other",
)  # fmt: skip
SUMMARY = ("compartmentId", "projectId", "id", "displayName", "createdBy", "timeCreated", "lifecycleState",
           "modelVersionSetId", "modelVersionSetName", "versionId", "versionLabel", "category", "isModelByReference",
           "freeformTags", "definedTags")  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "page": 100, "models": 1000, "replay": "invalidated", "work": 2, "work_error": None, "export_md5": "md5",
    "slow": 0.0, "skew": 0.0, "latency": 0.0,
}  # fmt: skip


class Handler(oci_server.Handler):
    server: Server

    def receive(self) -> bool:
        """Artifacts are told of as soon as they begin, and come as slowly as the settings say."""
        st = self.server.state
        if self.command != "POST" or not self.path.endswith("/artifact"):
            return super().receive()
        self.count("begun artifact")
        if self.headers.get("content-length") is None:
            self.answer(411, {}, {"code": "ContentLengthRequired", "message": "no Content-Length"})
            return False
        left, pieces = int(self.headers["content-length"]), []
        while left:
            piece = self.rfile.read1(min(left, 1 << 16))
            if not piece:
                self.count("broken artifact")
                self.close_connection = True
                return False
            pieces.append(piece)
            left -= len(piece)
            time.sleep(st.settings["slow"])
        self.body = b"".join(pieces)
        return True

    def count(self, what: str) -> None:
        st = self.server.state
        with st.lock:
            st.requests[what] = st.requests.get(what, 0) + 1

    def answer(self, status: int, headers: dict[str, str] | None = None, body: Any = None) -> None:
        if not isinstance(body, bytes) or self.fault == "after":
            super().answer(status, headers, body)
            return
        self.start(status, headers or {}, len(body), "application/octet-stream")
        self.wfile.write(body[: len(body) // 2] if self.fault == "short" else body)
        self.wfile.flush()
        if self.fault == "short":
            self.hang_up()

    def route(self) -> tuple[int, dict[str, str], Any]:
        if self.parts[0] != "20190101":
            return super().route()
        writes = self.command in ("POST", "PUT", "DELETE")
        if writes and self.user["rights"] == "read":
            raise Refused(404, "NotAuthorizedOrNotFound", f"Authorization failed {HIDDEN}")
        signed = self.headers.get("x-content-sha256")
        if signed is not None and signed != b64(hashlib.sha256(self.body)):
            raise Refused(401, "NotAuthenticated", "the body is not the one that was signed")
        kind, one = self.parts[1], self.parts[2] if len(self.parts) > 2 else None
        rest = "/".join(self.parts[3:])
        self.count(f"{self.command} {kind}{f'/{rest}' if rest else '/one' if one else ''}")
        ask = {"models": self.models, "modelVersionSets": self.version_sets, "workRequests": self.work_requests}.get(
            kind
        )
        if ask is None:
            raise Refused(404, "NotAuthorizedOrNotFound", "no such path")
        token = self.headers.get("opc-retry-token")
        if self.command != "POST" or token is None:
            return ask(one, rest)
        if len(token) > 64:
            raise Refused(400, "InvalidParameter", "opc-retry-token has more than 64 characters")
        made = (self.user["key_id"], self.path, token)
        digest = hashlib.sha256(self.body).hexdigest()
        before = self.server.tokens.get(made)
        if before is None:
            found = ask(one, rest)
            self.server.tokens[made] = (digest, *found)
            return found
        was, status, headers, body = before
        if was != digest:  # not settled: another body with the same token
            raise Refused(409, "RetryTokenMismatch", "The retry token was used with another request")
        if kind == "models" and one is None and self.server.models[body["id"]]["lifecycleState"] == "DELETED":
            if self.server.state.settings["replay"] == "invalidated":
                raise Refused(409, "InvalidatedRetryToken", "A later operation invalidated the retry token")
            body = self.server.models[body["id"]]
        return status, headers, body

    def page(self, items: list[Any]) -> tuple[int, dict[str, str], Any]:
        limit = min(int(self.query.get("limit", 100)), self.server.state.settings["page"])
        at = int(self.query.get("page", 0))
        more = {"opc-next-page": str(at + limit)} if at + limit < len(items) else {}
        return 200, more, items[at : at + limit]

    def placed(self, facts: dict[str, Any]) -> None:
        if facts.get("compartmentId") != COMPARTMENT or facts.get("projectId", PROJECT) != PROJECT:
            raise Refused(404, "NotAuthorizedOrNotFound", f"The compartment or project was not found {HIDDEN}")

    # ----------------------------------------------------------------------------------------------------- models

    def models(self, one: str | None, rest: str) -> tuple[int, dict[str, str], Any]:
        models = self.server.models
        if one is None and self.command == "GET":
            return self.list_models()
        if one is None:
            return self.create_model(json.loads(self.body))
        model = models.get(one)
        if model is None or (model["lifecycleState"] == "DELETED" and (rest or self.command != "GET")):
            raise Refused(404, "NotAuthorizedOrNotFound", f"The model was not found {HIDDEN}")
        etag = model["etag"]
        if self.headers.get("if-match") not in (None, "*", etag):
            raise Refused(412, "NoEtagMatch", "The etag does not match")
        if rest == "":
            if self.command == "PUT":
                asked = json.loads(self.body)
                self.valid(asked)
                model |= {**asked, "etag": uuid.uuid4().hex}
            elif self.command == "DELETE":
                model |= {"lifecycleState": "DELETED", "etag": uuid.uuid4().hex}
                self.server.artifacts.pop(one, None)
                return 204, {}, None
            return 200, {"etag": model["etag"]}, model
        if rest == "provenance":
            return self.provenance(one)
        if rest == "artifact":
            return self.take_artifact(one)
        if rest == "artifact/content":
            return self.give_artifact(one)
        if rest in ("actions/exportArtifact", "actions/importArtifact"):
            return self.copy_artifact(one, rest == "actions/exportArtifact", json.loads(self.body))
        raise Refused(404, "NotAuthorizedOrNotFound", rest)

    def list_models(self) -> tuple[int, dict[str, str], Any]:
        q = self.query
        if "compartmentId" not in q:
            raise Refused(400, "MissingParameter", "compartmentId")
        self.placed({"compartmentId": q["compartmentId"]})
        names = {"projectId": "projectId", "displayName": "displayName", "lifecycleState": "lifecycleState", "id": "id"}
        found = [
            model
            for model in self.server.models.values()
            if all(model.get(key) == q[name] for name, key in names.items() if name in q)
        ]
        found.sort(key=lambda model: model["timeCreated"], reverse=q.get("sortOrder") == "DESC")
        return self.page([{key: model.get(key) for key in SUMMARY} for model in found])

    def valid(self, asked: dict[str, Any]) -> None:
        no = functools.partial(Refused, 400, "InvalidParameter")
        for name in ("customMetadataList", "definedMetadataList"):
            items = asked.get(name) or []
            if len(json.dumps(items)) > 32_000:
                raise no(f"{name} exceeds 32000 bytes")
            if len({item["key"] for item in items}) != len(items):
                raise no(f"{name} holds a key twice")
            for item in items:
                if len(item["value"]) > 16_000 or len(item.get("description") or "") > 255:
                    raise no(f"{item['key']} is too long")
                category = item.get("category")
                if (category is None) != (name == "definedMetadataList"):
                    raise no(f"{item['key']} has the category {category}")
                if category is not None and category.lower() not in CATEGORIES:
                    raise no(f"{category} is not a category")
                if item["key"] in ("UseCaseType", "useCaseType") and item["value"] not in USE_CASES:
                    raise no(f"{item['value']} is not a use case")
        for name in ("inputSchema", "outputSchema"):
            if len((asked.get(name) or "").encode()) > 32_000:
                raise no(f"{name} exceeds 32000 bytes")
        tags = asked.get("freeformTags") or {}
        if len(tags) > 10 or any(len(value) > 256 for value in tags.values()):
            raise no("freeformTags")

    def create_model(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        self.placed(asked)
        self.valid(asked)
        alive = [model for model in self.server.models.values() if model["lifecycleState"] != "DELETED"]
        if len(alive) >= self.server.state.settings["models"]:
            raise Refused(400, "LimitExceeded", "The service limit of models is reached")
        group = asked.get("modelVersionSetId")
        if group is not None and group not in self.server.sets:
            raise Refused(404, "NotAuthorizedOrNotFound", f"The version set was not found {HIDDEN}")
        ocid = f"ocid1.datasciencemodel.oc1.eu-frankfurt-1.{uuid.uuid4().hex}"
        members = [model for model in self.server.models.values() if model.get("modelVersionSetId") == group]
        model = {
            **asked, "id": ocid, "lifecycleState": "ACTIVE", "timeCreated": stamp(), "etag": uuid.uuid4().hex,
            "createdBy": self.user["key_id"].split("/")[1] if "/" in self.user["key_id"] else "session",
            "category": "USER", "isModelByReference": False, "versionId": len(members) + 1 if group else None,
            "modelVersionSetName": self.server.sets[group]["name"] if group else None,
        }  # fmt: skip
        self.server.models[ocid] = model
        return 200, {"etag": model["etag"]}, dict(model)

    def provenance(self, one: str) -> tuple[int, dict[str, str], Any]:
        known = self.server.provenance
        if self.command == "POST":
            if one in known:
                raise Refused(409, "IncorrectState", "The model has a provenance already")
            known[one] = json.loads(self.body)
        if one not in known:
            raise Refused(404, "NotAuthorizedOrNotFound", "The model has no provenance")
        if self.command == "PUT":
            known[one] = json.loads(self.body)
        return 200, {"etag": "1"}, known[one]

    # -------------------------------------------------------------------------------------------------- artifacts

    def keep(self, one: str, data: bytes, disposition: str | None, md5: str | None) -> None:
        headers = {"etag": uuid.uuid4().hex, "content-disposition": disposition or f"attachment; filename={one}.zip"}
        headers |= {"content-md5": md5} if md5 else {}
        self.server.artifacts[one] = (headers, data)

    def take_artifact(self, one: str) -> tuple[int, dict[str, str], Any]:
        if one in self.server.artifacts:  # documented as immutable; not settled: status and code
            raise Refused(409, "IncorrectState", "The model has an artifact already")
        disposition = self.headers.get("content-disposition", "")
        if not re.fullmatch(r'attachment; filename="[^"]+\.(zip|json|tar\.gz)"', disposition):
            raise Refused(400, "InvalidParameter", f"content-disposition: {disposition}")
        data = self.body
        if self.fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.keep(one, data, disposition, b64(hashlib.md5(data)))
        return 204, {"etag": self.server.artifacts[one][0]["etag"]}, None

    def give_artifact(self, one: str) -> tuple[int, dict[str, str], Any]:
        if one not in self.server.artifacts:
            raise Refused(404, "NotAuthorizedOrNotFound", "The model has no artifact")
        headers, data = self.server.artifacts[one]
        if self.command == "HEAD":
            return 200, {**headers, "content-length": str(len(data))}, None
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if match is None:
            return 200, headers, data
        low, high = int(match[1]), min(int(match[2]) + 1, len(data))
        whole = {key: value for key, value in headers.items() if key != "content-md5"}
        return 206, {**whole, "content-range": f"bytes {low}-{high - 1}/{len(data)}"}, data[low:high]

    def copy_artifact(self, one: str, export: bool, asked: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        ask = asked["artifactExportDetails" if export else "artifactImportDetails"]
        if not export and one not in self.server.artifacts:
            raise Refused(404, "NotAuthorizedOrNotFound", "The model has no artifact")
        if export and one in self.server.artifacts:
            raise Refused(409, "IncorrectState", "The model has an artifact already")
        kind = "EXPORT_MODEL_ARTIFACT" if export else "IMPORT_MODEL_ARTIFACT"
        request = {
            "id": f"ocid1.datascienceworkrequest.oc1.eu-frankfurt-1.{uuid.uuid4().hex}", "operationType": kind,
            "status": "ACCEPTED", "compartmentId": COMPARTMENT, "percentComplete": 0.0, "timeAccepted": stamp(),
            "resources": [{"identifier": one, "entityType": "model", "actionType": "UPDATED"}],
        }  # fmt: skip
        self.server.work[request["id"]] = {"facts": request, "ask": ask, "polls": 0, "errors": []}
        return 202, {"opc-work-request-id": request["id"]}, None

    def work_requests(self, one: str | None, rest: str) -> tuple[int, dict[str, str], Any]:
        kind = self.query.get("operationType")
        if one is None:
            facts = [work["facts"] for work in self.server.work.values()]
            return self.page([fact for fact in facts if kind in (None, fact["operationType"])])
        work = self.server.work.get(one)
        if work is None:
            raise Refused(404, "NotAuthorizedOrNotFound", "no such work request")
        if rest == "errors":
            return self.page(work["errors"])
        settings, facts = self.server.state.settings, work["facts"]
        if facts["status"] in ("ACCEPTED", "IN_PROGRESS"):
            work["polls"] += 1
            facts["status"] = "IN_PROGRESS"
            if settings["work_error"]:
                facts["status"] = "FAILED"
                error = {"code": "InternalError", "message": settings["work_error"], "timestamp": stamp()}
                work["errors"].append(error)
            elif work["polls"] >= settings["work"]:
                self.complete(work)
        return 200, {}, facts

    def complete(self, work: dict[str, Any]) -> None:
        facts, ask, st = work["facts"], work["ask"], self.server.state
        one = facts["resources"][0]["identifier"]
        facts |= {"status": "SUCCEEDED", "percentComplete": 100.0}
        if facts["operationType"] == "EXPORT_MODEL_ARTIFACT":
            found = st.buckets[ask["sourceBucket"]].objects.get(ask["sourceObjectName"])
            if found is None:
                facts["status"] = "FAILED"
                work["errors"].append({"code": "NotFound", "message": "the object is not there", "timestamp": stamp()})
                return
            data = (st.files / found["file"]).read_bytes()
            md5 = {"md5": b64(hashlib.md5(data)), "multipart": "bm90IHRoZSBkaWdlc3Q=-3", "none": None}
            self.keep(one, data, None, md5[st.settings["export_md5"]])
            return
        _, data = self.server.artifacts[one]
        file = st.files / uuid.uuid4().hex
        file.write_bytes(data)
        facts = {"file": file.name, "size": len(data), "md5": b64(hashlib.md5(data)), "sha256": None}
        self.store(st.buckets[ask["destinationBucket"]], ask["destinationObjectName"], facts, {}, None)

    # ----------------------------------------------------------------------------------------------- version sets

    def version_sets(self, one: str | None, rest: str) -> tuple[int, dict[str, str], Any]:
        sets = self.server.sets
        if one is not None:
            raise Refused(404, "NotAuthorizedOrNotFound", "not needed so far")
        if self.command == "GET":
            self.placed({"compartmentId": self.query.get("compartmentId")})
            name = self.query.get("name")
            return self.page([found for found in sets.values() if name in (None, found["name"])])
        asked = json.loads(self.body)
        self.placed(asked)
        if any(found["name"] == asked["name"] for found in sets.values()):
            raise Refused(409, "IncorrectState", "A version set of this name exists")
        ocid = f"ocid1.datasciencemodelversionset.oc1.eu-frankfurt-1.{uuid.uuid4().hex}"
        made = {**asked, "id": ocid, "lifecycleState": "ACTIVE", "timeCreated": stamp(), "timeUpdated": stamp()}
        sets[ocid] = {**made, "createdBy": "test", "category": "USER"}
        return 200, {"etag": "1"}, sets[ocid]


class Server(oci_server.Server):
    handler = Handler

    def __init__(self, *args: Any) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, tuple[dict[str, str], bytes]] = {}
        self.provenance: dict[str, dict[str, Any]] = {}
        self.sets: dict[str, dict[str, Any]] = {}
        self.work: dict[str, dict[str, Any]] = {}
        self.tokens: dict[tuple[str, ...], tuple[Any, ...]] = {}
        super().__init__(*args)


class DataScienceServer(OCIServer):
    """Data Science and Object Storage at one port, in a thread of this process, for tests to look into."""

    kind = Server

    @property
    def catalog(self) -> Server:
        """What the service knows."""
        assert isinstance(self._server, Server)
        return self._server

    def calm(self) -> DataScienceServer:
        """Without models, and without the faults and settings of the test before."""
        found = self.catalog
        for kept in (found.models, found.artifacts, found.provenance, found.sets, found.work, found.tokens):
            kept.clear()
        self.control(faults=[], settings=DEFAULTS, reset=True)
        return self

    def login(self, profile: str = "DEFAULT", **more: Any) -> dict[str, Any]:
        """The fields of `catalog_oci_datascience.Options`."""
        where = {"endpoint": self.endpoint, "storage_endpoint": self.endpoint}
        return {"oci_profile": profile, "oci_config_file": str(self.config), **where, "deadline": 5.0, **more}

    def replace(self, ocid: str, data: bytes) -> None:
        """Put another artifact in the place of a model's, as nobody should be able to."""
        headers, _ = self.catalog.artifacts[ocid]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        self.catalog.artifacts[ocid] = ({**headers, "content-md5": md5}, data)
