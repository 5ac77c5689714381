"""How a model of ADS's classes is verified and run, before and after it is published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from catalog_ads import summary
from catalog_ads.payload import arrays, envelope
from catalog_ads.writer import columns_of
from catalog_core.columns import columns, is_frame
from catalog_core.errors import InvalidInput, NotFound, NotTrusted, VerificationFailed
from catalog_core.records import EntryPoint, step_of
from catalog_core.shown import an

if TYPE_CHECKING:
    from catalog_ads.folder import ArtifactFolder
    from catalog_core import Catalog
    from catalog_core.draft import Draft
    from catalog_core.handles import Version
    from catalog_core.verify import Report


class Runs:
    """`verify`, `predict` and `reload`."""

    _artifact: ArtifactFolder
    _draft: Draft | None
    _session: Any
    _summary: summary.Summary
    _trust: bool
    estimator: Any
    model_id: str | None
    report: Report | None

    if TYPE_CHECKING:

        @property
        def catalog(self) -> Catalog:
            """The catalog."""

        def _version(self) -> Version: ...

    def verify(
        self, data: Any = None, reload_artifacts: bool = True, auto_serialize_data: bool = False,
        *, entry: str | None = None, **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Check the model in a fresh process, and return what `score.py` answers for `data` in another. A `score.py`
        of somebody's own gets `data` as they are, unless `auto_serialize_data`; else they are put into the payload of
        ADS. Raises `VerificationFailed` with the table of checks, `SerializationError` with what `score.py` printed
        last."""
        if self._draft is not None:
            self.report = self._draft.verify(trust=self._trust)
        else:
            self.report = self.catalog.verify(self._version(), trust=self._trust)
        self._summary.set(summary.VERIFIED, "Done" if self.report.passed else "Failed")
        if not self.report.passed:
            raise VerificationFailed(f"the model fails: {self.report.reason}", report=self.report)
        return self._scored(data, entry, auto_serialize_data) if data is not None else {"prediction": None}

    def _scored(self, data: Any, entry: str | None, auto: bool) -> dict[str, Any]:
        code = self._holds_code()
        if code and not self._trust:
            raise NotTrusted("score.py is code that its author wrote", hint="trust=True, if you trust the author")
        if not code or auto:
            return self._artifact.answer(envelope(data, entry))
        try:
            json.dumps(data)
        except (TypeError, ValueError) as exc:
            raise InvalidInput(
                f"{an(type(data).__name__)} is no JSON, and this score.py is your own",
                hint="auto_serialize_data=True puts it into the payload of ADS",
            ) from exc
        return self._artifact.answer(data)

    def predict(
        self, data: Any = None, auto_serialize_data: bool = False, local: bool = False,
        *, entry: str | None = None, **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """What the model gives for `data`, here: there is no deployment. `entry` names another entry point than the
        usual one. A published model runs in this process, a draft in a fresh one."""
        if data is None:
            raise InvalidInput("there are no data", hint="predict(data)")
        self._summary.done(summary.CALLED)
        if self.model_id is None or self._holds_code(entry or "predict"):
            return self._scored(data, entry, auto_serialize_data)
        if self._session is None:
            self._session = self.catalog.session(self.model_id)
        points = self._session.entry_points
        if not points:
            raise NotFound(f"{self.model_id} has no entry points", hint="prepare(X_sample=…)")
        chosen = entry or ("predict" if "predict" in points else next(iter(points)))
        point = points.get(chosen)
        inputs = self._inputs(data, point)
        if point is not None and not point.inputs:  # no example was run: the component knows the names
            name, method = step_of(point.steps[0])
            artifact = self._session._artifact
            inputs = artifact.fit(name, artifact.component(name), method, inputs)
        outputs = self._session.run(chosen, inputs)
        classes = getattr(self.estimator, "classes_", None)
        plain = {
            name: (classes[value] if name == "index" and classes is not None else value).tolist()
            for name, value in outputs.items()
        }
        return {"prediction": next(iter(plain.values())) if len(plain) == 1 else plain}

    def _inputs(self, data: Any, point: EntryPoint | None) -> dict[str, Any]:
        """Data by the names of the inputs. A data frame that becomes one array comes in the order of the columns that
        the model knows. Raises `InvalidInput` for other columns."""
        specs = point.inputs if point is not None else ()
        if not is_frame(data) or point is None:
            return arrays(data, specs)
        names = [str(name) for name in data.columns]
        if set(names) & {spec.name for spec in specs}:
            return dict(columns(data))
        artifact = self._session._artifact
        first, _ = step_of(point.steps[0])
        order = artifact.in_order(first, artifact.component(first), names) or columns_of(artifact.manifest.provenance)
        if order and set(order) != set(names):
            raise InvalidInput(
                f"it takes the columns {', '.join(order)}, not {', '.join(names)}"[:300], hint="those of X_sample"
            )
        return arrays(data[list(order)] if order else data, specs)

    def _holds_code(self, entry: str | None = None) -> bool:
        """Whether a component, of an entry point or at all, is somebody's own `score.py`."""
        manifest = self._version().manifest if self._draft is None else self._draft.manifest
        steps = next((point.steps for point in manifest.entry_points if point.name == entry), ())
        used = {step_of(step)[0] for step in steps} or {component.name for component in manifest.components}
        return any(component.serializer == "generic" for component in manifest.components if component.name in used)

    def reload(self) -> Self:
        """Let go of what is loaded: the next call takes the artifact as it is then."""
        if self._session is not None:
            self._session.close()
            self._session = None
        return self
