"""What stands in void branches comes back: intents that were acknowledged by a primary, and not replicated before
another part took over.

An intent keeps its id, so it counts once, whoever brings it and how often. Where nothing in its way changed it is
written again as it was; a version whose number was given away meanwhile gets a new one, and what refers to it follows;
what somebody else changed first is a conflict. Both are for a person to decide.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs

from catalog_core import state, writer
from catalog_core.branches import Branches, Found
from catalog_core.digests import canonical
from catalog_core.errors import BlobMissing, NotFound, NotReplicated, Rejected, UpgradeRequired
from catalog_core.events import Intent, event, write_entry
from catalog_core.index import Index
from catalog_core.interfaces.backend import Head
from catalog_core.objectstore import blob_key
from catalog_core.page import Shown
from catalog_core.reducer import BROKEN
from catalog_core.spool import received
from catalog_core.sync import replicated

if TYPE_CHECKING:
    from catalog_core.repository import Repository

DROPS = 300  # ids in one event
Outcome = Literal["ready", "renumber", "conflict", "replayed", "dropped"]
log = logging.getLogger("catalog_core")


@attrs.frozen
class Void(Shown):
    """An intent in a void branch: `part`, `epoch` and `position` say where. `outcome` is ready (nothing is in its way;
    its bytes are looked for when it is written), renumber (its version would get another number), conflict (`why` shows
    what is in its way), replayed or dropped; `becomes` are the references that it would get, or got; `why` also tells
    what does not come back."""

    id: str
    part: str
    epoch: int
    position: int
    actor: str
    time: float
    what: tuple[str, ...]
    outcome: Outcome
    becomes: tuple[str, ...] = ()
    why: str | None = None


class _Called:
    """What versions that were published in void branches are called now: by epoch, model and number there. None is one
    that nobody brought back yet, or ever will; whatever names it is a conflict, and never meant for its namesake."""

    def __init__(self, branches: Branches) -> None:
        self._forks, self._places = branches.forks, branches.places
        self._now: dict[tuple[int, str, int], tuple[int, int | None]] = {}
        for place in (place for places in self._places.values() for place in places):
            for item in _publishes(place.stored["events"]):
                self._now[place.epoch, item["model"], item["number"]] = place.position, None

    def note(self, found: Found, events: Iterable[Mapping[str, Any]]) -> None:
        """The intent is here, as `events`."""
        now = _publishes(events)
        for place in self._places[found.stored["id"]]:
            for old, new in zip(_publishes(place.stored["events"]), now, strict=True):
                self._now[place.epoch, old["model"], old["number"]] = place.position, new["number"]

    def __call__(self, epoch: int, model: str, number: int) -> int:
        """The present number of what a branch calls `model@number`. Raises `Rejected`."""
        at, last = epoch, math.inf
        while True:
            found = self._now.get((at, model, number))
            if found is not None and found[0] <= last:
                if found[1] is None:
                    raise Rejected(f"{model}@{number} of that branch is not here", code="absent")
                return found[1]
            if at not in self._forks:
                return number
            at, fork = self._forks[at]
            last = min(last, fork)


def _publishes(events: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event["type"] == "version.published"]


def _came(index: Index, found: Found, position: int) -> Sequence[Mapping[str, Any]] | None:
    """The events of an intent that the entry at `position` brought back; None where it dropped it."""
    entry = state.entry(index, position) or {"intents": ()}
    same = found.stored["id"], found.stored["actor"]
    return next((intent["events"] for intent in entry["intents"] if (intent["id"], intent["actor"]) == same), None)


def _adapted(
    index: Index, branches: Branches, found: Found, called: _Called, held: Head | None, *, take: bool
) -> list[dict[str, Any]]:
    """The events as they can be written on the present state; at `held` their blobs were known to be there. With `take`
    they go over what somebody else changed. Raises `Rejected` for what cannot come back, or names what is not here."""
    given: dict[tuple[str, int], int] = {}
    result: list[dict[str, Any]] = []
    for old in found.stored["events"]:
        new = dict(old)
        model, number = old.get("model"), old.get("number")
        if new["type"] == "model.deleted" and not take:
            _check_seen(index, branches, found, str(model))
        if new["type"] == "alias.set" and new["seen"] == "any" and not take:
            others = _others(index, branches, found, "alias.set", str(model))
            if any(event["alias"] == new["alias"] for event in others):
                if result:  # the version comes without the alias
                    continue
                raise Rejected(f"alias {model}@{new['alias']} was changed by somebody else", code="seen")
        if new["type"] == "blobs.erased":
            refs = ", ".join(f"{name}@{number}" for name, number in new["versions"])
            raise Rejected(
                f"an erasure is worked out anew, not brought back: `catalog erase` {refs}, then --drop this",
                code="erasure",
            )
        if new["type"] == "version.published":
            taken = [now for (name, _), now in given.items() if name == model]
            number = max([state.given_number(index, old["model"]), *taken]) + 1
            new["number"] = given[old["model"], old["number"]] = number
        elif isinstance(model, str) and isinstance(number, int):
            new["number"] = given.get((model, number)) or called(found.epoch, model, number)
        if new["type"] == "alias.set" and isinstance(new["seen"], int) and not take:
            new["seen"] = called(found.epoch, new["model"], new["seen"])
        if "checked" in new:
            new["checked"] = -1 if held is None else held.position  # its blobs were brought to where that state looks
        if take and "seen" in new:
            new["seen"] = _present(index, new)
        result.append(new)
    return result


def _others(index: Index, branches: Branches, found: Found, kind: str, model: str) -> Iterator[Mapping[str, Any]]:
    """The events of the present journal that whoever made the intent did not know."""
    for position, ordinal in state.places(index, kind, after=found.shared, model=model):
        entry = state.entry(index, position) or {"intents": ()}
        ids = [intent["id"] for intent in entry["intents"] for _ in intent["events"]]
        if ids[ordinal] not in branches.places:
            yield index.event(position, ordinal)


def _check_seen(index: Index, branches: Branches, found: Found, model: str) -> None:
    """Raise `Rejected` where a model has versions that were not there for whoever deleted it."""
    others = _others(index, branches, found, "version.published", model)
    new = [f"{model}@{event['number']}" for event in others]
    if new:
        raise Rejected(f"{model} was deleted before {', '.join(new)} came", code="seen")


def _present(index: Index, item: Mapping[str, Any]) -> Any:
    """What stands now where the event would change something."""
    model = item["model"]
    if item["type"] == "alias.set":
        return "any"
    if item["type"] == "stage.set":
        version = state.standing(index, model, item["number"])
        return version and version.stage
    present = state.model_named(index, model)
    if item["type"] == "card.set":
        return present and present.card
    return {key: getattr(present, key, None) if key in state.FIELDS else None for key in item["set"]}


def _refs(events: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(f"{e['model']}@{e['number']}" for e in events if e["type"] == "version.published")


def _what(item: Mapping[str, Any]) -> str:
    model, number = item.get("model"), item.get("number")
    return " ".join(str(part) for part in (item["type"], f"{model}@{number}" if number else model) if part)


def reconcile(
    repository: Repository,
    *,
    apply: bool = False,
    renumber: bool = False,
    take: Iterable[str] = (),
    drop: Iterable[str] = (),
) -> list[Void]:
    """Show the void intents that nobody brought back or dropped yet; with `apply`, write those that are ready, with
    `renumber` those under new numbers too. `take` are ids (or their beginnings) of conflicts in which the void side
    wins, `drop` of intents that are to stay void for good. What is left is shown with the reason. A replica that does
    not follow is a warning. Raises `NotFound` for an id that is not there, `ReadOnly`."""
    repository.refresh(force=True)
    branches = Branches(repository, replicated(repository))
    index = repository.index
    ids = {found.stored["id"] for found in branches.found}
    taken, dropped = _ids(take, ids), _ids(drop, ids)
    if apply or taken or dropped:
        repository.check_writable()
        repository.check_epoch()
    _drop(repository, sorted(dropped))
    called = _Called(branches)
    result: list[Void] = []
    trial = index if apply else index.copy()
    try:
        for found in branches.found:
            known = index.seen(found.stored["id"], found.stored["actor"])
            if known is not None:
                came = _came(index, found, known)
                if came is not None:
                    called.note(found, came)
                if found.stored["id"] in dropped:
                    result.append(_void(found, "dropped"))
                continue
            result.append(
                _one(repository, branches, found, called, trial, apply, renumber, found.stored["id"] in taken)
            )
    finally:
        if trial is not index:
            trial.close()
    if repository.follower is not None and (dropped or any(void.outcome == "replayed" for void in result)):
        try:
            repository.follower.follow()
        except NotReplicated as exc:
            log.warning("%s", exc)
    return result


def _drop(repository: Repository, ids: Sequence[str]) -> None:
    for start in range(0, len(ids), DROPS):
        told = event("intents.dropped", ids=ids[start : start + DROPS], reason="reconciled")
        writer.commit(repository.backend, repository.index, repository.actor, lambda _, told=told: [told], {})  # type: ignore[misc]


def _ids(given: Iterable[str], known: set[str]) -> set[str]:
    result = set()
    for begin in given:
        matching = [id for id in known if id.startswith(begin)]
        if len(matching) != 1:
            raise NotFound(f"{begin!r} is the id of {len(matching) or 'no'} void intents", hint="catalog reconcile")
        result.add(matching[0])
    return result


def _void(found: Found, outcome: Outcome, becomes: tuple[str, ...] = (), why: str | None = None) -> Void:
    stored = found.stored
    what = tuple(_what(item) for item in stored["events"])
    return Void(
        stored["id"], found.part, found.epoch, found.position, stored["actor"], stored["time"] / 1000, what,
        outcome, becomes, why,
    )  # fmt: skip


def _one(
    repository: Repository, branches: Branches, found: Found, called: _Called, trial: Index,
    apply: bool, renumber: bool, take: bool,
) -> Void:  # fmt: skip
    """Bring one intent back, or only try it."""
    becomes: tuple[str, ...] = ()
    try:
        held = repository.index.head
        events = _adapted(trial, branches, found, called, held, take=take)
        becomes = _refs(events)
        renumbered = becomes != _refs(found.stored["events"])
        if not apply or (renumbered and not (renumber or take)):
            _try(trial, _intent(repository, found, events), stays=not apply)
            if not apply:
                called.note(found, events)
            return _void(found, "renumber" if renumbered else "ready", becomes, _left(found, events))
        blobs = _bring(repository, branches, found)

        def made(index: Index) -> Intent:
            nonlocal events
            events = _adapted(index, branches, found, called, held, take=take)
            if _refs(events) != becomes and not renumber:
                raise Rejected("somebody published meanwhile", code="number")
            return _intent(repository, found, events)

        writer.commit(repository.backend, repository.index, repository.actor, made, blobs)
        called.note(found, events)
    except (BlobMissing, UpgradeRequired, *BROKEN) as exc:
        return _void(found, "conflict", becomes, str(exc))
    return _void(found, "replayed", _refs(events), _left(found, events))


def _left(found: Found, events: Sequence[Mapping[str, Any]]) -> str | None:
    """What of an intent does not come back."""
    kept = {(event["type"], event.get("alias")) for event in events}
    lost = [event for event in found.stored["events"] if (event["type"], event.get("alias")) not in kept]
    return "; ".join(f"without the alias {e['alias']}, which somebody else has set since" for e in lost) or None


def _intent(repository: Repository, found: Found, events: list[dict[str, Any]]) -> Intent:
    """The intent as it is written again: its own fields (a signature too) as they were, and who brought it. Where its
    events had to change, the original ones stand beside them."""
    stored = found.stored
    base = stored["based_on"]
    more = {k: v for k, v in stored.items() if k not in ("id", "actor", "time", "based_on", "events", "replayed")}
    about: dict[str, Any] = {"by": repository.actor, "epoch": found.epoch, "position": found.position}
    if canonical(events) != canonical(stored["events"]):
        about["events"] = stored.get("replayed", {}).get("events", stored["events"])
    return Intent(
        stored["id"], stored["actor"], stored["time"], base and Head(**base), tuple(events), {**more, "replayed": about}
    )


def _try(index: Index, intent: Intent, *, stays: bool) -> None:
    """Let the intent take effect, for good or not. Raises what the reducer raises."""
    index.__enter__()
    done = False
    try:
        head, epoch = index.head, index.epoch
        data = write_entry(head, time.time_ns() // 1_000_000, [intent], None, epoch)
        index.apply(0 if head is None else head.position + 1, data, strict=True, epoch=epoch)
        done = stays
    finally:
        index.__exit__(None if done else Rejected, None, None)


def _bring(repository: Repository, branches: Branches, found: Found) -> dict[str, bytes]:
    """Copy the blobs that the intent relies on to where the present state looks for them; return the small ones, which
    go into the entry. Raises `BlobMissing` where no part has one."""
    small: dict[str, bytes] = {}
    for digest in dict.fromkeys(branches.digests(found)):
        repository.index.refuse_erased(digest)
        if digest in branches.inlined:
            small[digest] = branches.inlined[digest]
        elif not _carry(repository, branches, found.part, digest):
            data = branches.of_journal(digest)
            if data is None:
                raise BlobMissing(f"it needs {digest}, which no part has", hint="drop it: catalog reconcile --drop ID")
            small[digest] = data
    return small


def _carry(repository: Repository, branches: Branches, part: str, digest: str) -> bool:
    """Let the primary have a blob that a void branch relies on; whether any part has it."""
    index, blobs = repository.index, repository.backend.blobs
    key = index.key(digest)
    if state.is_inlined(index, key) or blobs.stat(key) is not None:
        return True
    for store in branches.beginning_with(part):
        for info in list(store.list(blob_key(digest))):  # a sweep of that branch may have given it another key
            try:
                with store.get(info.key) as stream, received(stream) as blob:
                    if blob.digest == digest:
                        blobs.put(key, blob.file, blob.size)
                        return True
            except BlobMissing:
                continue
    return False
