"""What was done with a model, step by step, in ADS's words."""

from __future__ import annotations

from typing import Any

from catalog_ads.plain import frame, pandas
from catalog_core.errors import NotFound
from catalog_core.names import nearest

RUNTIME = "Generated runtime.yaml"
SCORE = "Generated score.py"
SERIALIZED = "Serialized model"
DESCRIBED = "Populated metadata(Custom, Taxonomy and Provenance)"
VERIFIED = "Local tested .predict from score.py"
INTROSPECTED = "Conducted Introspect Test"
PUBLISHED = "Uploaded artifact to model catalog"
DEPLOYED = "Deployed the model"
CALLED = "Called deployment predict endpoint"
DONE, AVAILABLE, NOT_AVAILABLE = "Done", "Available", "Not Available"
NEEDS_ACTION, NOT_APPLICABLE = "Needs Action", "Not Applicable"
PREPARED = (RUNTIME, SCORE, SERIALIZED, DESCRIBED)
STEPS = {
    "Initiated the model": "initiate", RUNTIME: "prepare()", SCORE: "prepare()", SERIALIZED: "prepare()",
    DESCRIBED: "prepare()", VERIFIED: "verify()", INTROSPECTED: "save()", PUBLISHED: "save()",
    DEPLOYED: "deploy()", CALLED: "predict()",
}  # fmt: skip
COLUMNS = ("Step", "Details", "Status", "Actions Needed")


class Summary:
    """Details, their statuses, and what is to be done for them."""

    def __init__(self) -> None:
        later = [*STEPS][5:]
        self._statuses = {detail: NOT_AVAILABLE if detail in later else AVAILABLE for detail in STEPS}
        self._statuses |= {"Initiated the model": DONE, DEPLOYED: "UNKNOWN"}
        self._actions: dict[str, str] = {}

    def done(self, *details: str) -> None:
        """These were done."""
        for detail in details:
            self.set(detail, DONE, "")

    def available(self, *details: str) -> None:
        """These can be taken now."""
        for detail in details:
            self.set(detail, AVAILABLE)

    def set(self, detail: str, status: str | None = None, action: str | None = None) -> None:
        """Set the status of a detail, or what is to be done for it. Raises `NotFound`."""
        if detail not in STEPS:
            raise NotFound(f"the summary has no {detail!r}", hint=nearest(detail, STEPS) or ", ".join(STEPS))
        if status is not None:
            self._statuses[detail] = status
        if action is not None:
            self._actions[detail] = action

    def from_artifact(self, reload: bool, *, without_score: bool) -> None:
        """The words that ADS has for a model from an artifact: it calls verify and save not available, though they
        are."""
        self._not_prepared(without_score)
        if reload:
            self.set(DESCRIBED, AVAILABLE, "Call .populate_metadata() to populate metadata.")
        for detail in (VERIFIED, INTROSPECTED, PUBLISHED):
            self.set(detail, NOT_AVAILABLE)

    def from_catalog(self, here: bool, ignore_conda_error: bool, *, without_score: bool) -> None:
        """The words that ADS has for a saved model, with its artifact `here` or without."""
        self._not_prepared(without_score)
        self.set(PUBLISHED, NOT_AVAILABLE)
        if not here:
            for detail in (VERIFIED, INTROSPECTED, PUBLISHED):
                self.set(detail, NOT_APPLICABLE)
            self.set(VERIFIED, action="Local artifact is not available. Call .download_artifact().")
            return
        self.set(DESCRIBED, DONE)
        self.set(VERIFIED, AVAILABLE)
        self.set(INTROSPECTED, NOT_AVAILABLE if ignore_conda_error else AVAILABLE)

    def _not_prepared(self, without_score: bool) -> None:
        for detail in PREPARED:
            if not (detail == SCORE and without_score):
                self.set(detail, NOT_APPLICABLE)

    @property
    def df(self) -> Any:
        """The table with a row for each detail, unindexed, as ADS's `SummaryStatus.df`."""
        return frame(self._rows(), COLUMNS)

    def table(self) -> Any:
        """The table as ADS shows it: by step, status and detail."""
        index = pandas().MultiIndex.from_tuples([row[:1] + row[2:3] + row[1:2] for row in self._rows()])
        made = frame([[row[3]] for row in self._rows()], COLUMNS[3:])
        made.index = index.set_names(["Step", "Status", "Details"])
        return made

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [(step, detail, self._statuses[detail], self._actions.get(detail, "")) for detail, step in STEPS.items()]
