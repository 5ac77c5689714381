"""What was done with a model, step by step, as ADS shows it."""

from __future__ import annotations

from collections.abc import Collection

from catalog_ads.metadata import Table
from catalog_core.errors import NotFound
from catalog_core.names import nearest

PREPARED = ("Staged the model", "Generated runtime.yaml")
SCORE = "Generated score.py"
DESCRIBED = "Populated metadata and schema"
VERIFIED = "Checked in a fresh process"
INTROSPECTED = "Introspected the artifact"
PUBLISHED = "Published"
CALLED = "Called"
STEPS = {
    "Initiated the model": "initiate", PREPARED[0]: "prepare()", SCORE: "prepare()", PREPARED[1]: "prepare()",
    DESCRIBED: "prepare()", VERIFIED: "verify()", INTROSPECTED: "save()", PUBLISHED: "save()",
    "Deployed": "deploy()", CALLED: "predict()",
}  # fmt: skip


class Summary:
    """Details and their statuses; those that nobody set are Available or Not Available."""

    def __init__(self) -> None:
        self._statuses = {"Initiated the model": "Done"}
        self._actions = {"Deployed": "follows with the deployers"}

    def done(self, *details: str) -> None:
        """These were done."""
        self._statuses |= dict.fromkeys(details, "Done")

    def set(self, detail: str, status: str | None = None, action: str | None = None) -> None:
        """Set the status of a detail, or what is to be done for it. Raises `NotFound`."""
        if detail not in STEPS:
            raise NotFound(f"the summary has no {detail!r}", hint=nearest(detail, STEPS) or ", ".join(STEPS))
        if status is not None:
            self._statuses[detail] = status
        if action is not None:
            self._actions[detail] = action

    def rows(self, available: Collection[str], why_not: str) -> Table:
        """The table, where the steps `available` can be taken now; `why_not` is why there is no `score.py`."""
        rows = Table()
        for detail, step in STEPS.items():
            status = self._statuses.get(detail) or ("Available" if step in available else "Not Available")
            action = self._actions.get(detail, "")
            if detail == SCORE and why_not:
                status, action = "Needs Action", why_not
            rows.append({"Step": step, "Details": detail, "Status": status, "Actions Needed": action})
        return rows
