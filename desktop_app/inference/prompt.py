"""Messages to token ids: right to the token, and impossible to forge.

The door is `PromptBuilder`: one per loaded weights, made of the file's vocabulary (`Vocab`) and of
what renders templates (`renderer.Renderer`).  `build` makes a `PromptPlan`; `fit` makes one that
leaves room in the context.

The way of a prompt: the bodies (what people and replies say) get stand-ins for every character that
a special mark could begin or end with (`shield`); the file's own Jinja template, rendered in a
disposable process (`renderer`), or a known family (`families`) puts them in order; the stand-ins
are turned back and the text becomes token ids.  Rules beside that:

- BOS comes exactly once: the template's is taken off when the vocabulary adds its own.
- A template that refuses a conversation, or prints it without some system or user text, gets it in
  other forms, in this order: system text put before the first user message; turns in strict order
  (neighbours of one role joined, an empty prompt before a first reply); contents as typed parts.
- To continue a reply, a private character is put behind it and the rendered text is cut there, so
  the prompt ends in the reply's own words.
- A reply whose token ids are known (`ChatMessage.tokens`) keeps them where the template prints it
  unchanged, so nothing of the conversation has to be read again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from desktop_app.errors import KnownError
from desktop_app.inference.families import (
    FAMILIES,
    Layout,
    alternate,
    lay_out,
    layout_of,
    merge_system,
    recognise,
)
from desktop_app.inference.fitting import Boundary, Fitted, PromptPlan, fit_turns
from desktop_app.inference.protocol import ChatMessage
from desktop_app.inference.reasoning import THINK, ReasoningMarkers, markers_of, opens_reasoning
from desktop_app.inference.renderer import RenderResult, Renders
from desktop_app.inference.shield import (
    Lexicon,
    Marks,
    OwnTokens,
    Shield,
    TokenAttr,
    Vocab,
    clean,
    partition,
    tokens_of,
)

__all__ = [
    "Boundary",
    "Fitted",
    "PromptBuilder",
    "PromptPlan",
    "TokenAttr",
    "Vocab",
]

# StepFun's template leaves white space at the edges of texts in, and the weights then reason in
# circles (llama.cpp trims for the templates with this sentence too, its issue 24181).
_TRIMS: Final = "You have access to the following functions in JSONSchema format"
_ROLES: Final = ("system", "user", "assistant", "tool")
_BRACKETED: Final = re.compile(r"\s*(<[^<>\s]{1,60}>|\[[^\[\]\s]{1,40}\])")


@dataclass(frozen=True, slots=True)
class _Style:
    """What is known of one way to lay out prompts, kept per template."""

    family: str
    source: str
    layout: Layout | None
    marks: Marks
    stops: tuple[str, ...]
    reasoning: ReasoningMarkers | None
    drop_bos: bool
    hash: str


class PromptBuilder:
    """Makes prompts for one vocabulary.  Not for use by several threads at once."""

    def __init__(self, vocab: Vocab, renderer: Renders) -> None:
        self._vocab = vocab
        self._renderer = renderer
        self._lexicon = Lexicon(vocab)
        self._styles: dict[str, _Style] = {}

    def family(self, template: str = "auto") -> str:
        """ "jinja", or the name of the family that `template` means for this file."""
        return self._resolve(template)[0]

    def build(
        self,
        messages: Sequence[ChatMessage],
        *,
        template: str = "auto",
        continue_last: bool = False,
        now: float | None = None,
    ) -> PromptPlan:
        """The prompt for a reply below `messages` (root first).

        `template`: "auto" (the file's own, else the recognised family), a family's name, or Jinja
        source.  `continue_last`: the last message is a reply to be continued from its end.  `now`
        (seconds since the epoch) stands in for the clock of templates that tell the date.
        Roles are system (or developer), user, assistant and tool: a role stands in the prompt as it
        is, so it must be one of these.  KnownError: "role-unknown", "prompt-empty",
        "template-unknown", "template-refused", "template-damaged", "template-limits",
        "template-process".
        """
        turns = _turns(messages)
        if continue_last and (not turns or turns[-1].role != "assistant"):
            continue_last = False
        if continue_last and not (turns[-1].text or turns[-1].reasoning):
            turns.pop()  # nothing of it is written yet: begin it
            continue_last = False
        if not turns:
            raise _empty()
        style, shield, masked = self._shielded(turns, template)
        job = _Rendering(self._renderer, style, self._lexicon, shield, now)
        rendered = job.continued(masked) if continue_last else job.opened(masked)
        return self._finish(style, shield, rendered, masked, continue_last, job.notes)

    def fit(
        self,
        messages: Sequence[ChatMessage],
        *,
        budget: int,
        template: str = "auto",
        continue_last: bool = False,
        boundary: Boundary | None = None,
        now: float | None = None,
    ) -> Fitted:
        """`build` within `budget` tokens, leaving out whole oldest turns where it must.

        A turn is a user message and what follows it; system messages at the top stay.  When the
        prompt outgrows the budget, turns go until it takes at most 60 % of it, and this boundary is
        kept (pass it in again) until it is full again: so the beginning of the prompt, which the
        engine has read already, stays the same for many turns.  KnownError "message-too-long" when
        the last turn alone is too long; else as `build`.
        """

        def build(kept: Sequence[ChatMessage]) -> PromptPlan:
            return self.build(kept, template=template, continue_last=continue_last, now=now)

        return fit_turns(build, messages, budget, boundary)

    def begun(
        self,
        messages: Sequence[ChatMessage],
        *,
        budget: int,
        template: str = "auto",
        boundary: Boundary | None = None,
        now: float | None = None,
    ) -> tuple[tuple[int, ...], int]:
        """The prompt up to the end of the last message's words, which are still being written.

        Returns its tokens, and how many of them stand before these words.  With more words only the
        last tokens may become others.  Nothing where the template does not show the words as they
        are.  Budget, boundary and KnownErrors as in `fit`.
        """
        words_from = 0

        def build(kept: Sequence[ChatMessage]) -> PromptPlan:
            nonlocal words_from
            plan, words_from = self._begun(kept, template, now)
            return plan

        fitted = fit_turns(build, messages, budget, boundary)
        return fitted.plan.tokens, words_from

    def _begun(
        self, messages: Sequence[ChatMessage], template: str, now: float | None
    ) -> tuple[PromptPlan, int]:
        """The plan that ends with the last message's words, and the tokens before these."""
        turns = _turns(messages)
        if not turns or not turns[-1].text.strip():
            raise _empty()
        style, shield, masked = self._shielded(turns, template)
        words = masked[-1].text.strip()
        job = _Rendering(self._renderer, style, self._lexicon, shield, now)
        marked = replace(masked[-1], text=words + shield.sentinel)
        rendered = job.opened([*masked[:-1], marked])
        end = rendered.rfind(shield.sentinel)
        start = end - len(words)
        if end < 0 or rendered[start:end] != words:
            raise _empty()
        plan = self._finish(style, shield, rendered[:end], masked, False, job.notes)
        _, before = self._tokens(style, shield, rendered[:start], masked[:-1])
        pairs = enumerate(zip(plan.tokens, before, strict=False))
        differs = (at for at, (ours, other) in pairs if ours != other)
        return plan, next(differs, min(len(plan.tokens), len(before)))

    # --- styles --------------------------------------------------------------------------------

    def _resolve(self, template: str) -> tuple[str, str]:
        """(family, Jinja source or "")."""
        if template in FAMILIES:
            return template, ""
        if template in ("", "auto"):
            own = self._vocab.chat_template
            if _is_jinja(own):
                return "jinja", own
            return (own if own in FAMILIES else recognise(self._lexicon)), ""
        if _is_jinja(template):
            return "jinja", template
        raise KnownError(
            "template-unknown",
            "This chat's template is neither one that Grove knows nor Jinja text;"
            " choose another one in this chat's settings.",
        )

    def _shielded(
        self, turns: Sequence[ChatMessage], template: str
    ) -> tuple[_Style, Shield, list[ChatMessage]]:
        """The template's style, and the turns with stand-ins for what its marks are made of."""
        style = self._style(template)
        bodies = [text for message in turns for text in (message.text, message.reasoning)]
        shield = Shield(style.marks, bodies, style.source)
        masked = [
            replace(
                message, text=shield.mask(message.text), reasoning=shield.mask(message.reasoning)
            )
            for message in turns
        ]
        return style, shield, masked

    def _style(self, template: str) -> _Style:
        family, source = self._resolve(template)
        key = source or family
        if key not in self._styles:
            digest = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:16]
            if source:
                self._styles[key] = self._jinja_style(source, digest)
            else:
                layout = layout_of(family, self._lexicon)
                self._styles[key] = _Style(
                    family,
                    "",
                    layout,
                    Marks.of(self._lexicon, "", layout.textual),
                    layout.stops,
                    None if family == "plain" else THINK,
                    layout.drop_bos,
                    digest,
                )
        return self._styles[key]

    def _jinja_style(self, source: str, digest: str) -> _Style:
        """Learn a template's marks by rendering a small conversation with it."""
        bare = Marks.of(self._lexicon, source)
        style = _Style("jinja", source, None, bare, (), markers_of(source), False, digest)
        names = ("Grovesystem", "Groveask", "Grovereply", "Grovemore")
        probe = [
            ChatMessage(role, text)
            for role, text in zip(("system", "user", "assistant", "user"), names, strict=True)
        ]
        job = _Rendering(self._renderer, style, self._lexicon, Shield(bare, names, source), None)
        try:
            text = job.opened(probe)
        except KnownError as error:
            if error.code != "template-refused":
                raise
            return style  # it refuses even this; the real conversation will tell how
        places = [text.find(name) for name in names[1:]]
        if -1 in places or places != sorted(places):
            return style
        ask, reply, more = places
        glue = (
            text[ask + len(names[1]) : reply],
            text[reply + len(names[2]) : more],
            text[more + len(names[3]) :],
        )
        textual = dict.fromkeys(mark for part in glue for mark in self._textual(bare, part))
        marks = Marks.of(self._lexicon, source, textual)
        assert style.reasoning is not None
        # A mark that only ends the reasoning (gpt-oss's <|end|>) does not end the reply.
        inner = (style.reasoning.close, *style.reasoning.dropped)
        stops = tuple(stop for stop in self._stops(bare, glue[1]) if stop not in inner)
        return replace(style, marks=marks, stops=stops)

    def _textual(self, marks: Marks, glue: str) -> Iterator[str]:
        """Lines between turns that are marks although they are no tokens (``### Response:``)."""
        for part in partition(self._lexicon, marks, glue):
            if isinstance(part, int):
                continue
            for line in glue[part[0] : part[1]].splitlines():
                mark = line.strip()
                if 3 <= len(mark) <= 40 and not all(c.isalnum() or c.isspace() for c in mark):
                    yield mark

    def _stops(self, marks: Marks, glue: str) -> tuple[str, ...]:
        """What ends a reply, from the text between a reply and the next prompt."""
        for part in partition(self._lexicon, marks, glue):
            if isinstance(part, int):
                return (self._lexicon.text_of(part),)
            before = glue[part[0] : part[1]]
            bracketed = _BRACKETED.match(before)
            if bracketed:
                return (bracketed[1],)
            if before.strip():
                indent = before[: len(before) - len(before.lstrip())]
                return (indent + before.lstrip().splitlines()[0].rstrip(),)
        return ()

    # --- the end -------------------------------------------------------------------------------

    def _finish(
        self,
        style: _Style,
        shield: Shield,
        rendered: str,
        masked: Sequence[ChatMessage],
        continue_last: bool,
        notes: tuple[str, ...],
    ) -> PromptPlan:
        rendered, tokens = self._tokens(style, shield, rendered, masked)
        if not tokens:
            raise _empty()
        is_open = style.reasoning is not None and (
            opens_reasoning(rendered, style.reasoning) if not continue_last else not masked[-1].text
        )
        return PromptPlan(
            text=shield.unmask(rendered),
            tokens=tuple(tokens),
            stops=style.stops,
            reasoning=style.reasoning,
            reasoning_open=is_open,
            trim_start=style.family != "plain" and not continue_last,
            family=style.family,
            template_hash=style.hash,
            notes=notes,
        )

    def _tokens(
        self, style: _Style, shield: Shield, rendered: str, masked: Sequence[ChatMessage]
    ) -> tuple[str, list[int]]:
        """The text without a BOS that the vocabulary adds by itself, and its tokens with it."""
        vocab = self._vocab
        bos = self._lexicon.text_of(vocab.bos_id)
        adds_bos = vocab.add_bos and vocab.bos_id >= 0 and vocab.kind != "rwkv"
        if bos and (adds_bos or style.drop_bos):
            while rendered.lstrip().startswith(bos):
                rendered = rendered.lstrip()[len(bos) :]
        own = _own_tokens(vocab, shield, rendered, masked)
        tokens = tokens_of(self._lexicon, shield, rendered, own)
        if adds_bos and not style.drop_bos and tokens[:1] != [vocab.bos_id]:
            tokens.insert(0, vocab.bos_id)
        return rendered, tokens


class _Rendering:
    """One conversation through one style."""

    def __init__(
        self,
        renderer: Renders,
        style: _Style,
        lexicon: Lexicon,
        shield: Shield,
        now: float | None,
    ) -> None:
        self._renderer = renderer
        self._style = style
        self._lexicon = lexicon
        self._shield = shield
        self._now = now
        self.notes: tuple[str, ...] = ()

    def opened(self, messages: Sequence[ChatMessage]) -> str:
        """The text up to where a new reply begins."""
        return self._text(messages, open_reply=True)

    def continued(self, messages: Sequence[ChatMessage]) -> str:
        """The text up to the end of the last message's own words."""
        end = self._shield.sentinel
        last = messages[-1]
        if last.text:
            marked = replace(last, text=last.text + end, tokens=())
        else:
            marked = replace(last, reasoning=last.reasoning + end)
        text = self._text([*messages[:-1], marked], open_reply=False)
        at = text.rfind(end)
        marks = self._style.reasoning
        before = text[: max(at, 0)].removesuffix(last.text)
        if at >= 0 and not (last.text and marks is not None and opens_reasoning(before, marks)):
            return text[:at]
        # This template prints no reasoning, or an opening that it never closes: begin a reply and
        # say it ourselves.
        text = self._text(messages[:-1], open_reply=True) if messages[:-1] else ""
        is_open = marks is not None and opens_reasoning(text, marks)
        if marks is None or not (last.reasoning or is_open):
            return text + last.text
        if not is_open:
            text += marks.open + marks.padding
        text += last.reasoning
        if not last.text:
            return text
        return text + marks.padding + marks.close + marks.bridge + last.text

    def _text(self, messages: Sequence[ChatMessage], *, open_reply: bool) -> str:
        layout = self._style.layout
        if layout is not None:
            return lay_out(layout, messages, open_reply=open_reply)
        spare: str | None = None
        failure: RenderResult | None = None
        for form, typed, notes in _forms(messages):
            result = self._render(form, typed, open_reply)
            if result.error:
                failure = failure or result
                continue
            text = self._shield.settle(result.text)
            if _shows(text, form):
                self.notes = notes
                return text
            spare = spare if spare is not None else text
        if spare is not None:
            return spare
        assert failure is not None
        raise _refused(_without_words(failure, messages))

    def _render(self, form: Sequence[ChatMessage], typed: bool, open_reply: bool) -> RenderResult:
        vocab, lexicon = self._lexicon.vocab, self._lexicon
        source = self._style.source
        job: dict[str, Any] = {
            "messages": [_as_template_sees(message, typed, source) for message in form],
            "add_generation_prompt": open_reply,
            "bos_token": lexicon.text_of(vocab.bos_id),
            "eos_token": lexicon.text_of(vocab.eos_id),
            "enable_thinking": True,
        }
        # Transformers gives None for "no tools"; templates made for tools only want them undefined.
        result = self._renderer.render(
            source, [{**job, "tools": None, "documents": None}], now=self._now
        )[0]
        if result.error == "damaged":
            again = self._renderer.render(source, [{**job, "functions": ""}], now=self._now)[0]
            result = result if again.error else again
        return result


def _forms(
    messages: Sequence[ChatMessage],
) -> Iterator[tuple[list[ChatMessage], bool, tuple[str, ...]]]:
    """The forms in which a conversation is offered to a template, the truest first."""
    system = "The template knows no system text; it stands before the first prompt."
    turns = "The template wants turns in strict order; neighbours were joined."
    seen: list[list[ChatMessage]] = []
    for form, notes in (
        (list(messages), ()),
        (merge_system(messages), (system,)),
        (alternate(messages), (turns,)),
        (alternate(merge_system(messages)), (system, turns)),
    ):
        if form not in seen:
            seen.append(form)
            yield form, False, notes
    for form in seen:
        yield form, True, ()


def _shows(text: str, messages: Sequence[ChatMessage]) -> bool:
    """Whether every system and user text is in `text`."""
    return all(
        message.text.strip() in text for message in messages if message.role in ("system", "user")
    )


def _as_template_sees(message: ChatMessage, typed: bool, source: str) -> dict[str, Any]:
    """A message in the fields that the template looks at.

    Reasoning is "reasoning_content" to most, "thinking" to gpt-oss and LFM2.5, "reasoning" to Solar
    and others, a typed part to Mistral's.
    """
    text, reasoning = message.text, message.reasoning if message.role == "assistant" else ""
    if _TRIMS in source:
        text = text.strip()
    content: object = [{"type": "text", "text": text}] if typed else text
    seen: dict[str, Any] = {"role": message.role}
    if reasoning and "[THINK]" in source and "'thinking'" in source:
        content = [{"type": "thinking", "thinking": reasoning}, {"type": "text", "text": text}]
    elif reasoning:
        seen["reasoning_content"] = reasoning
        if "reasoning_content" not in source:
            seen["thinking"] = seen["reasoning"] = reasoning
    seen["content"] = content
    return seen


def _own_tokens(
    vocab: Vocab, shield: Shield, rendered: str, masked: Sequence[ChatMessage]
) -> list[OwnTokens]:
    """Where replies stand unchanged in the text whose token ids are known."""
    if not any(message.tokens for message in masked):
        return []
    out: list[OwnTokens] = []
    cursor = 0
    for message in masked:
        body = message.text.strip()
        at = rendered.find(body, cursor) if body else -1
        if at < 0:
            continue
        end = cursor = at + len(body)
        if not message.tokens or message.role != "assistant":
            continue
        if not all(0 <= token < vocab.n_vocab for token in message.tokens):
            continue  # of other weights, or of a file that somebody wrote
        said = b"".join(vocab.token_piece(token) for token in message.tokens)
        try:
            text = said.decode("utf-8")
        except UnicodeDecodeError:
            continue
        lead = len(text) - len(text.lstrip())
        tail = len(text) - len(text.rstrip())
        start, end = at - lead, end + tail
        if start >= 0 and shield.unmask(rendered[start:end]) == text:
            out.append(OwnTokens(start, end, message.tokens))
        elif text.strip() and shield.unmask(rendered[at:end]) == text.lstrip() and lead == 1:
            # SPM writes the first word with a space that no text shows.
            out.append(OwnTokens(at, end, message.tokens))
    return out


def _turns(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """What a prompt is made of: cleaned, without an empty system text."""
    cleaned = [_cleaned(message) for message in messages]
    return [message for message in cleaned if message.text or message.role != "system"]


def _cleaned(message: ChatMessage) -> ChatMessage:
    role = "system" if message.role == "developer" else message.role
    if role not in _ROLES:
        raise KnownError(
            "role-unknown",
            "A message has a role that is none of system, user, assistant and tool; correct it.",
            detail=role[:40],
        )
    return replace(message, role=role, text=clean(message.text), reasoning=clean(message.reasoning))


def _is_jinja(text: str) -> bool:
    return "{{" in text or "{%" in text


def _empty() -> KnownError:
    return KnownError("prompt-empty", "There is nothing to answer yet; write a message first.")


def _without_words(result: RenderResult, messages: Sequence[ChatMessage]) -> RenderResult:
    """The failure without what people wrote: an error's text may quote it."""
    words = [message.text.strip()[:40] for message in messages]
    if any(word and word in result.message for word in words):
        kind = result.message.partition(":")[0][:40] if result.error == "damaged" else ""
        return replace(result, message=kind)
    return result


def _refused(result: RenderResult) -> KnownError:
    if result.error == "refused":
        said = " ".join(result.message.split())[:200]
        said = f" (it says: {said})" if said else ""
        return KnownError(
            "template-refused",
            f"The chat template does not accept this conversation{said};"
            " choose another template in this chat's settings.",
            detail=result.message,
        )
    return KnownError(
        "template-damaged",
        "The chat template has a mistake and cannot be used;"
        " choose another template in this chat's settings.",
        detail=result.message,
    )
