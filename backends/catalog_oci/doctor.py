"""What `catalog doctor oci://…` asks of OCI alone: credentials, clock, bucket, rules, rights. Nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from catalog_core.errors import BackendError, ReadOnly
from catalog_core.records import Check, checked
from catalog_oci.calls import SKEW, Calls, clock_skew
from catalog_oci.options import Options
from catalog_oci.store import split_url
from catalog_oracle.login import expiry

NAMES = ("credentials", "signature", "clock", "bucket", "versioning", "retention", "rights to read", "rights to write")
Verdict = tuple[str, str]  # result and cause


def checks(url: str, options: Mapping[str, Any]) -> Iterator[Check]:
    """One check after the other; what cannot be asked because an earlier one failed is skipped."""
    examination = Examination(url, Options(**options))
    blocked = ""
    for name, ask in zip(NAMES, examination.checks(), strict=True):
        if blocked:
            yield Check(name, "skipped", 0.0, f"needs {blocked!r}")
            continue
        check = checked(name, ask)
        yield check
        if check.result == "failed" and name in NAMES[:4]:
            blocked = name
    examination.calls.close()


class Examination:
    """The checks of one URL; what one learns, the next may use."""

    def __init__(self, url: str, options: Options) -> None:
        self.bucket, self.namespace, self.prefix = split_url(url)
        self.options = options
        self.calls = Calls(self.namespace, self.bucket, options)
        self._skew: float | None = None
        self._facts: Any = None

    def checks(self) -> tuple[Callable[[], Verdict], ...]:
        """In the order of `NAMES`."""
        return (
            self.credentials,
            self.signature,
            self.clock,
            self.find_bucket,
            self.versioning,
            self.retention,
            self.reading,
            self.writing,
        )

    def credentials(self) -> Verdict:
        """The profile, its file and its kind; never a key."""
        import oci

        with self.calls.client() as client:
            config, signer = client.base_client.config, client.base_client.signer
        where = f"{self.calls.endpoint()}, as "
        if self.options.auth in ("instance_principal", "resource_principal"):
            return "passed", where + self.options.auth.replace("_", " ")
        where += (
            f"profile {self.options.oci_profile!r} of {self.options.oci_config_file or oci.config.DEFAULT_LOCATION}"
        )
        ends = expiry(getattr(signer, "api_key", "").removeprefix("ST$"))
        if config.get("security_token_file") and ends is not None:
            minutes = (ends - time.time()) / 60
            text = f"{where}, session token for {minutes:.0f} min more"
            if minutes < 10:
                return "warned", f"{text}: renew it with `oci session refresh --profile {self.options.oci_profile}`"
            return "passed", text
        return "passed", f"{where}, API key of {config.get('user', 'nobody')}"

    def signature(self) -> Verdict:
        """The one call that needs no rights at all."""
        found = self.calls("asking for the namespace", self._ask_namespace).data
        if found != self.namespace:
            return "warned", (
                f"accepted; the namespace of this user's tenancy is {found!r}, that of the URL {self.namespace!r}: "
                "right only if the bucket is another tenancy's and policies of both allow it"
            )
        return "passed", "accepted"

    def _ask_namespace(self, client: Any) -> Any:
        answer = client.get_namespace()
        self._skew = clock_skew(answer.headers)
        return answer

    def clock(self) -> Verdict:
        """By the `Date` of an answer, which counts whole seconds."""
        if self._skew is None:
            return "skipped", "the service did not tell its time"
        text = f"{abs(self._skew):.0f} s {'ahead of' if self._skew > 0 else 'behind'} the service"
        if abs(self._skew) < 30:
            return "passed", text
        return (
            "failed" if abs(self._skew) > SKEW else "warned"
        ), f"{text}, which refuses more than 300 s: set it (NTP)"

    def find_bucket(self) -> Verdict:
        """That it exists, and who may read it."""
        what = f"looking at bucket {self.bucket!r}"
        try:
            self._facts = self.calls(what, lambda c: c.get_bucket(self.namespace, self.bucket)).data
        except BackendError:
            self.reading()  # its objects may be open to a user who may not look at the bucket itself
            return "warned", "it exists, but this user may not look at its settings (BUCKET_READ in a policy would do)"
        if self._facts.public_access_type not in (None, "NoPublicAccess"):
            return "warned", f"it is public ({self._facts.public_access_type}): anybody can read the models"
        return "passed", f"{self.bucket!r} in namespace {self.namespace!r}"

    def versioning(self) -> Verdict:
        """A bucket that keeps old versions keeps what `catalog gc` removes."""
        if self._facts is None:
            return "skipped", "the settings of the bucket cannot be seen"
        if self._facts.versioning == "Enabled":
            return "warned", (
                "enabled: what `catalog gc` deletes stays as an old version and is billed, until a lifecycle rule of "
                "the bucket removes old versions; the catalog itself needs none"
            )
        return "passed", f"{(self._facts.versioning or 'unknown').lower()}"

    def retention(self) -> Verdict:
        """A rule that forbids to delete."""
        if self._facts is None:
            return "skipped", "the settings of the bucket cannot be seen"
        what = "looking for retention rules"
        rules = self.calls(what, lambda c: c.list_retention_rules(self.namespace, self.bucket)).data.items
        if not rules:
            return "passed", "no rules"
        spans = ", ".join(
            f"{rule.duration.time_amount} {rule.duration.time_unit.lower()}" if rule.duration else "for ever"
            for rule in rules
        )
        return "warned", (
            f"{len(rules)} (nothing is deleted or replaced for: {spans}). Saving and loading work; "
            "`catalog gc` fails to remove what is younger, and so does a repair of a damaged blob"
        )

    def reading(self) -> Verdict:
        """By listing one object."""
        self.calls(
            "listing the bucket",
            lambda c: c.list_objects(self.namespace, self.bucket, prefix=self.prefix, limit=1),
        )
        return "passed", "objects can be listed"

    def writing(self) -> Verdict:
        """By a put and a delete whose condition cannot hold: where they are allowed, the service says so, and does
        nothing. (Not settled without a live tenancy: that it looks at rights before conditions.)"""
        from oci.exceptions import ServiceError

        name = f"{self.prefix}probes/never"
        asked = (
            ("put", "writing a probe", lambda c: c.put_object(self.namespace, self.bucket, name, b"", if_match="none")),
            (
                "delete",
                "deleting a probe",
                lambda c: c.delete_object(self.namespace, self.bucket, name, if_match="none"),
            ),
        )
        for verb, what, ask in asked:
            try:
                self.calls(what, ask)
            except ReadOnly:
                return "warned", f"this user may read, but not {verb} objects: enough to load models, not to save them"
            except ServiceError:
                continue  # the condition did not hold
            return "failed", f"the service ignored a condition of a {verb}: without them a catalog is not safe there"
        return "passed", "objects can be put and deleted"
