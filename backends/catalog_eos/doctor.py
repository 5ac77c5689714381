"""What `catalog doctor` asks of XRootD alone: client, credentials, server, checksums, clock, exclusive folders, space.

Of credentials it names the variable or the file and their age, never what is in them.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from catalog_core.errors import CatalogError
from catalog_core.records import Check, checked
from catalog_eos.calls import Calls
from catalog_eos.options import Options
from catalog_eos.store import CLAIMS, TEMPORARY

SKEW = 300.0  # seconds by which a writer's clock may be off
ENOUGH = 1 << 30


def checks(url: str, options: Mapping[str, Any]) -> Iterator[Check]:
    """What is right and wrong with `url` from here. It writes a small probe, and removes it."""
    chosen = Options(**options)
    if url.startswith("eos://"):
        from catalog_eos.mounted import Mounted

        mounted = Mounted(url)
        yield checked("eos.folder", lambda: _folder(mounted))
        yield from _writing(mounted)
        return
    import XRootD

    from catalog_eos.remote import Remote

    yield Check("xrootd.client", "passed", 0.0, f"version {XRootD.client.__version__}")
    yield checked("xrootd.credentials", lambda: _credentials(chosen))
    remote = Remote(url, chosen)
    server = checked("xrootd.server", lambda: _server(remote))
    yield server
    if server.result == "failed":
        return
    yield checked("xrootd.folder", lambda: _folder(remote))
    yield from _writing(remote)
    yield checked("xrootd.space", lambda: _space(remote))


Found = tuple[str, str]


def _server(remote: Any) -> Found:
    from XRootD.client.flags import QueryCode

    version, _, sums = remote.query(QueryCode.CONFIG, "version chksum", patience=0).partition("\n")
    return "passed", f"{remote.server} runs {version or 'an unknown version'}; checksums: {sums or 'not told'}"


def _folder(calls: Calls) -> Found:
    found = calls.stat("")
    if found is None:
        return "passed", "the folder is not there yet; the first put makes it"
    return ("passed", "the folder is there") if found.folder else ("failed", f"{calls.where} is a file, not a folder")


def _writing(calls: Calls) -> Iterator[Check]:
    """The checks that write."""
    probe, claim = f"{TEMPORARY}/~doctor-{secrets.token_hex(8)}", f"{CLAIMS}/~doctor-{secrets.token_hex(8)}.1"
    before = time.time()
    begun = time.monotonic()
    try:
        adler = calls.upload(probe, io.BytesIO(b"probe"), 5)
        found, whole, sums = calls.stat(probe), calls.good(probe, 5, adler), calls.checksums(probe)
        calls.remove(probe)
    except CatalogError as exc:
        yield Check("eos.write", "failed", time.monotonic() - begun, str(exc))
        return
    took = time.monotonic() - begun
    if found is None or not whole:
        yield Check("eos.write", "failed", took, "the probe did not come back as it was written")
        return
    yield Check("eos.write", "passed", took, f"a probe of 5 bytes in {took:.3f} s")
    told = "the server sums uploads itself: " + ", ".join(sums) if sums else "the server tells no adler32: sizes only"
    yield Check("eos.checksum", "passed" if sums else "warned", 0.0, told)
    skew = found.time - before
    result = "passed" if -2 <= skew <= took + 2 else "warned" if abs(skew) < SKEW else "failed"
    yield Check("eos.clock", result, 0.0, f"the server's clock and ours differ by {max(abs(skew) - took, 0):.0f} s")
    yield checked("eos.exclusive", lambda: _exclusive(calls, claim))


def _exclusive(calls: Calls, claim: str) -> Found:
    first, second = calls.make(claim), calls.make(claim)
    calls.remove_folder(claim)
    if first and not second:
        return "passed", "a folder is made once; the race of several processes shows the rest"
    return "failed", "a folder could be made twice: entries of two writers may collide (is the server's umask 0?)"


def _space(remote: Any) -> Found:
    from XRootD.client.flags import QueryCode

    told = dict(part.split("=", 1) for part in remote.query(QueryCode.SPACE, remote.path).split("&") if "=" in part)
    free, quota = told.get("oss.free"), told.get("oss.quota", "-1")
    if free is None or not free.isdigit():
        return "skipped", "the server does not tell; on EOS: `eos quota PATH`"
    limit = f", quota {int(quota) / 1e9:.1f} GB" if quota.isdigit() else ", no quota told"
    return "passed" if int(free) > ENOUGH else "warned", f"{int(free) / 1e9:.1f} GB free{limit}"


# -- credentials ------------------------------------------------------------------------------------------------------


def _credentials(options: Options) -> Found:
    """All that XRootD's client would find, where it would look."""
    user, places = os.getuid(), os.environ
    ticket = places.get("KRB5CCNAME", f"/tmp/krb5cc_{user}")
    runtime = places.get("XDG_RUNTIME_DIR", "/tmp")
    files: list[tuple[str, str, Callable[[Path], float | None]]] = [
        ("Kerberos ticket", ticket.removeprefix("FILE:"), lambda path: None),
        ("x509 proxy", places.get("X509_USER_PROXY", f"/tmp/x509up_u{user}"), _proxy_end),
        ("bearer token", places.get("BEARER_TOKEN_FILE", f"{runtime}/bt_u{user}"), _token_end),
        ("shared secret", places.get("XrdSecSSSKT", f"{Path.home()}/.xrd/sss.keytab"), lambda path: None),
        ("token_file", options.token_file or "", _token_end),
    ]
    found, old = [], False
    for kind, place, end_of in files:
        path = Path(place).expanduser()
        if not place or not path.is_file():
            if kind == "token_file" and place:
                return "failed", f"token_file {path} is not there"
            continue
        try:
            end = end_of(path)
        except OSError as exc:
            return "failed", f"{kind} {path} cannot be read: {exc.strerror}"
        left = "" if end is None else _left(end)
        old = old or (end is not None and end < time.time())
        found.append(f"{kind} {path}{left}")
    if "BEARER_TOKEN" in places:
        found.append("bearer token in $BEARER_TOKEN")
    if not found:
        return "warned", "none found: only a server that lets everybody in will do; on CERN machines: kinit"
    return "failed" if old else "passed", "; ".join(found)


def _left(end: float) -> str:
    left = end - time.time()
    return f" (expired {-left / 3600:.1f} h ago)" if left < 0 else f" (valid for {left / 3600:.1f} h)"


def _token_end(path: Path) -> float | None:
    """When a JWT expires; None for another kind of token."""
    match = re.fullmatch(r"eyJ[\w-]+\.([\w-]+)\.[\w-]+", path.read_text(encoding="ascii", errors="replace").strip())
    if match is None:
        return None
    try:
        end = json.loads(base64.urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))).get("exp")
    except ValueError:
        return None
    return float(end) if isinstance(end, (int, float)) else None


def _proxy_end(path: Path) -> float | None:
    """When a proxy certificate expires: the second time in it, as UTCTime."""
    match = re.search("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", path.read_text("latin-1"), re.S)
    times = re.findall(rb"\x17\x0d(\d{12})Z", ssl.PEM_cert_to_DER_cert(match[0])) if match else []
    if len(times) < 2:
        return None
    import calendar

    return float(calendar.timegm(time.strptime(times[1].decode(), "%y%m%d%H%M%S")))
