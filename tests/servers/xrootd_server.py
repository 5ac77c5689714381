"""A real XRootD server on 127.0.0.1, for tests and benchmarks.

    with XrootdServer() as server:                 # or auth="sss", auth="tokens", size=24 (MB of disk)
        url, options = server.fresh()
        server.kill(); server.start()              # again on the same port and data

What a client needs to log in lies in `server.credentials(who)`: environment variables, to be set before the client's
first connection, since the client library reads most of them once in a process.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from system_packages import lacking

Auth = Literal["plain", "sss", "tokens"]
PROGRAM = "xrootd"
PARTS = {  # what the three configurations need: program or plug-in → Debian's package
    PROGRAM: "xrootd-server",
    "libXrdXrootd-5.so": "xrootd-server-plugins",
    "libXrdSec-5.so": "xrootd-plugins",
    "libXrdSecsss-5.so": "xrootd-plugins",
    "libXrdSecztn-5.so": "xrootd-plugins",
    "libXrdAccSciTokens-5.so": "xrootd-scitokens-plugins",
    "openssl": "openssl",
    "cc": "gcc",
}
ISSUER = "https://issuer.test.invalid/catalog"
AUDIENCE = "https://wlcg.cern.ch/jwt/v1/any"

COMMON = """
all.export /
oss.localroot {dir}/data
all.adminpath {dir}/admin
all.pidpath {dir}/admin
xrd.port {port}
xrd.network nodnr
xrd.allow host 127.0.0.1
xrd.sched mint 4 maxt 64
ofs.persist manual hold 10 logdir {dir}/admin/
xrootd.seclib default
xrootd.chksum max 4 adler32 crc32c
xrootd.async off
"""
SSS = """
sec.protocol sss -s {dir}/sec/sss.server
sec.protbind * only sss
ofs.authorize 1
acc.authdb {dir}/sec/authdb
acc.audit deny
"""
TOKENS = """
xrd.tls {dir}/sec/host.pem {dir}/sec/host.key
xrd.tlsca certfile {dir}/sec/ca.pem
xrootd.tls capable all
sec.protocol ztn
sec.protbind * only ztn
ofs.authorize 1
ofs.authlib libXrdAccSciTokens.so config={dir}/sec/scitokens.cfg
acc.audit deny
"""


def missing() -> str | None:
    """Why no server can run here; None where one can. Installs what is missing where CATALOG_TEST_INSTALL=1 allows."""
    return lacking(PARTS)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class XrootdServer:
    """A server with a run directory of its own, which goes with `stop`. `size` limits its disk, in megabytes; that
    takes root, and `OSError` says so where it cannot be had."""

    def __init__(self, auth: Auth = "plain", size: int | None = None) -> None:
        self.auth = auth
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="xrootd-"))  # not pytest's: the server's user must get in
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._mounted = False
        self._user = pwd.getpwnam("xrootd") if os.getuid() == 0 else None  # it refuses to run as root
        try:
            self._prepare(size)
        except BaseException:
            self.stop()
            raise

    def _prepare(self, size: int | None) -> None:
        self.folder.chmod(0o711)
        sec = self.folder / "sec"
        for folder in (self.data, self.folder / "admin", sec):
            folder.mkdir()
        if size is not None:
            options = f"size={size}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.data)], check=True, timeout=30)
            self._mounted = True
        shim = Path(__file__).with_name("loopback_bind.c")
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(self.folder / "loopback_bind.so"), str(shim), "-ldl"]
        subprocess.run(command, check=True, timeout=60)
        text = COMMON
        if self.auth == "sss":
            text += SSS
            self._make_secrets(sec)
        elif self.auth == "tokens":
            text += TOKENS
            self._make_certificates(sec)
            self._make_tokens(sec)
        (self.folder / "xrootd.cfg").write_text(text.format(dir=self.folder, port=self.port))
        (self.data / "models").mkdir()
        if self._user is not None:
            theirs = [self.folder, *self.data.rglob("*"), self.data, self.folder / "admin", sec, sec / "cache"]
            theirs += [*(sec / "cache").rglob("*"), sec / "sss.server", sec / "authdb", sec / "host.key"]
            for path in theirs:
                if path.exists():
                    os.chown(path, self._user.pw_uid, self._user.pw_gid)

    # -- running ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        ids = {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / "sec/cache"),
            "LD_PRELOAD": str(self.folder / "loopback_bind.so"),
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(shutil.which(PROGRAM)), "-c", str(self.folder / "xrootd.cfg"), "-n", "t", "-I", "v4"],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **ids,
            )  # fmt: skip
        for _ in range(400):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"xrootd does not listen: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it with SIGKILL; `start` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """Let it hang: it keeps its connections and answers nothing, once all its threads have stopped."""
        os.kill(self.pid, signal.SIGSTOP)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            states = [task.read_text().rpartition(") ")[2][0] for task in Path(f"/proc/{self.pid}/task").glob("*/stat")]
            if set(states) <= {"T"}:
                return
            time.sleep(0.01)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove all that it kept."""
        self.kill()
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.data)], check=False, timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- for clients ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where it listens; a path follows."""
        scheme = "roots" if self.auth == "tokens" else "root"
        return f"{scheme}://localhost:{self.port}/"

    def fresh(self, **options: object) -> tuple[str, dict[str, object]]:
        """URL and options of a new place for a catalog."""
        return f"{self.url}/models/{secrets.token_hex(8)}", options

    def path(self, url: str) -> Path:
        """The folder on the server's disk that a URL of `fresh` names."""
        return self.data / url.partition("//models/")[2].join(["models/", ""])

    def credentials(self, who: str = "alice") -> dict[str, str]:
        """The environment of a user: `alice` may write, `bob` may read; tokens also `expired` and `forged`."""
        sec = self.folder / "sec"
        if self.auth == "sss":
            return {"XrdSecSSSKT": str(sec / f"sss.{who}")}
        if self.auth == "tokens":
            return {"X509_CERT_DIR": str(sec / "ca"), "BEARER_TOKEN_FILE": str(sec / f"{who}.jwt")}
        return {}

    # -- secrets ----------------------------------------------------------------------------------------------------

    def _make_secrets(self, sec: Path) -> None:
        """A shared key for each user; they are told apart by `N`, which must differ."""
        now = int(time.time())
        lines = {
            who: f"0 u:{who} g:users n:catalog-{who} N:{now}{number:06} c:{now} e:0 f:0 k:{secrets.token_hex(32)}\n"
            for number, who in enumerate(("alice", "bob"), 1)
        }
        for name, text in {**lines, "server": "".join(lines.values())}.items():
            self._secret(sec / f"sss.{name}", text)
        (sec / "authdb").write_text("u alice /models a\nu bob /models lr\n")
        sec.chmod(0o711)

    def _make_certificates(self, sec: Path) -> None:
        """A throw-away authority, and a certificate of its for `localhost`."""

        def openssl(*command: str) -> str:
            done = subprocess.run(
                ["openssl", *command], cwd=sec, check=True, timeout=60, capture_output=True, text=True
            )
            return done.stdout.strip()

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl(
            "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/O=catalog/CN=test CA",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        openssl("req", *key, "-keyout", "host.key", "-out", "host.csr", "-subj", "/O=catalog/CN=localhost")
        (sec / "host.ext").write_text("extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            "x509", "-req", "-in", "host.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "host.ext", "-out", "host.pem",
        )  # fmt: skip
        (sec / "ca").mkdir()
        name = openssl("x509", "-in", "ca.pem", "-noout", "-hash")
        shutil.copy(sec / "ca.pem", sec / "ca" / f"{name}.0")

    def _make_tokens(self, sec: Path) -> None:
        """Tokens of an issuer that does not run: its public key is put into the server's cache of keys."""
        from cryptography.hazmat.primitives.asymmetric import ec

        def text(number: int) -> str:
            return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

        key, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_numbers()
        known = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1"}
        known |= {"x": text(public.x), "y": text(public.y)}
        (sec / "cache/scitokens").mkdir(parents=True)
        with sqlite3.connect(sec / "cache/scitokens/scitokens_cpp.sqllite") as db:
            far = int(time.time()) + 365 * 86400
            row = (ISSUER, json.dumps({"jwks": {"keys": [known]}, "expires": far, "next_update": far}))
            db.execute("CREATE TABLE keycache (issuer text UNIQUE PRIMARY KEY NOT NULL, keys text NOT NULL)")
            db.execute("INSERT INTO keycache VALUES (?, ?)", row)
        db.close()
        (sec / "scitokens.cfg").write_text(
            f"[Global]\naudience = {AUDIENCE}\n\n[Issuer catalog]\nissuer = {ISSUER}\nbase_path = /models\n"
        )
        write = "storage.read:/ storage.create:/ storage.modify:/"
        self._token(sec / "alice.jwt", key, write, 3600)
        self._token(sec / "bob.jwt", key, "storage.read:/", 3600)
        self._token(sec / "expired.jwt", key, write, -60)
        self._token(sec / "forged.jwt", stranger, write, 3600)
        sec.chmod(0o711)

    def _token(self, path: Path, key: object, scope: str, lifetime: int) -> None:
        import jwt

        now = int(time.time())
        claims: Mapping[str, object] = {
            "iss": ISSUER, "sub": path.stem, "aud": AUDIENCE, "iat": now - 100, "nbf": now - 100, "exp": now + lifetime,
            "jti": secrets.token_hex(8), "wlcg.ver": "1.0", "scope": scope,
        }  # fmt: skip
        self._secret(path, jwt.encode(dict(claims), key, "ES256", headers={"kid": "k1"}))  # type: ignore[arg-type]

    def _secret(self, path: Path, text: str) -> None:
        path.touch(0o600)
        path.write_text(text)
