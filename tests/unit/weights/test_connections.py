"""The offline switch, the log, proxies and certificates."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path
from typing import ClassVar

import pytest

from desktop_app.errors import KnownError
from desktop_app.weights.connections import (
    Connections,
    certificate_context,
    limit_window,
    proxy_for,
)
from desktop_app.weights.hub import Hub
from desktop_app.weights.tokens import Tokens
from desktop_app.weights.transfer import Patience, Result, Transfer, Wanted
from tests.fakes.hub import FakeHub, Fault
from tests.fakes.hub_proxy import FakeProxy


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


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells no round trips")
def test_near_hubs_may_not_send_far_ahead(connections: Connections, fake: FakeHub) -> None:
    """What waits in this machine when Grove is killed has to come again: 512 KiB at most."""
    with (
        connections.action("download", "x"),
        connections.client() as client,
        client.stream("GET", f"{fake.url}/api/models") as response,
    ):
        plain = response.extensions["network_stream"].get_extra_info("socket")
        # Linux doubles what is asked for, for its own bookkeeping.
        assert plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) <= 2 * 512 << 10
        assert plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP) <= 512 << 10


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells no round trips")
@pytest.mark.parametrize(
    ("host", "round_trip_us", "window"),
    [
        ("192.0.2.1", 20_000, 0),
        ("192.0.2.1", 300, 375_000),
        ("192.0.2.1", 100, 256 << 10),
        # A busy machine takes its time to shake hands with itself.
        ("127.0.0.1", 5_000, 256 << 10),
        ("::1", 5_000, 256 << 10),
    ],
)
def test_far_hubs_keep_the_buffers_of_the_kernel(
    host: str, round_trip_us: int, window: int
) -> None:
    class Line:
        changed: ClassVar[set[int]] = set()

        def getpeername(self) -> tuple[str, int]:
            return host, 443

        def getsockopt(self, *_what: int) -> bytes:
            return bytes(68) + struct.pack("=I", round_trip_us) + bytes(32)

        def setsockopt(self, *what: int) -> None:
            self.changed.add(what[-1])

    limit_window(Line())  # type: ignore[arg-type] # a stand-in for a socket
    assert Line.changed == ({window} if window else set())


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


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for loopback with its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, made = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", made,
         "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    made.write_bytes(made.read_bytes() + key.read_bytes())
    return made


def test_protected_connections(
    connections: Connections, fake: FakeHub, certificate: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Breaks, cancels and stalls work the same under TLS; a certificate that is not known stops."""
    source = fake.path("maker/Tiny-GGUF/blob.Q4_0.gguf")
    assert source is not None
    with FakeHub(fake.folder, certificate=certificate) as hub:
        wanted = Wanted(f"{hub.url}/maker/Tiny-GGUF/resolve/main/blob.Q4_0.gguf")

        def fetch(stop: threading.Event | None = None) -> Result:
            with connections.action("download", "x", cancel=stop):
                quick = Patience(0.01, 0.05, 20)
                return Transfer(connections, wanted, tmp_path / "out", patience=quick).run(
                    lambda p: stop.set() if stop and p.phase == "downloading" else None, stop
                )

        with pytest.raises(KnownError) as caught:
            fetch()
        assert caught.value.code == "certificate"
        connections.close()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        hub.plan.extend([Fault("close", 1_000_000), Fault("stall", 500_000)])
        result = fetch()
        assert result.verified
        assert result.breaks == 2
        assert (tmp_path / "out").read_bytes() == source.read_bytes()
        (tmp_path / "out").unlink()
        hub.rate = 1_000_000  # so that the cancel comes before the end
        with pytest.raises(KnownError) as caught:
            fetch(threading.Event())
        assert caught.value.code == "cancelled"
        connections.close()


@pytest.mark.parametrize("account", ["", "me:p@ss word"])
def test_protected_downloads_go_through_a_tunnel(
    connections: Connections, fake: FakeHub, certificate: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, account: str,
) -> None:  # fmt: skip
    """HTTPS behind a proxy: hub and file server by CONNECT, and the token inside the tunnel."""
    source = fake.path("maker/Tiny-GGUF/blob.Q4_0.gguf")
    assert source is not None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    # What lies on loopback is never asked of a proxy; here it stands for the world.
    monkeypatch.setattr(
        "desktop_app.weights.connections.proxy_for", lambda *_where: os.environ["https_proxy"]
    )
    with FakeProxy(account=account) as proxy, FakeHub(fake.folder, certificate=certificate) as hub:
        login = urllib.parse.quote(account, safe=":") + "@" if account else ""
        monkeypatch.setenv("https_proxy", f"http://{login}{proxy.address}")
        wanted = Wanted(f"{hub.url}/maker/Tiny-GGUF/resolve/main/blob.Q4_0.gguf")
        hub.plan.append(Fault("close", 1_000_000))
        with connections.action("download", "x"):
            patience = Patience(0.01, 0.05, 20)
            transfer = Transfer(
                connections, wanted, tmp_path / "out", token="hf_x", patience=patience
            )
            assert transfer.run().breaks == 1
        connections.close()
        assert (tmp_path / "out").read_bytes() == source.read_bytes()
        ends = {f"{urllib.parse.urlsplit(url).netloc}" for url in (hub.url, hub.files_url)}
        assert {end for end, _ in proxy.seen} == ends
        assert {given for _, given in proxy.seen} == {account}
        assert {(r.origin, r.authorization) for r in hub.log} == {
            ("hub", "Bearer hf_x"), ("files", ""),
        }  # fmt: skip


def test_a_proxy_that_refuses_is_named(
    connections: Connections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeProxy(account="me:right") as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:wrong@{proxy.address}")
        monkeypatch.delenv("no_proxy", raising=False)
        hub = Hub(connections, endpoint="https://hub.example", tokens=Tokens(use_keyring=False))
        with pytest.raises(KnownError) as caught:
            hub.search("x")
        assert caught.value.code == "proxy"
        wanted = Wanted("https://hub.example/a/b/resolve/main/c")
        with connections.action("download", "x"), pytest.raises(KnownError) as caught:
            Transfer(connections, wanted, tmp_path / "out").run()
        assert caught.value.code == "proxy"
        assert not list(tmp_path.glob("out*"))
        connections.close()


def test_an_unprotected_detour_is_refused(
    connections: Connections, fake: FakeHub, certificate: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with FakeHub(fake.folder, certificate=certificate) as hub:
        monkeypatch.setattr(FakeHub, "files_url", property(lambda _self: "http://localhost:9"))
        wanted = Wanted(f"{hub.url}/maker/Tiny-GGUF/resolve/main/blob.Q4_0.gguf")
        with connections.action("download", "x"), pytest.raises(KnownError) as caught:
            Transfer(connections, wanted, tmp_path / "out").run()
        assert caught.value.code == "hub-refused"
        connections.close()


def test_a_missing_certificate_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(KnownError, match="REQUESTS_CA_BUNDLE"):
        certificate_context()
