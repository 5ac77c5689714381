"""What sessions check at the door."""

from __future__ import annotations

import pickle
import types

import numpy as np
import pytest

from catalog_core.errors import InvalidInput, InvalidName, NotFound
from catalog_core.records import Component, EntryPoint, Manifest, TensorSpec
from catalog_core.session import RESERVED, Session, Together, bind, check_entry_point, check_inputs, fit

POINT = EntryPoint(
    "score",
    ("model",),
    (TensorSpec("left", "float32", ("batch", 2)), TensorSpec("right", "float32", ("batch", None))),
    (),
)


def array(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.zeros(shape, dtype)


def test_fitting_inputs_pass() -> None:
    check_inputs(POINT, {"left": array(5, 2), "right": array(5, 7)})


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"left": array(5, 2)}, "needs the input 'right'"),
        ({"left": array(5, 2), "right": array(5, 1), "rihgt": array(1)}, "has no input 'rihgt'"),
        ({"left": array(5, 3), "right": array(5, 1)}, r"'left'.*expected float32\[batch, 2\].*got float32\[5, 3\]"),
        ({"left": array(5, 2), "right": array(4, 1)}, r"'right'.*batch = 5, got float32\[4, 1\]"),
        ({"left": array(5, 2, dtype="float64"), "right": array(5, 1)}, r"'left'.*got float64\[5, 2\]"),
        ({"left": [1.0], "right": array(5, 1)}, "'left' of score is a list"),
        ({"left": np.ma.array(array(5, 2), mask=True), "right": array(5, 1)}, "'left' of score has a mask"),
    ],
)
def test_what_does_not_fit_is_named(inputs: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_inputs(POINT, inputs)


def test_steps_fit_by_name_else_by_position() -> None:
    assert fit({"a": 1, "b": 2}, ["b"]) == {"b": 2}
    assert fit({"output": 1}, ["input"]) == {"input": 1}
    assert fit({"a": 1, "b": 2}, None) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("values", "inputs"),
    [((1, 2), {}), ((1,), {"right": 2}), ((), {"left": 1, "right": 2}), ((), {"right": 2, "left": 1})],
)
def test_a_call_binds_as_python_does(values: tuple, inputs: dict) -> None:
    assert bind(POINT, values, inputs) == {"left": 1, "right": 2}


@pytest.mark.parametrize(
    ("values", "inputs", "message"),
    [
        ((1, 2, "junk"), {}, r"takes 2 inputs \(left, right\), 3 were given"),
        ((1,), {"left": 2}, "'left' twice"),
        ((1, 2), {"right": None}, "'right' twice"),
    ],
)
def test_no_argument_of_a_call_is_dropped(values: tuple, inputs: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        bind(POINT, values, inputs)


def test_where_no_order_is_known_inputs_go_by_name() -> None:
    bare = EntryPoint("score", ("model",), (), ())
    assert bind(bare, (), {"x": 1}) == {"x": 1}
    with pytest.raises(InvalidInput, match="by name"):
        bind(bare, (1,), {})


def test_what_a_session_has_of_its_own_names_no_entry_point() -> None:
    artifact = types.SimpleNamespace(manifest=Manifest((), ()))
    for kind in (Session, *Session.__subclasses__()):
        made = Session(artifact, "cpu")  # type: ignore[arg-type]
        own = {name for name in (*dir(kind), *vars(made)) if not name.startswith("_")}
        assert own <= set(RESERVED), kind
    for name in RESERVED:
        with pytest.raises(InvalidName, match=f"cannot be called '{name}'"):
            check_entry_point(name)
    assert check_entry_point("running") == "running"


def test_an_older_entry_point_of_such_a_name_is_reached_by_run() -> None:
    """What was published before the names were refused."""

    class Echo:
        manifest = Manifest((), (EntryPoint("run", ("model",)), EntryPoint("close", ("model.close",))))

        def component(self, name: str, device: str | None = None, **options: object) -> object:
            return name

        def call(self, component: str, obj: object, method: str, inputs: dict) -> dict:
            return {"y": (method, inputs)}

    session = Session(Echo(), "cpu")  # type: ignore[arg-type]
    assert session.run("run", {"x": 1}) == {"y": ("forward", {"x": 1})}
    assert session.run("close", {}) == {"y": ("close", {})}


def test_a_session_says_why_it_is_not_pickled() -> None:
    with pytest.raises(InvalidInput, match="cannot be pickled"):
        pickle.dumps(Session(types.SimpleNamespace(manifest=Manifest((), ())), "cpu"))  # type: ignore[arg-type]


class _Echo:
    """An artifact whose one step gives back what it got."""

    manifest = Manifest((), (POINT, EntryPoint("free", ("model",))))

    def component(self, name: str, device: str | None = None, **options: object) -> None:
        return None

    def call(self, component: str, obj: object, method: str, inputs: dict) -> dict:
        return dict(inputs)


@pytest.mark.parametrize("entry", ["score", "free"])
@pytest.mark.parametrize("inputs", [array(5, 2), None, [array(5, 2)], (), 5, "left"])
def test_run_takes_inputs_by_name(entry: str, inputs: object) -> None:
    session = Session(_Echo(), "cpu")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=f"the inputs of {entry} are arrays by name, not an? "):
        session.run(entry, inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("entry", [5, None, ["score"], {"score": 1}])
def test_an_entry_point_is_named_by_text(entry: object) -> None:
    session = Session(_Echo(), "cpu")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="there is no entry point"):
        session.run(entry, {})  # type: ignore[arg-type]


def test_a_range_of_what_has_no_order_is_passed_over() -> None:
    """An older release let it be declared."""
    spec = TensorSpec("word", "string", ("batch",), minimum=0.0)
    check_inputs(EntryPoint("read", ("model",), (spec,)), {"word": np.array(["a", None], object)})


# -- the end of a session ----------------------------------------------------------------------------------------------


class Held:
    """An artifact of two components, each of another serializer, that counts what it loads and forgets."""

    what = "m@3"
    manifest = Manifest(
        (Component("first", "one", ()), Component("second", "two", ())),
        (EntryPoint("score", ("first.run", "second.run")), EntryPoint("half", ("first.run",))),
    )

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.released = 0

    def component(self, name: str, device: str | None = None, **options: object) -> str:
        self.loaded.append(name)
        return name

    def call(self, component: str, obj: object, method: str, inputs: dict) -> dict:
        return {"y": inputs["x"] + 1}

    def fit(self, component: str, obj: object, method: str, values: dict) -> dict:
        return {"x": values["y"]}

    def release(self) -> None:
        self.released += 1


class Runner:
    """A runtime of a stranger, whose sessions are its own."""

    def __init__(self) -> None:
        self.opened: list[Session] = []
        self.closed = 0
        self.fails = False

    def open(self, artifact: Held, device: str, options: dict) -> Session:
        if self.fails:
            raise InvalidInput("it does not open")
        runner = self

        class Mine(Session):
            def close(self) -> None:
                runner.closed += 1
                super().close()

        self.opened.append(Mine(artifact, device, options))  # type: ignore[arg-type]
        return self.opened[-1]


def closed(session: Session, *, by: str) -> Session:
    if by == "close":
        session.close()
        session.close()  # once more does nothing
    elif by == "with":
        with session as same:
            assert same is session
    else:
        with pytest.raises(ZeroDivisionError), session:
            raise ZeroDivisionError
    return session


@pytest.mark.parametrize("by", ["close", "with", "an error"])
@pytest.mark.parametrize("together", [False, True], ids=["one runtime", "two runtimes"])
def test_a_session_that_ended_runs_nothing_and_loads_nothing(by: str, together: bool) -> None:
    artifact, runners = Held(), (Runner(), Runner())
    kinds = {"one": (runners[0], ["cpu"]), "two": (runners[1], ["cpu"])}
    session = Together(kinds).open(artifact, "cpu", {}) if together else Session(artifact, "cpu")  # type: ignore[arg-type]
    score = session.score  # what was taken before the end is of the session too
    assert session.run("score", {"x": np.ones(2)})["y"].tolist() == [3, 3]
    before = list(artifact.loaded)
    closed(session, by=by)
    assert artifact.released and [runner.closed for runner in runners] == [int(together)] * 2
    calls = (
        lambda: session.run("score", {"x": np.ones(2)}), lambda: session.half(x=np.ones(2)),
        lambda: score(x=np.ones(2)), lambda: session.run("no such", {}), session.__enter__,
    )  # fmt: skip
    for call in calls:
        with pytest.raises(InvalidInput, match=r"this session of m@3 was closed") as caught:
            call()
        assert "catalog.session(reference)" in str(caught.value.hint)
    assert artifact.loaded == before
    for runner in runners:
        for inner in runner.opened:
            with pytest.raises(InvalidInput, match="was closed"):
                inner.run(next(iter(inner.entry_points)), {"x": np.ones(2)})


def test_of_two_runtimes_the_first_is_closed_where_the_second_does_not_open() -> None:
    runners = (Runner(), Runner())
    runners[1].fails = True
    with pytest.raises(InvalidInput, match="it does not open"):
        Together({"one": (runners[0], ["cpu"]), "two": (runners[1], ["cpu"])}).open(Held(), "cpu", {})  # type: ignore[arg-type]
    assert runners[0].closed == 1
