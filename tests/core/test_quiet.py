"""A framework is kept quiet in one thread; the rest of the process goes on logging, warning and printing."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from catalog_core.quiet import quiet

LOUD = logging.getLogger("loud.deep.inside")


@pytest.fixture
def heard(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """What was logged, warned of and printed since it was asked last."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)

    def take() -> list[str]:
        found = [*records, *capsys.readouterr().err.split()]
        records.clear()
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: records.append(str(message))
        yield take
    logging.getLogger().removeHandler(handler)


def _speak() -> None:
    LOUD.error("logged")
    logging.getLogger("app").error("app")
    warnings.warn("warned", stacklevel=1)
    print("printed", file=sys.stderr)


def _elsewhere(what: Callable[[], None]) -> None:
    thread = threading.Thread(target=what)
    thread.start()
    thread.join()


ALL = ["logged", "app", "warned", "printed"]


def test_only_the_thread_that_asked_is_quiet(heard: Callable[[], list[str]]) -> None:
    with quiet("loud"):
        _speak()
        assert heard() == ["app"]
        _elsewhere(_speak)
        assert heard() == ALL
        with quiet("app"):
            _speak()
            assert heard() == []
        _speak()
        assert heard() == ["app"]
    _speak()
    assert heard() == ALL


def test_two_threads_that_end_in_another_order_than_they_began_leave_all_as_it_was(
    heard: Callable[[], list[str]],
) -> None:
    stream, level = sys.stderr, logging.root.manager.disable
    first, second = quiet("loud"), quiet("loud")
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with second:
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with first:
        thread.start()
        entered.wait()
    _speak()
    assert heard() == ALL
    leave.set()
    thread.join()
    _speak()
    assert heard() == ALL
    assert sys.stderr is stream and logging.root.manager.disable == level


def test_loggers_that_are_made_meanwhile_are_quiet_too(heard: Callable[[], list[str]]) -> None:
    """An import that a framework puts off makes them."""
    with quiet("loud"):
        logging.getLogger("loud.made.later").error("later")
        logging.getLogger("app.made.later").error("app")
        assert heard() == ["app"]
        _elsewhere(lambda: logging.getLogger("loud.made.elsewhere").error("elsewhere"))
        assert heard() == ["elsewhere"]
    logging.getLogger("loud.made.later").error("later")
    assert heard() == ["later"]


def test_an_error_ends_the_quiet(heard: Callable[[], list[str]]) -> None:
    stream = sys.stderr
    with pytest.raises(ZeroDivisionError), quiet("loud"):
        raise ZeroDivisionError
    _speak()
    assert heard() == ALL and sys.stderr is stream
