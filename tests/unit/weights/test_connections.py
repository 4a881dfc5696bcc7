"""The offline switch, the log, proxies and certificates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from desktop_app.errors import KnownError
from desktop_app.weights.connections import Connections, certificate_context, proxy_for
from tests.fakes.hub import FakeHub


def test_nothing_connects_outside_of_an_action(connections: Connections, fake: FakeHub) -> None:
    with connections.client() as client, pytest.raises(RuntimeError, match="outside"):
        client.get(fake.url)
    assert fake.log == []


def test_the_log_tells_hosts_purpose_and_bytes(
    connections: Connections, fake: FakeHub, tmp_path: Path
) -> None:
    heard: list[int] = []
    connections.add_listener(lambda: heard.append(1))
    with connections.action("search", "tiny") as entry, connections.client() as client:
        assert client.get(f"{fake.url}/api/models").status_code == 200
        assert entry.is_open
    assert heard == [1]
    [kept] = connections.entries()
    assert (kept.purpose, kept.subject, kept.is_open) == ("search", "tiny", False)
    assert kept.hosts == [fake.url.removeprefix("http://")]
    assert kept.sent_bytes > 50
    assert kept.received_bytes > 100
    again = Connections(tmp_path / "connections.jsonl")
    assert again.entries() == [kept]
    again.clear_log()
    assert again.entries() == []
    assert not (tmp_path / "connections.jsonl").exists()


def test_a_damaged_log_loses_only_damaged_lines(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    good = {"at_ms": 1, "purpose": "search", "subject": "x", "hosts": ["h"]}
    file.write_text(f'{json.dumps(good)}\n{{"at_ms": 2, "pur\n[]\n', encoding="utf-8")
    assert [entry.at_ms for entry in Connections(file).entries()] == [1]


def test_an_action_that_connected_to_nothing_leaves_no_line(connections: Connections) -> None:
    with connections.action("search", "x"):
        pass
    assert connections.entries() == []


def test_the_switch_refuses_actions(connections: Connections) -> None:
    connections.set_offline(True)
    with pytest.raises(KnownError) as caught, connections.action("search", "x"):
        pass
    assert caught.value.code == "offline"


def test_the_switch_cuts_a_connection_that_is_open(connections: Connections, fake: FakeHub) -> None:
    fake.rate = 2_000_000
    url = f"{fake.url}/maker/Tiny-GGUF/resolve/main/blob.Q4_0.gguf"
    with (
        connections.action("download", "x"),
        connections.client(follow_redirects=True) as client,
        client.stream("GET", url) as response,
    ):
        pieces = response.iter_raw()
        next(pieces)
        connections.set_offline(True)
        with pytest.raises(KnownError) as caught:
            list(pieces)
    assert caught.value.code == "offline"


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https", "hub.example") == "http://proxy.example:3128"
    assert proxy_for("https", "inside.example") == ""
    assert proxy_for("https", "127.0.0.1") == ""


def test_a_request_goes_through_the_proxy(
    connections: Connections, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fake answers as a proxy would be asked: with the whole address in the first line.
    monkeypatch.setenv("http_proxy", fake.url)
    monkeypatch.delenv("no_proxy", raising=False)
    with connections.action("search", "x"), connections.client() as client:
        assert client.get("http://hub.example/api/models").status_code == 200
    assert connections.entries()[0].hosts == ["hub.example"]


def test_a_missing_certificate_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(KnownError, match="REQUESTS_CA_BUNDLE"):
        certificate_context()
