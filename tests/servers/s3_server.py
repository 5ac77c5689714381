"""A real S3 server on loopback: SeaweedFS from the package index, with a user who may write and one who may only read.

The users' secrets are those of the shared credentials file `credentials`, as profiles `writer` and `reader`.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

USERS = {
    "writer": ("writer-access", "writer-secret-key", ["Admin", "Read", "Write", "List", "Tagging"]),
    "reader": ("reader-access", "reader-secret-key", ["Read", "List"]),
}
PORTS = 8  # s3, and what stands behind it


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for item in held:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in held]
    finally:
        for item in held:
            item.close()


class S3Server:
    """A context manager. After `kill` a `start` serves the same data on the same ports. It takes `volumes` of 256 MB,
    with what was deleted."""

    def __init__(self, volumes: int = 8) -> None:
        self.volumes = volumes
        self.folder = Path(tempfile.mkdtemp(prefix="s3-server-"))
        self.ports = _free_ports(PORTS)
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.credentials = self.folder / "credentials"
        self.pid: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        users = [
            {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}
            for name, (access, secret, actions) in USERS.items()
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": users}))
        self.credentials.write_text(
            "".join(
                f"[{name}]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
                for name, (access, secret, _) in USERS.items()
            )
        )

    def start(self) -> Self:
        """Start it and wait until it takes a bucket."""
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self.ports
        (self.folder / "data").mkdir(exist_ok=True)
        command = [
            str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "server",
            f"-dir={self.folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=256",
            "-master.telemetry=false", f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}",
            f"-volume.max={self.volumes}",
            "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", "-s3", f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}", f"-s3.config={self.folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-s3.allowDeleteBucketNotEmpty=false", f"-s3.localSocket={self.folder}/s3.sock",
            f"-filer.localSocket={self.folder}/filer.sock", "-metricsPort=0",
        ]  # fmt: skip
        environment = {**os.environ, "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = self._process.pid
        for _ in range(240):
            if self._process.poll() is not None:
                break
            if self._ready():
                return self
            time.sleep(0.25)
        tail = (self.folder / "log").read_text(errors="replace")[-2000:]
        self.kill()
        raise RuntimeError(f"the S3 server did not come up:\n{tail}")

    def _store(self, bucket: str) -> Any:
        from obstore.store import S3Store

        access, secret, _ = USERS["writer"]
        return S3Store(
            bucket, endpoint=self.endpoint, access_key_id=access, secret_access_key=secret, region="us-east-1",
            virtual_hosted_style_request=False, client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )  # fmt: skip

    def _ready(self) -> bool:
        """Whether it answers and stores a byte in the bucket that all tests share."""
        try:
            self._store("catalogs").put("ready", b"x")
        except Exception:
            return self._make_bucket()
        return True

    def _make_bucket(self) -> bool:
        """obstore makes no buckets: a bucket of SeaweedFS is a folder of its filer."""
        import urllib.request

        url = f"http://127.0.0.1:{self.ports[6]}/buckets/catalogs/"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=5):
                return False
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL, and wait until its ports are free (a SIGTERM takes it half a minute)."""
        if self._process is not None:
            if self._process.poll() is None:
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)
        self._process, self.pid = None, None

    def stop(self) -> None:
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh(self, user: str = "writer") -> tuple[str, dict[str, Any]]:
        """The URL and options of a new, empty place for a catalog; the process needs `credentials` in
        `$AWS_SHARED_CREDENTIALS_FILE`."""
        options = {"endpoint": self.endpoint, "region": "us-east-1", "profile": user}
        return f"s3://catalogs/{secrets.token_hex(6)}", options

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
