"""Lets oracle-ads be used without an account: a configuration with a key that was made here, in a home of its own."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
home = Path(tempfile.mkdtemp())
os.environ |= {"HOME": str(home), "OCI_CONFIG_PROFILE": "DEFAULT"}
(home / ".oci").mkdir()
key, config = home / ".oci" / "key.pem", home / ".oci" / "config"
key.write_bytes(
    rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
)
config.write_text(
    "[DEFAULT]\nuser=ocid1.user.oc1..aaaa\ntenancy=ocid1.tenancy.oc1..aaaa\nregion=us-ashburn-1\n"
    f"fingerprint={':'.join(['aa'] * 16)}\nkey_file={key}\n"
)
key.chmod(0o600)
config.chmod(0o600)

import ads  # noqa: E402

ads.set_auth("api_key")
