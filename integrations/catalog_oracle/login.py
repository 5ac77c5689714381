"""Who we are: the SDK's configuration and signer for the options of a catalog, or of another service of OCI."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

from catalog_core import folders
from catalog_core.errors import ConfigError, InvalidInput
from catalog_oracle.options import Who

Login = tuple[dict[str, Any], Any]
"""Configuration and signer, as `ObjectStorageClient(config, signer=signer)` takes them."""


_SETUP = "`oci setup config` makes one; docs: how-to/oracle-cloud"


def log_in(options: Who) -> Login:
    """Read the profile and its key, or ask the machine for its principal. Raises `ConfigError`; a key, a passphrase or
    a token is in no message. What a busy service of principals answers (429, 5xx) is raised as it is: ask again."""
    if options.auth == "instance_principal":
        return _principal(options, "instance principal", "this machine is no OCI instance, or has no dynamic group")
    if options.auth == "resource_principal":
        return _principal(options, "resource principal", "this is no OCI function, job or notebook session")
    config = read_profile(options)
    token_file = config.get("security_token_file")
    if options.auth == "security_token" or (options.auth is None and token_file):
        return config, _session(config, options, token_file)
    return config, _api_key(config, options)


def read_profile(options: Who) -> dict[str, Any]:
    """The profile, with the region that the options name."""
    import oci

    where = options.oci_config_file or oci.config.DEFAULT_LOCATION
    try:
        config: dict[str, Any] = oci.config.from_file(where, options.oci_profile)
    except oci.exceptions.ConfigFileNotFound as exc:
        raise ConfigError(f"the configuration file of OCI, {where}, does not exist", hint=_SETUP) from exc
    except oci.exceptions.ProfileNotFound as exc:
        raise ConfigError(
            f"{where} has no profile {options.oci_profile!r}", hint="set oci_profile to one of its [sections]"
        ) from exc
    except oci.exceptions.InvalidKeyFilePath as exc:
        raise ConfigError(
            f"the key file of profile {options.oci_profile!r} in {where} does not exist", hint="mend its key_file"
        ) from exc
    except Exception as exc:  # configparser's and the SDK's own
        raise ConfigError(f"{where} cannot be read as a configuration of OCI ({type(exc).__name__})") from exc
    config["log_requests"] = False  # the SDK would print every header, a session's token among them
    if options.region:
        config["region"] = options.region
    return config


def _api_key(config: dict[str, Any], options: Who) -> Any:
    import oci

    try:
        oci.config.validate_config(config)
        return oci.signer.Signer.from_config(config)
    except oci.exceptions.InvalidConfig as exc:
        bad = ", ".join(f"{key} is {what}" for key, what in exc.errors.items())
        raise ConfigError(f"profile {options.oci_profile!r} cannot be used: {bad}", hint=_SETUP) from exc
    except (OSError, ValueError, oci.exceptions.InvalidPrivateKey) as exc:
        raise _bad_key(options) from exc


def _bad_key(options: Who) -> ConfigError:
    return ConfigError(
        f"the private key of profile {options.oci_profile!r} cannot be read",
        hint="check key_file and pass_phrase in the configuration file of OCI",
    )


def _session(config: dict[str, Any], options: Who, token_file: str | None) -> Any:
    """Sign with a session token, which `oci session authenticate` puts into a file and `oci session refresh` renews."""
    import oci

    again = f"oci session authenticate --profile-name {options.oci_profile}"
    if not token_file:
        raise ConfigError(f"profile {options.oci_profile!r} has no security_token_file", hint=again)
    try:
        token = folders.content(Path(token_file).expanduser(), 1 << 20).decode().strip()
    except (OSError, UnicodeDecodeError, InvalidInput) as exc:
        raise ConfigError(f"the session token in {token_file} cannot be read", hint=again) from exc
    expires = expiry(token)
    if expires is not None and expires < time.time():
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(expires))
        raise ConfigError(f"the session token of profile {options.oci_profile!r} expired at {when}", hint=again)
    try:
        key = oci.signer.load_private_key_from_file(config.get("key_file"), config.get("pass_phrase"))
    except (OSError, TypeError, ValueError, oci.exceptions.InvalidPrivateKey) as exc:
        raise _bad_key(options) from exc
    return oci.auth.signers.SecurityTokenSigner(token, key)


def expiry(token: str) -> float | None:
    """When a session token (a JWT) ends, in seconds since 1970; None where it does not say so."""
    try:
        body = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _principal(options: Who, what: str, else_: str) -> Login:
    import oci

    try:
        if options.auth == "instance_principal":
            # without these the SDK asks for minutes where there is no such service, and a breaker of the whole process
            # opens; who calls us tries again
            signer = oci.auth.signers.InstancePrincipalsSecurityTokenSigner(
                retry_strategy=oci.retry.NoneRetryStrategy(),
                federation_client_retry_strategy=oci.retry.NoneRetryStrategy(),
                federation_client_circuit_breaker_strategy=oci.circuit_breaker.NoCircuitBreakerStrategy(),
            )
        else:
            signer = oci.auth.signers.get_resource_principals_signer()
    except Exception as exc:  # the SDK raises many kinds here, bare ones too
        status = getattr(exc, "status", 0)
        if status == 429 or status >= 500:  # the service that hands out tokens is busy
            raise
        raise ConfigError(f"no {what} to be had: {else_}", hint='or set auth = "api_key"') from exc
    region = options.region or getattr(signer, "region", None)
    return ({"region": region} if region else {}), signer
