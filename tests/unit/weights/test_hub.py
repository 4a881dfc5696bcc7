"""The hub's door: search, files, headers, links, tokens; and the catalogue."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import jsonschema
import keyring
import keyring.backend
import keyring.errors
import pytest

from desktop_app.errors import KnownError
from desktop_app.paths import resources_dir
from desktop_app.weights.catalogue import Catalogue
from desktop_app.weights.fit import Machine, SpeedBook
from desktop_app.weights.hub import Hub, HubAddress, parse_address
from desktop_app.weights.hub_files import HubFile, group_files, quantisation_of
from desktop_app.weights.tokens import Tokens
from tests.fakes.hub import COMMIT, FakeHub


def test_search(hub: Hub, fake: FakeHub) -> None:
    (fake.folder / "other" / "Llama-GGUF").mkdir(parents=True)
    assert {item.id for item in hub.search("")} == {"maker/Tiny-GGUF", "other/Llama-GGUF"}
    [found] = hub.search("llama")
    assert (found.author, found.name, found.licence) == ("other", "Llama-GGUF", "apache-2.0")
    assert [item.id for item in hub.search("", author="maker")] == ["maker/Tiny-GGUF"]
    assert hub.search("nothing like it") == []
    assert len(hub.search("", limit=1)) == 1


def test_a_repository_is_quantisations(hub: Hub) -> None:
    found = hub.repository("maker/Tiny-GGUF")
    assert (found.commit, found.licence, found.languages) == (COMMIT, "apache-2.0", ("en",))
    assert [q.label for q in found.quantisations] == ["Q4_0", "Q8_0"]
    assert [file.path for file in found.projectors] == ["mmproj-tiny.gguf"]
    assert len(found.quantisation("q8_0").files[0].sha256) == 64
    with pytest.raises(KnownError, match="Q4_0, Q8_0"):
        found.quantisation("Q9")
    wanted = hub.wanted(found, found.quantisations[0].files[0])
    assert f"/resolve/{COMMIT}/" in wanted.url


def test_a_header_is_read_by_ranges(hub: Hub, fake: FakeHub) -> None:
    found = hub.repository("maker/Tiny-GGUF")
    file = found.quantisation("Q8_0").files[0]
    header = hub.header(found, file)
    assert (header.title, header.vocab_size) == ("Tiny", 1000)
    assert header.file_bytes == file.size_bytes
    sent = sum(line.sent for line in fake.log if line.origin == "files")
    assert sent < file.size_bytes
    assert hub.connections.entries()[0].purpose == "header"


def test_a_header_survives_trouble(hub: Hub, fake: FakeHub) -> None:
    from tests.fakes.hub import Fault

    found = hub.repository("maker/Tiny-GGUF")
    file = found.quantisation("Q8_0").files[0]
    fake.plan.extend([Fault("500"), Fault("expired"), Fault("close", 1000)])
    assert hub.header(found, file).title == "Tiny"
    fake.plan.append(Fault("ignore-range"))
    with pytest.raises(KnownError) as caught:
        hub.header(found, file)
    assert caught.value.code == "hub-no-ranges"


def test_a_header_waits_as_long_as_the_hub_asks_but_not_for_minutes(
    hub: Hub, fake: FakeHub
) -> None:
    found = hub.repository("maker/Tiny-GGUF")
    file = found.quantisation("Q8_0").files[0]
    fake.hub_plan.append("429:1")
    begin = time.monotonic()
    assert hub.header(found, file).title == "Tiny"
    assert time.monotonic() - begin >= 1
    fake.hub_plan.append("429:600")
    with pytest.raises(KnownError) as caught:
        hub.header(found, file)
    assert caught.value.code == "network"
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("plan", "code"), [(["429"], "hub-busy"), (["503"], "hub-down"), (["500"], "hub-down")]
)
def test_trouble_is_told_at_once(hub: Hub, fake: FakeHub, plan: list[str], code: str) -> None:
    fake.hub_plan.extend(plan)
    with pytest.raises(KnownError) as caught:
        hub.search("x")
    assert caught.value.code == code
    assert len(fake.log) == 1


def test_errors_have_sentences(hub: Hub, fake: FakeHub) -> None:
    for name in ("nobody/nothing", "no name at all", "a"):
        with pytest.raises(KnownError) as caught:
            hub.repository(name)
        assert caught.value.code == "hub-missing"
    gone = Hub(hub.connections, endpoint="http://127.0.0.1:9", tokens=Tokens(use_keyring=False))
    with pytest.raises(KnownError) as caught:
        gone.search("x")
    assert caught.value.code == "network"
    with pytest.raises(KnownError) as caught:
        Hub(hub.connections, endpoint="not an address")
    assert caught.value.code == "hub-address"


def test_the_environment_may_name_a_mirror(
    hub: Hub, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", fake.url + "/")
    assert Hub(hub.connections).endpoint == fake.url
    hub.search("x")
    # What was set for the library's import does not stay.
    assert "HF_HUB_DISABLE_XET" not in os.environ


def test_tokens(hub: Hub, fake: FakeHub) -> None:
    assert hub.token() == ""
    assert hub.check_token("hf_right") == "tester"
    with pytest.raises(KnownError) as caught:
        hub.check_token("hf_wrong")
    assert caught.value.code == "hub-token"
    assert hub.tokens.set(hub.origin, " hf_right\n") is False  # no keyring: this session only
    assert hub.token() == "hf_right"
    hub.search("x")
    assert fake.log[-1].authorization == "Bearer hf_right"
    hub.tokens.forget(hub.origin)
    assert hub.token() == ""


class _Ring(keyring.backend.KeyringBackend):
    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError


def test_tokens_are_kept_in_the_systems_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = _Ring()
    monkeypatch.setattr(keyring, "get_keyring", lambda: ring)
    origin = "https://hub.example:443"
    assert Tokens().set(origin, "hf_x") is True
    assert Tokens().get(origin) == "hf_x"
    assert Tokens().get("https://other.example:443") == ""
    Tokens().forget(origin)
    Tokens().forget(origin)
    assert Tokens().get(origin) == ""

    def broken(*_args: object) -> str:
        raise RuntimeError("locked")

    monkeypatch.setattr(ring, "get_password", broken)
    monkeypatch.setattr(ring, "set_password", broken)
    tokens = Tokens()
    assert tokens.set(origin, "hf_y") is False
    assert tokens.get(origin) == "hf_y"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://huggingface.co/a/b", HubAddress("a/b")),
        ("https://huggingface.co/a/b/tree/main", HubAddress("a/b")),
        ("huggingface.co/a/b-GGUF?show_file_info=x", HubAddress("a/b-GGUF")),
        ("https://hf.co/a/b:Q4_K_M", HubAddress("a/b", "main", "Q4_K_M")),
        ("a/b:q8_0", HubAddress("a/b", "main", "q8_0")),
        ("https://huggingface.co/a/b/blob/v1/x/y.gguf", HubAddress("a/b", "v1", "x/y.gguf")),
        ("https://huggingface.co/a/b/resolve/main/y.gguf?download=true",
         HubAddress("a/b", "main", "y.gguf")),
        ("https://elsewhere.example/a/b", None),
        ("llama 2 7b", None),
        ("qwen", None),
        ("../../etc", None),
    ],
)  # fmt: skip
def test_links(text: str, expected: HubAddress | None) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("codellama-13b-oasst-sft-v10.Q4_K_M.gguf", "Q4_K_M"),
        ("OpenAssistant-falcon-7b-sft-mix-2000-Q4_0.gguf", "Q4_0"),
        ("x_q5_k_s.gguf", "Q5_K_S"),
        ("model-IQ2_XXS.gguf", "IQ2_XXS"),
        ("a-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("phi-3-fp16.gguf", "F16"),
        ("a.BF16.gguf", "BF16"),
        ("a-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ("ggml-model.gguf", ""),
        ("Q3.gguf", ""),
    ],
)
def test_quantisations_by_name(name: str, label: str) -> None:
    assert quantisation_of(name) == label


def test_parts_are_grouped_and_missing_parts_noticed() -> None:
    names = [f"Q6_K/big-{i:05d}-of-00003.gguf" for i in (3, 1, 2)]
    names += ["b-Q2_K-00001-of-00002.gguf", "x.imatrix", "MMPROJ-f16.gguf", "readme.md"]
    quantisations, projectors, imatrix = group_files(HubFile(name, 10) for name in names)
    assert [(q.label, q.size_bytes, q.is_incomplete) for q in quantisations] == [
        ("Q2_K", 10, True),
        ("Q6_K", 30, False),
    ]
    assert [f.path for f in quantisations[1].files] == sorted(names[:3])
    assert (len(projectors), len(imatrix)) == (1, 1)


def test_the_catalogue_keeps_to_its_schema() -> None:
    folder = resources_dir()
    schema = json.loads((folder / "catalogue.schema.json").read_text(encoding="utf-8"))
    data = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    entries = Catalogue.load().entries
    assert len({entry.id for entry in entries}) == len(entries)
    families = [entry.family for entry in entries]
    own = families.count("open-assistant")
    assert own >= 5
    assert set(families[:own]) == {"open-assistant"}


def test_a_suggestion_suits_the_computer() -> None:
    book = SpeedBook()
    book.record_memory_speed(30e9)
    small = Catalogue.load().suggest(Machine(8 * 10**9, 4 * 10**9, 4), book)
    assert small[0].recommended
    assert small[0].fit.verdict == "well"
    assert sum(s.recommended for s in small) == 1
    assert small[0].fit.memory_bytes < 4e9
    tiny = Catalogue.load().suggest(Machine(10**9, 10**8, 1), book)
    assert not any(s.recommended for s in tiny)
    with pytest.raises(KnownError):
        Catalogue.load().find("no such weights")


def test_the_catalogue_connects_to_nothing(tmp_path: Path) -> None:
    copy = tmp_path / "c.json"
    copy.write_bytes((resources_dir() / "catalogue.json").read_bytes())
    assert Catalogue.load(copy).find("llama-3.2-3b").repository.startswith("bartowski/")
