"""The weights page as rows: what stands where, in which words, with which buttons.

Pure functions over a `WeightsStore`; called again after every change, so they must be cheap: a
few µs a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from desktop_app.errors import KnownError
from desktop_app.ui.rows_view import Row
from desktop_app.ui.weights_details import key_of
from desktop_app.ui.weights_notes import Details, Gate
from desktop_app.ui.weights_rows import Badge, Line, Tool
from desktop_app.ui.weights_store import WeightsStore
from desktop_app.ui.weights_words import (
    ACCESS,
    Verdict,
    computer_words,
    context_choice,
    context_words,
    download_facts,
    entry_facts,
    facts,
    header_facts,
    licence_words,
    memory_words,
    quality_words,
    result_facts,
    time_left,
    used_words,
    verdict,
)
from desktop_app.ui.words import tr
from desktop_app.weights.catalogue import Suggestion
from desktop_app.weights.downloads import Download
from desktop_app.weights.fit import size_text
from desktop_app.weights.gguf import Header
from desktop_app.weights.hub import Repository, RepositorySummary
from desktop_app.weights.hub_files import Quantisation
from desktop_app.weights.shelf import Entry

HEAD_PX, LINE_PX, LEAD_PX, DOWNLOAD_PX, INSTALLED_PX, FILE_PX = 56, 56, 107, 87, 53, 48
NOTE_PX, GATE_PX, FIRST_HEAD_PX, FAILED_PX, DETAILS_PX = 60, 136, 48, 105, 82
FEW = 4


def page_rows(
    store: WeightsStore, in_use: Path | None, guide: Path | None, used: dict[str, int]
) -> list[Row]:
    """Everything, top to bottom.

    `in_use`: the loaded file; `guide`: the built-in weights; `used`: when files were loaded last.
    """
    rows = search_rows(store) if store.words else suggestion_rows(store)
    rows += download_rows(store, rows)
    if not store.words:
        rows += installed_rows(store, in_use, guide, used)
    rows[0] = replace(rows[0], height_px=FIRST_HEAD_PX)
    return rows


def card(rows: list[Row]) -> list[Row]:
    """The same rows as one card."""
    if not rows:
        return rows
    rows[0] = replace(rows[0], first=True)
    rows[-1] = replace(rows[-1], last=True)
    return rows


def head(key: str, title: str, fact: str = "", button: tuple[str, str, str] | None = None) -> Row:
    """A section's heading."""
    line = Line(title, "" if button else fact, button=button, identifier=f"weights.{key}")
    return Row(f"head/{key}", "head", HEAD_PX, line, on_card=False)


def note(key: str, text: str, icon: str = "info", **more: object) -> Row:
    """A sentence on a card of its own."""
    line = Line(text, icon=icon, identifier=f"weights.note_{key}", **more)  # type: ignore[arg-type]  # Line's own fields
    return Row(f"note/{key}", "note", NOTE_PX, line)


# ---- for this computer ---------------------------------------------------------------------------


def suggestion_rows(store: WeightsStore) -> list[Row]:
    """The catalogue: the recommended one first, then what runs well, slowly, and not."""
    computer = computer_words(store.machine) if store.machine is not None else ""
    rows = [head("for_this_computer", tr("weights.for_this_computer"), computer)]
    if not store.suggestions:
        return [*rows, *card([note("looking", tr("weights.looking_computer"), "cpu")])]
    found = store.suggestions
    shown = found if store.show_all else found[:FEW]
    lines = [_offline_note()] if store.offline else []
    wanting = _wanting_access(store)
    for item in shown:
        lines.append(_suggestion(store, item))
        if item.entry.repository in wanting:
            lines.append(_gate(store, item.entry.repository))
    if len(found) > FEW:
        words = tr("weights.fewer" if store.show_all else "weights.all", count=len(found))
        icon = "chevron-up" if store.show_all else "chevron-down"
        fold = Line(words, icon=icon, opens="all", title_role="text2", identifier="weights.all")
        lines.append(Row("fold/catalogue", "line", 40, fold))
    return rows + card(lines)


def _offline_note() -> Row:
    online = (tr("weights.go_online"), "online", "weights.go_online")
    return note("offline_page", tr("weights.offline_page"), "shield-check", button=online)


def _suggestion(store: WeightsStore, item: Suggestion) -> Row:
    entry, choice = item.entry, item.choice
    repository, label = entry.repository, choice.label
    running = store.queue.of(repository, label)
    installed = store.queue.installed(repository, label)
    asking = store.queue.asking.get(f"{repository} {label}", "")
    size = ("≈ " if choice.estimated else "") + size_text(choice.size_bytes)
    text = facts(label, size, licence_words(entry.licence))
    if item.recommended:
        maker = ", ".join(s for s in (entry.maker, licence_words(entry.licence)) if s)
        text = facts(label, size, maker, context_words(entry.context_length))
    suffix = "" if item.recommended else f".{entry.id}"
    words, action, on = tr("weights.download"), "download", item.fit.verdict != "too-big"
    role = "text3"
    if installed is not None:
        words, action, on = tr("weights.use"), f"use {installed.path}", installed.is_ready
    elif running is not None:
        words, on = tr("weights.in_queue"), False
    elif asking is None:
        words, on = tr("weights.asking_hub"), False
    elif isinstance(asking, KnownError):
        text, role = asking.sentence, "clay"
        words = tr("failure.try_again")
    if store.offline and action == "download":
        on = False
    sizes = Tool("sizes", "chevron-down", f"weights.sizes.{entry.id}", tr("weights.other_sizes"))
    line = Line(
        entry.title,
        text,
        facts_role=role,
        verdict=verdict(item.fit),
        badge=Badge(tr("weights.recommended"), "accent", "soft") if item.recommended else None,
        button=(words, action, f"weights.download{suffix}"),
        button_tip=_why_not(store, item) if not on else "",
        button_on=on,
        tools=(sizes,) if len(entry.quantisations) > 1 else (),
        slots=0 if len(entry.quantisations) > 1 else 1,
        tip=text if role == "clay" else entry.sentence,
        share=item.fit.memory_bytes / max(1, item.fit.free_bytes),
        end=memory_words(item.fit) if item.recommended else "",
        identifier=f"weights.suggestion.{entry.id}",
    )
    kind, height = ("lead", LEAD_PX) if item.recommended else ("line", LINE_PX)
    return Row(f"suggestion/{entry.id}", kind, height, line)


def _why_not(store: WeightsStore, item: Suggestion) -> str:
    if store.offline:
        return tr("weights.offline_note")
    found = verdict(item.fit)
    return found.reason if found is not None and item.fit.verdict == "too-big" else ""


# ---- searching -----------------------------------------------------------------------------------


def search_rows(store: WeightsStore) -> list[Row]:
    """The results, those opened with their files."""
    count = len(store.results)
    fact = tr("weights.searching") if store.searching else tr("weights.n_results", count=count)
    told = not store.search_error and not store.offline
    rows = [head("results", tr("weights.on_the_hub"), fact if told else "")]
    if store.offline:
        online = (tr("weights.go_online"), "online", "weights.go_online")
        text = tr("weights.offline_search")
        return rows + card([note("offline", text, "shield-check", button=online)])
    if store.search_error is not None:
        again = (tr("failure.try_again"), "search_again", "weights.search_again")
        error = store.search_error.sentence
        return rows + card([note("search_error", error, "circle-alert", button=again)])
    if not store.results:
        text = tr("weights.searching_for" if store.searching else "weights.nothing_found")
        return rows + card([note("nothing", text, "search")])
    return rows + card(_results(store))


def _results(store: WeightsStore) -> list[Row]:
    """Rows that are still right are used again: there may be 15,000 of them, at every key."""
    rows: list[Row] = []
    with_details = {name for name, _file in store.details.open}
    wanting = _wanting_access(store)
    for found in store.results:
        is_open = found.id in store.open_repositories
        kept = store.result_rows.get(found.id)
        if kept is None or kept[0] is not found or kept[1] is not is_open:
            line = partial(_result, found, is_open=is_open)
            row = Row(f"result/{found.id}", "line", INSTALLED_PX, line)
            kept = store.result_rows[found.id] = (found, is_open, row)
        rows.append(kept[2])
        if is_open:
            rows += _files(store, found, wanting, has_details=found.id in with_details)
    return rows


def _result(found: RepositorySummary, *, is_open: bool) -> Line:
    return Line(
        found.name,
        result_facts(found),
        icon="chevron-down" if is_open else "chevron-right",
        opens="toggle",
        identifier=f"weights.result.{found.id}",
    )


def _files(
    store: WeightsStore, found: RepositorySummary, wanting: set[str], *, has_details: bool
) -> list[Row]:
    files = store.repositories.get(found.id)
    if isinstance(files, KnownError):
        if files.code in ACCESS:
            return [_gate(store, found.id)]
        again = (tr("failure.try_again"), f"files {found.id}", "weights.files_again")
        return [note(f"files/{found.id}", files.sentence, "circle-alert", button=again)]
    if files is None:
        return [note(f"files/{found.id}", tr("weights.asking_files"), "loader-circle")]
    kept = store.file_rows.get(found.id)
    if kept is None or kept[0] is not files:
        kept = (files, list(_file_rows(store, files)))
        store.file_rows[found.id] = kept
    rows = kept[1]
    if has_details:
        rows = []
        for row, item in zip(kept[1], files.quantisations, strict=True):
            rows.append(row)
            if key_of(files, item) in store.details.open:
                rows.append(_details(store, files, item))
    if not rows:
        rows = [note(f"files/{found.id}", tr("weights.no_files"), "info")]
    # What became of a token that was just given is told, then the field has served.
    asks = files.gated and (not store.has_token or bool(store.token_state))
    if asks or found.id in wanting:
        return [_gate(store, found.id), *rows]
    return rows


def _wanting_access(store: WeightsStore) -> set[str]:
    """Repositories of which something was refused for want of an account's token."""
    found = {item.repository for item in store.downloads if item.error in ACCESS}
    for key, error in store.queue.asking.items():
        if isinstance(error, KnownError) and error.code in ACCESS:
            found.add(key.partition(" ")[0])
    return found


def _gate(store: WeightsStore, name: str) -> Row:
    state = store.token_state
    words, role = "", "text3"
    if isinstance(state, KnownError):
        words, role = state.sentence, "clay"
    elif state:
        words = tr(f"weights.token_{state}")
    assert store.room is not None
    page = f"{store.room.hub.endpoint}/{name}"
    gate = Gate(page, words, role, state == "checking")
    return Row(f"gate/{name}", "gate", GATE_PX, gate)


def _file_rows(store: WeightsStore, files: Repository) -> Iterator[Row]:
    labels = Counter(item.label for item in files.quantisations)
    for item in files.quantisations:
        line = partial(_file_line, store, files, item, is_twin=labels[item.label] > 1)
        yield Row(f"file/{files.id}/{item.name}", "line", FILE_PX, line)


def _file_line(
    store: WeightsStore, files: Repository, item: Quantisation, *, is_twin: bool
) -> Line:
    """`is_twin`: another file of the repository has the same quantisation."""
    running = store.queue.of(files.id, item.label, item)
    installed = store.queue.installed(files.id, item.label, item)
    words, action, on = tr("weights.download"), f"get {item.name}", True
    if installed is not None:
        words, action, on = tr("weights.use"), f"use {installed.path}", installed.is_ready
    elif running is not None:
        words, on = tr("weights.in_queue"), False
    fit = store.details.fit(files, item)
    if item.is_incomplete or (fit is not None and fit.verdict == "too-big" and not installed):
        on = False
    found = verdict(fit)
    text = item.name if is_twin else quality_words(item.label)
    if item.is_incomplete:
        text = tr("weights.parts_missing")
    name = item.name if is_twin else item.label
    is_open = key_of(files, item) in store.details.open
    return Line(
        item.label,
        text,
        aside=size_text(item.size_bytes),
        verdict=found,
        button=(words, action, f"weights.get.{files.id}.{name}"),
        button_on=on and not (store.offline and installed is None),
        button_tip=_why_no_file(store, found, on=on, is_here=installed is not None),
        icon="chevron-down" if is_open else "chevron-right",
        opens=f"details {item.name}",
        identifier=f"weights.file.{files.id}.{name}",
        indent=22,
    )


def _why_no_file(store: WeightsStore, found: Verdict | None, *, on: bool, is_here: bool) -> str:
    if not on:
        return found.reason if found is not None else ""
    return tr("weights.offline_note") if store.offline and not is_here else ""


def _details(store: WeightsStore, files: Repository, item: Quantisation) -> Row:
    """What the header says, or why it is not known; and the context to judge by."""
    key = key_of(files, item)
    header = store.details.headers.get(key)
    found = verdict(store.details.fit(files, item))
    reason = found.reason if found is not None else ""
    chosen = store.details.contexts.get(key, 0)
    told, text, role = "", reason, "text2"
    if isinstance(header, Header):
        told = header_facts(header)
    elif isinstance(header, KnownError):
        text, role = header.sentence, "clay"
    elif key in store.details.headers:
        told = tr("weights.header_asking")
    else:
        told = tr("weights.by_size_only" if item.is_incomplete else "weights.by_size")
    shown = Details(
        told,
        text,
        context_choice(chosen, store.details.fit(files, item)),
        f"{files.id}.{item.name}",
        again=isinstance(header, KnownError) and not store.offline,
        role=role,
    )
    return Row(f"details/{files.id}/{item.name}", "details", DETAILS_PX, shown)


# ---- downloading ---------------------------------------------------------------------------------


def download_rows(store: WeightsStore, above: list[Row]) -> list[Row]:
    """The queue in its order.  `above`: the rows that stand above, perhaps with token fields."""
    items = store.downloads
    if not items:
        return []
    ended = [item for item in items if item.state == "done"]
    clear = (tr("weights.clear_finished"), "clear", "weights.clear_finished") if ended else None
    rows = [head("downloading", tr("weights.downloading"), "", clear)]
    waiting = store.queue.waiting()
    lines: list[Row] = []
    for item in items:
        lines.append(_download(item, waiting))
        gate = f"gate/{item.repository}"
        refused = item.state == "failed" and item.error in ACCESS
        if refused and not any(row.key == gate for row in (*above, *lines)):
            lines.append(_gate(store, item.repository))
    return rows + card(lines)


def _download(item: Download, waiting: list[int]) -> Row:
    tools: list[Tool] = []
    button = None
    stopped = item.state == "failed" and item.error == "offline"
    failed = item.state == "failed" and not stopped
    if item.state == "done":
        button = (tr("weights.load_now"), f"use {item.path}", f"weights.load.{item.id}")
    else:
        if len(waiting) > 1:
            at = waiting.index(item.id)
            tools = list(_moves(item.id, is_first=at == 0, is_last=at == len(waiting) - 1))
        if stopped:
            pass  # the switch starts it again
        elif item.state == "failed":
            button = (tr("failure.try_again"), "resume", f"weights.resume.{item.id}")
        elif item.state == "paused":
            word = tr("weights.resume")
            tools.append(Tool("resume", "play", f"weights.resume.{item.id}", word))
        else:
            tools.append(Tool("pause", "pause", f"weights.pause.{item.id}", tr("weights.pause")))
        tools.append(Tool("cancel", "x", f"weights.cancel.{item.id}", tr("weights.cancel")))
    role = "clay" if failed else "text3"
    shares = {"failed": "claymark" if failed else "ctl", "paused": "ctl"}
    line = Line(
        item.title,
        download_facts(item),
        aside=facts(item.label, size_text(item.total_bytes)),
        facts_role=role,
        button=button,
        tools=tuple(tools),
        share=1.0 if item.state == "done" else item.fraction,
        share_role=shares.get(item.state, "accent"),
        percent="" if item.state == "done" else f"{int(item.fraction * 100)}%",
        end=time_left(item),
        identifier=f"weights.downloading.{item.id}",
        tip=item.error_sentence if failed else "",
    )
    height = FAILED_PX if failed else DOWNLOAD_PX
    return Row(f"download/{item.id}", "download", height, line)


def _moves(number: int, *, is_first: bool, is_last: bool) -> Iterator[Tool]:
    """Both arrows on every line, so that nothing else comes under a hand that presses again."""
    up, down = tr("weights.earlier"), tr("weights.later")
    yield Tool("up", "arrow-up", f"weights.earlier.{number}", up, on=not is_first, keys="Alt+Up")
    yield Tool(
        "down", "arrow-down", f"weights.later.{number}", down, on=not is_last, keys="Alt+Down"
    )


# ---- on this computer ----------------------------------------------------------------------------


def installed_rows(
    store: WeightsStore, in_use: Path | None, guide: Path | None, used: dict[str, int]
) -> list[Row]:
    """Every file that the shelf knows and the built-in guide, those that can be used first."""
    entries = [entry for entry in store.entries if entry.state != "other"]
    size = sum(entry.size_bytes for entry in entries if entry.state != "away")
    fact = tr("weights.n_installed", count=len(entries) + (guide is not None))
    fact = f"{fact}, {size_text(size)}" if size else fact
    rows = [head("on_this_computer", tr("weights.on_this_computer"), fact)]
    order = {"ready": 0, "away": 1, "incomplete": 2, "damaged": 3}
    entries.sort(key=lambda e: (e.path != in_use, order.get(e.state, 4), -used.get(str(e.path), 0)))
    stems = Counter(entry.path.stem for entry in entries)
    lines = []
    for entry in entries:
        stem = entry.path.stem
        line = partial(
            _installed,
            store,
            entry,
            # Two files of one name in two folders are two rows.
            name=stem if stems[stem] == 1 else str(entry.path),
            in_use=entry.path == in_use,
            used_ms=used.get(str(entry.path), 0),
        )
        lines.append(Row(f"installed/{entry.path}", "line", INSTALLED_PX, line))
    if guide is not None:
        lines.append(_guide(guide, in_use=guide == in_use))
    if not lines:
        lines = [note("none", tr("weights.none_installed"), "hard-drive")]
    return rows + card(lines)


_USED = ("accent", "soft", "dot")


def _installed(store: WeightsStore, entry: Entry, *, name: str, in_use: bool, used_ms: int) -> Line:
    """`name` begins the identifiers of its controls."""
    badge, button = None, None
    last = used_words(used_ms) if used_ms and not in_use else ""
    text, role = facts(entry_facts(entry), last), "text3"
    checking = store.checking.get(str(entry.path))
    if isinstance(checking, float):
        text = tr("weights.checking_file", percent=f"{int(checking * 100)}")
    elif isinstance(checking, KnownError):
        text, role = checking.sentence, "clay"
    elif checking == "sound":
        text = facts(text, tr("weights.sound"))
    if in_use:
        badge = Badge(tr("weights.in_use"), *_USED)
    elif entry.state == "away":
        badge = Badge(tr("weights.away"), mark="unplug")
    elif entry.state != "ready":
        word = tr("weights.incomplete" if entry.state == "incomplete" else "weights.damaged")
        badge = Badge(word, "clay", "claysoft", "circle-alert")
        text, role = entry.problem_sentence or text, "text3"
    else:
        button = (tr("weights.use"), f"use {entry.path}", f"weights.use.{name}")
    return Line(
        entry.title or entry.path.stem,
        text,
        title_role="text2" if entry.state != "ready" else "text",
        facts_role=role,
        badge=badge,
        button=button,
        tools=(Tool("menu", "ellipsis", f"weights.more.{name}", tr("header.more")),),
        tip=str(entry.path),
        identifier=f"weights.installed.{name}",
    )


def _guide(path: Path, *, in_use: bool) -> Row:
    try:
        size = size_text(path.stat().st_size)
    except OSError:
        size = ""
    line = Line(
        tr("weights_card.guide"),
        facts(tr("weights.built_in"), size),
        badge=Badge(tr("weights.in_use"), *_USED) if in_use else None,
        button=None if in_use else (tr("weights.use"), f"use {path}", "weights.use_guide"),
        identifier="weights.installed_guide",
        slots=1,
    )
    return Row("guide", "line", INSTALLED_PX, line)
