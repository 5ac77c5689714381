"""What surrounds a machine inside Oracle Cloud, for an `OCIServer` with TLS: the metadata service that knows the
machine's certificate, the service that hands out session tokens for it, and a proxy through which the real names of
the services lead to these.

With `environment()` set the SDK finds an instance principal here, by its real path and names; the token is signed for
with the key of the machine's certificate, and requests with the session key that the SDK made.
"""

from __future__ import annotations

import base64
import json
import select
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from oci_server import TENANCY, OCIServer, Refused, check_signature, private_pem, token

REGION = "eu-frankfurt-1"
METADATA = "/opc/v2/"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Region

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        """The metadata service."""
        found = self.server.metadata.get(self.path.removeprefix(METADATA))
        if found is None or self.headers.get("authorization") != "Bearer Oracle":
            self.answer(404, b"")
        else:
            self.answer(200, found)

    def do_CONNECT(self) -> None:
        """The proxy."""
        host = self.path.partition(":")[0]
        if host == f"auth.{REGION}.oraclecloud.com":
            self.answer(200, None)
            self.request = self.server.context.wrap_socket(self.connection, server_side=True)
            self.setup()
            self.close_connection = False  # what follows are requests to that service
        elif host.endswith((f"objectstorage.{REGION}.oraclecloud.com", f"datascience.{REGION}.oci.oraclecloud.com")):
            with socket.create_connection(("127.0.0.1", self.server.storage.port)) as other:
                self.answer(200, None)
                splice(self.connection, other)
            self.close_connection = True
        else:
            self.answer(502, b"")

    def do_POST(self) -> None:
        """The service that hands out session tokens, to the machine that has the certificate."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        if self.server.trouble:
            self.answer(self.server.trouble.pop(), b'{"code": "InternalServerError", "message": "failed on request"}')
            return
        try:
            check_signature(self, self.server.machines, 0.0, host=False)
        except Refused as exc:
            self.answer(exc.status, json.dumps({"code": exc.code, "message": exc.message}).encode())
            return
        public = serialization.load_der_public_key(base64.b64decode(json.loads(body)["publicKey"]))
        self.answer(200, json.dumps({"token": self.server.let_in(public)}).encode())

    def answer(self, status: int, body: bytes | None) -> None:
        self.send_response_only(status)
        if body is not None:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body or b"")


def splice(one: socket.socket, other: socket.socket) -> None:
    """Hand bytes to and fro until one side ends."""
    while True:
        for ready in select.select([one, other], [], [], 60)[0]:
            data = ready.recv(1 << 16)
            if not data:
                return
            (other if ready is one else one).sendall(data)


class Region(ThreadingHTTPServer):
    """A context manager. `trouble`: statuses with which the next requests for a token are refused; `asked`: how many
    there were."""

    daemon_threads = True

    def __init__(self, storage: OCIServer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.storage = storage
        self.trouble: list[int] = []
        self.asked = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(storage.run / "server.pem")
        key = rsa.generate_private_key(65537, 2048)
        certificate = machine_certificate(key)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.metadata = {
            "instance/region": REGION.encode(),
            "identity/cert.pem": pem,
            "identity/key.pem": private_pem(key),
            "identity/intermediate.pem": pem,
        }
        fingerprint = ":".join(f"{byte:02X}" for byte in certificate.fingerprint(hashes.SHA1()))
        self.machines = {f"{TENANCY}/fed-x509/{fingerprint}": {"public": key.public_key()}}

    def let_in(self, public: Any) -> str:
        """A token for whoever has the private half of `public`."""
        expires = time.time() + 3600
        text = token(expires)
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        user = {"key_id": f"ST${text}", "pem": pem.decode(), "rights": "all", "expires": expires}
        self.storage.control(user=user)
        return text

    def environment(self) -> dict[str, str]:
        """What the SDK has to find in its environment to live here."""
        return {
            "OCI_METADATA_BASE_URL": f"http://127.0.0.1:{self.server_port}{METADATA.rstrip('/')}",
            "HTTPS_PROXY": f"http://127.0.0.1:{self.server_port}",
            "NO_PROXY": "127.0.0.1",
            "REQUESTS_CA_BUNDLE": str(self.storage.ca),
        }

    def __enter__(self) -> Region:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()


def machine_certificate(key: rsa.RSAPrivateKey) -> x509.Certificate:
    """As an instance has it: its subject names the tenancy."""
    names = {NameOID.COMMON_NAME: "ocid1.instance.oc1..test", NameOID.ORGANIZATIONAL_UNIT_NAME: f"opc-tenant:{TENANCY}"}
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in names.items()])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
