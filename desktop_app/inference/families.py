"""Prompt layouts that Grove knows itself, for files that carry no chat template.

Most files of 2023 carry none.  A family is recognised by marks in the vocabulary and by name; a
user can choose another one.  The layouts:

- ``oasst``: ``<|system|>{system}{EOS}<|prompter|>{user}{EOS}<|assistant|>{reply}{EOS}…`` with
  nothing between the segments; EOS is the vocabulary's own (Open-Assistant's inference server and
  model cards).  Files without a ``<|system|>`` token get the system text in the first prompt.
- ``chatml``: ``<|im_start|>role\\n{text}<|im_end|>\\n`` (OpenAI's ChatML, Qwen, OASST SFT v10).
- ``llama2``: ``<s>[INST] <<SYS>>\\n{system}\\n<</SYS>>\\n\\n{user} [/INST] {reply} </s>`` (Meta).
- ``llama3``: ``<|start_header_id|>role<|end_header_id|>\\n\\n{text}<|eot_id|>`` (Meta).
- ``plain``: for base weights, which continue text and know no turns.  A reply follows its prompt
  directly; before every other message stands one empty line.  No marks at all.

Texts go in as they are, except in llama2 and llama3, whose reference code trims them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from desktop_app.inference.protocol import ChatMessage
from desktop_app.inference.shield import Lexicon

FAMILIES: Final = ("oasst", "chatml", "llama2", "llama3", "plain")
_OASST_MARKS: Final = (
    "<|prompter|>",
    "<|assistant|>",
    "<|system|>",
    "<|prefix_begin|>",
    "<|prefix_end|>",
)
_LLAMA2_MARKS: Final = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
_LLAMA3_MARKS: Final = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_CHATML_MARKS: Final = ("<|im_start|>", "<|im_end|>")
_CHATTY: Final = re.compile(
    r"instruct|chat|assistant|hermes|dolphin|\bit\b|-it\b|sft|dpo|rlhf", re.I
)
_OASST_NAME: Final = re.compile(r"oasst|open[-_ ]?assistant", re.I)
# The one family whose training had no BOS although its vocabulary asks for it.
_NO_BOS_NAME: Final = re.compile(r"llama-?2-70b-oasst-sft-v10", re.I)
_CHATML_NAME: Final = re.compile(r"oasst[-_]sft[-_]v10|chatml", re.I)


@dataclass(frozen=True, slots=True)
class Layout:
    """A family as it is for one vocabulary.

    `textual`: marks that are not special tokens here.  `stops`: text that ends a reply.
    """

    family: str
    textual: tuple[str, ...]
    stops: tuple[str, ...]
    bos: str
    eos: str
    has_system: bool
    drop_bos: bool = False


def recognise(lexicon: Lexicon) -> str:
    """The family of a file without a chat template; "plain" when nothing speaks for another."""
    name = lexicon.vocab.name
    if _CHATML_NAME.search(name) and lexicon.has(*_CHATML_MARKS):
        return "chatml"
    if lexicon.has("<|prompter|>", "<|assistant|>"):
        return "oasst"
    is_base = re.search(r"\bbase\b", name, re.I) is not None
    if _OASST_NAME.search(name) and not is_base:
        return "chatml" if _CHATML_NAME.search(name) else "oasst"
    if lexicon.has(*_LLAMA3_MARKS) and _CHATTY.search(name):
        return "llama3"
    if lexicon.has(*_CHATML_MARKS) and not is_base:
        return "chatml"
    if re.search(r"(code)?llama-?2?\b", name, re.I) and re.search(r"chat|instruct", name, re.I):
        return "llama2"
    return "plain"


def layout_of(family: str, lexicon: Lexicon) -> Layout:
    """The layout `family` with this vocabulary's own BOS and EOS."""
    vocab = lexicon.vocab
    eos = lexicon.text_of(vocab.eos_id)
    plain = Layout(family, (), (), lexicon.text_of(vocab.bos_id), eos, has_system=True)
    if family == "plain":
        return plain
    if family == "oasst":
        eos = eos or "</s>"
        return replace(
            plain,
            textual=(*_OASST_MARKS, eos),
            stops=(*_OASST_MARKS, *_CHATML_MARKS, eos),
            eos=eos,
            has_system=lexicon.has("<|system|>") or not lexicon.has("<|prompter|>"),
        )
    if family == "chatml":
        stops = tuple(dict.fromkeys((*_CHATML_MARKS, *_OASST_MARKS[:1], *filter(None, (eos,)))))
        drop_bos = _NO_BOS_NAME.search(vocab.name) is not None
        return replace(plain, textual=_CHATML_MARKS, stops=stops, drop_bos=drop_bos)
    if family == "llama2":
        eos = eos or "</s>"
        return replace(plain, textual=_LLAMA2_MARKS, stops=("[INST]", eos), eos=eos)
    stops = tuple(dict.fromkeys((*_LLAMA3_MARKS, *filter(None, (eos,)))))
    return replace(plain, textual=_LLAMA3_MARKS, stops=stops)


def lay_out(layout: Layout, messages: Sequence[ChatMessage], *, open_reply: bool) -> str:
    """The text of a prompt.  `open_reply`: end where a reply begins.

    The messages' texts are masked already (`shield.Shield`); reasoning is left out, as these
    families know none.
    """
    turns = merge_system(messages) if not layout.has_system else list(messages)
    if layout.family == "oasst":
        return _oasst(layout, turns, open_reply)
    if layout.family == "chatml":
        return _chatml(turns, open_reply)
    if layout.family == "llama2":
        return _llama2(layout, turns)
    if layout.family == "llama3":
        return _llama3(layout, turns, open_reply)
    return _plain(turns)


def merge_system(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """System texts put in front of the next user message, one line apart.

    A system message with no user message behind it becomes one itself.
    """
    out: list[ChatMessage] = []
    waiting = ""
    for message in messages:
        if message.role == "system":
            waiting = f"{waiting}\n{message.text}" if waiting else message.text
        elif waiting and message.role == "user":
            out.append(replace(message, text=f"{waiting}\n{message.text}"))
            waiting = ""
        else:
            out.append(message)
    if waiting:
        out.append(ChatMessage("user", waiting))
    return out


def alternate(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Turns in strict order, for templates that insist: user, reply, user …

    Neighbours of one role become one message (an empty line between); a system message behind the
    first place joins the next user message; a reply at the very start gets an empty prompt before
    it.  Tool messages count as the user's.
    """
    head = [message for message in messages[:1] if message.role == "system"]
    out: list[ChatMessage] = []
    for message in merge_system(messages[len(head) :]):
        role = "assistant" if message.role == "assistant" else "user"
        if out and out[-1].role == role:
            reasoning = "\n\n".join(filter(None, (out[-1].reasoning, message.reasoning)))
            text = f"{out[-1].text}\n\n{message.text}"
            out[-1] = ChatMessage(role, text, reasoning)
        else:
            out.append(replace(message, role=role))
    if out and out[0].role == "assistant":
        out.insert(0, ChatMessage("user", ""))
    return head + out


def _oasst(layout: Layout, messages: Sequence[ChatMessage], open_reply: bool) -> str:
    marks = {"system": "<|system|>", "assistant": "<|assistant|>"}
    text = "".join(
        f"{marks.get(message.role, '<|prompter|>')}{message.text}{layout.eos}"
        for message in messages
        if message.text or message.role != "system"
    )
    return text + "<|assistant|>" if open_reply else text


def _chatml(messages: Sequence[ChatMessage], open_reply: bool) -> str:
    text = "".join(
        f"<|im_start|>{message.role}\n{message.text}<|im_end|>\n" for message in messages
    )
    return text + "<|im_start|>assistant\n" if open_reply else text


def _llama2(layout: Layout, messages: Sequence[ChatMessage]) -> str:
    turns = alternate(messages)
    system = ""
    if turns and turns[0].role == "system":
        system = f"<<SYS>>\n{turns[0].text.strip()}\n<</SYS>>\n\n"
        turns = turns[1:]
        if not turns or turns[0].role != "user":
            turns.insert(0, ChatMessage("user", ""))
    out = []
    for message in turns:
        if message.role == "user":
            out.append(f"{layout.bos}[INST] {system}{message.text.strip()} [/INST]")
            system = ""
        else:
            out.append(f" {message.text.strip()} {layout.eos}")
    return "".join(out)


def _llama3(layout: Layout, messages: Sequence[ChatMessage], open_reply: bool) -> str:
    text = layout.bos + "".join(
        f"<|start_header_id|>{message.role}<|end_header_id|>\n\n{message.text.strip()}<|eot_id|>"
        for message in messages
    )
    return text + "<|start_header_id|>assistant<|end_header_id|>\n\n" if open_reply else text


def _plain(messages: Sequence[ChatMessage]) -> str:
    out: list[str] = []
    before = ""
    for message in messages:
        if out and not (message.role == "assistant" and before == "user"):
            out.append("\n\n")
        out.append(message.text)
        before = message.role
    return "".join(out)
