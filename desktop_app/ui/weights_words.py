"""The weights room's facts in the words of the interface.  Pure functions; main thread."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QDateTime, QLocale

from desktop_app.ui.words import number, tr
from desktop_app.weights.connections import ConnectionEntry
from desktop_app.weights.downloads import Download
from desktop_app.weights.fit import Fit, Machine, size_text
from desktop_app.weights.gguf import Header
from desktop_app.weights.hub import RepositorySummary
from desktop_app.weights.shelf import Entry

# Errors after which a token of the user's account is the next step.
ACCESS: Final = frozenset({"hub-gated", "hub-login", "hub-token"})
SOURCES: Final = ("lm-studio", "ollama", "gpt4all", "jan", "llama.cpp", "hub-cache")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How weights would run: an icon, words for a line, a sentence with the reason, a colour."""

    icon: str
    words: str
    reason: str
    role: str


def verdict(fit: Fit | None) -> Verdict | None:
    """None while nothing is known about this computer."""
    if fit is None:
        return None
    need, free = size_text(fit.memory_bytes), size_text(fit.free_bytes)
    speed = _speed(fit.tokens_per_second)
    if fit.verdict == "too-big":
        reason = tr("weights.too_big_reason", need=need, free=free)
        return Verdict("circle-slash", tr("weights.too_big", need=need), reason, "clay")
    if fit.verdict == "slow":
        read = size_text(fit.weights_bytes)
        reason = tr("weights.slow_reason", speed=speed, read=read, need=need, free=free)
        return Verdict("gauge", tr("weights.slow", speed=speed), reason, "ochre")
    if fit.gpu_layers > fit.block_count:
        words = tr("weights.well_gpu")
    elif fit.tokens_per_second > 0:
        words = tr("weights.well", speed=speed)
    else:
        words = tr("weights.fits")
    reason = tr("weights.well_reason", words=words, need=need, free=free)
    return Verdict("circle-check", words, reason, "accent")


def _speed(tokens_per_second: float) -> str:
    if tokens_per_second < 2:
        return QLocale().toString(tokens_per_second, "f", 1)
    return number(round(tokens_per_second))


def memory_words(fit: Fit) -> str:
    """ "2.6 of 11.2 GB free memory"."""
    return tr("weights.memory", need=size_text(fit.memory_bytes), free=size_text(fit.free_bytes))


def computer_words(machine: Machine) -> str:
    """Cores, memory and free disk in one line."""
    return tr(
        "empty.computer",
        count=machine.cores,
        memory=size_text(machine.total_bytes),
        disk=size_text(machine.disk_free_bytes),
    )


def context_words(tokens: int) -> str:
    """ "128K context", "" when unknown."""
    if tokens <= 0:
        return ""
    short = f"{tokens // 1024}K" if tokens >= 1024 else str(tokens)
    return tr("weights.context", tokens=short)


def context_choice(chosen: int, fit: Fit | None) -> str:
    """The context length that a verdict is for: as chosen, or what automatic comes to."""
    if chosen:
        return tr("settings.n_tokens", count=chosen)
    if fit is None:
        return tr("settings.automatic")
    return tr("weights.context_auto", tokens=tr("settings.n_tokens", count=fit.context_length))


def header_facts(header: Header) -> str:
    """What a file says of itself: architecture, layers, trained context, template, licence."""
    template = tr("weights.own_template" if header.chat_template else "weights.no_template")
    return facts(
        tr("weights.header_facts", architecture=header.architecture),
        tr("weights.layers", count=header.block_count) if header.block_count else "",
        context_words(header.context_length),
        template,
        licence_words(header.licence),
    )


_LICENCES: Final = {"apache-2.0": "Apache 2.0", "mit": "MIT", "cc-by-4.0": "CC BY 4.0"}


def licence_words(licence: str) -> str:
    """ "Apache 2.0 licence", "" when unknown."""
    if not licence or licence in ("other", "unknown"):
        return ""
    return tr("weights.licence", name=_LICENCES.get(licence.lower(), licence))


def quality_words(label: str) -> str:
    """What a quantisation means, for people who never heard of one; "" for unknown labels."""
    plain = label.upper().removeprefix("UD-")
    if plain.startswith("MXFP4"):
        return tr("weights.quality_4")
    if plain in ("F16", "BF16", "F32"):
        return tr("weights.quality_f16" if plain != "F32" else "weights.quality_f32")
    found = re.match(r"(?:IQ|TQ|Q|NVFP)(\d)", plain)
    if found is None or found[1] not in "12345678":
        return ""
    bits = {"1": "2", "7": "8"}.get(found[1], found[1])
    return tr(f"weights.quality_{bits}")


def facts(*parts: str) -> str:
    """Facts joined by middle dots; empty ones fall out."""
    return " · ".join(part for part in parts if part)


def result_facts(found: RepositorySummary) -> str:
    """Maker, downloads, size and licence of a search result."""
    parameters = ""
    if found.parameter_count >= 1_000_000:
        billions = found.parameter_count / 1e9
        shown = QLocale().toString(billions, "f", 1 if billions < 10 else 0)
        parameters = tr("weights.parameters", count=shown)
    return facts(
        found.author,
        parameters,
        tr("weights.n_downloads", count=found.downloads) if found.downloads else "",
        licence_words(found.licence),
        tr("weights.gated") if found.gated else "",
    )


def download_facts(item: Download) -> str:
    """How far a download is, or why it stands still."""
    done, total = size_text(item.done_bytes), size_text(item.total_bytes)
    so_far = tr("weights.so_far", done=done, total=total)
    match item.state:
        case "running":
            speed = f"{size_text(item.speed_bytes_per_s)}/s" if item.speed_bytes_per_s else ""
            return facts(so_far, speed, tr("weights.checked_arriving"))
        case "waiting":
            return facts(so_far, tr("weights.waiting_network"))
        case "checking":
            return facts(so_far, tr("weights.checking_whole"))
        case "paused":
            return facts(so_far, tr("weights.paused"))
        case "done":
            return facts(total, tr("weights.ready_checked"))
        case "failed" if item.error == "offline":
            return facts(so_far, tr("weights.waits_online"))
        case "failed":
            return failure_words(item)
    return facts(total, tr("weights.queued"))


def failure_words(item: Download) -> str:
    """Why a download failed, and what to do."""
    return tr("weights.needs_token") if item.error in ACCESS else item.error_sentence


def time_left(item: Download) -> str:
    """ "3 min left", "" while unknown."""
    if item.state != "running" or item.left_s <= 0:
        return ""
    if item.left_s < 90:
        return tr("weights.seconds_left", count=max(1, round(item.left_s)))
    if item.left_s < 5400:
        return tr("weights.minutes_left", count=round(item.left_s / 60))
    return tr("weights.hours_left", hours=QLocale().toString(item.left_s / 3600, "f", 1))


def entry_facts(entry: Entry, *, is_guide: bool = False) -> str:
    """Size, quantisation and where a file on this computer belongs."""
    if is_guide:
        return facts(tr("weights.built_in"), size_text(entry.size_bytes))
    source = entry.source.replace("-", "_").replace(".", "_")
    where = tr(f"weights.source_{source}") if entry.source in SOURCES else ""
    return facts(
        entry.quantisation,
        size_text(entry.size_bytes),
        context_words(entry.context_length),
        where,
    )


def purpose_words(entry: ConnectionEntry) -> str:
    """What a connection was for."""
    if entry.purpose == "search":
        return tr("connections.search", words=entry.subject)
    if entry.purpose == "download":
        return re.sub(r"-gguf(?= |$)", "", entry.subject.rpartition("/")[2], flags=re.I)
    if entry.purpose in ("files", "header", "token"):
        return tr(f"connections.{entry.purpose}")
    return entry.purpose


def hosts_words(entry: ConnectionEntry) -> str:
    """Which servers were talked to."""
    if not entry.hosts:
        return ""
    if len(entry.hosts) == 1:
        return entry.hosts[0]
    return tr("connections.and_files", host=entry.hosts[0])


def time_words(at_ms: int) -> str:
    """The time of day."""
    when = QDateTime.fromMSecsSinceEpoch(at_ms)
    return QLocale().toString(when.time(), "HH:mm")


def used_words(at_ms: int) -> str:
    """ "last used today" and so on."""
    day = QDateTime.fromMSecsSinceEpoch(at_ms).date()
    days = day.daysTo(QDateTime.currentDateTime().date())
    if days <= 0:
        return tr("weights.used_today")
    if days == 1:
        return tr("weights.used_yesterday")
    return tr("weights.used", date=QLocale().toString(day, QLocale.FormatType.ShortFormat))


def day_words(at_ms: int) -> str:
    """ "Today", "Yesterday", a weekday, or a date."""
    day = QDateTime.fromMSecsSinceEpoch(at_ms).date()
    days = day.daysTo(QDateTime.currentDateTime().date())
    if days <= 0:
        return tr("sidebar.group_today")
    if days == 1:
        return tr("sidebar.group_yesterday")
    if days < 7:
        return QLocale().dayName(day.dayOfWeek())
    return QLocale().toString(day, QLocale.FormatType.ShortFormat)
