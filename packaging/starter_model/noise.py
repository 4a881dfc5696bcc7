"""How typing differs from a template: case, punctuation, typos, casual spelling, odd input."""

from __future__ import annotations

import math
import random

_NEAR = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj",
    "i": "uo", "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o",
    "q": "wa", "r": "et", "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc",
    "y": "tu", "z": "x",
}  # fmt: skip
_CASUAL = {
    "you": "u", "are": "r", "please": "pls", "what": "wat", "your": "ur", "because": "cuz",
    "message": "msg", "messages": "msgs", "without": "w/o", "with": "w/", "want to": "wanna",
    "going to": "gonna", "something": "smth", "conversation": "convo", "about": "abt",
    "i am": "im", "do not": "dont", "how to": "how 2", "for": "4", "really": "rly",
    "people": "ppl", "reply": "rply", "shortcut": "short cut", "offline": "off line",
    "cannot": "cant", "okay": "k", "computer": "pc", "previous": "prev", "language": "lang",
    "is it possible to": "possible to", "how do i": "howto", "what is": "wats", "to": "2",
}  # fmt: skip
_DROPPED_TEXT = (
    "a an the i do does is are my to of can it in on for you me that this there have please"
)
_DROPPED = frozenset(_DROPPED_TEXT.split())
_BEFORE = {
    "en": (
        "hey",
        "hi",
        "hello",
        "ok",
        "so",
        "ok so",
        "quick question:",
        "um",
        "sorry,",
        "well,",
        "btw",
        "hm",
        "please",
        "just wondering,",
        "and",
        "but",
        "excuse me,",
        "one question:",
        "hey there,",
        "i wonder,",
        "dumb question:",
        "noob question:",
        "uhm",
        "alright,",
        "now",
        "let me ask:",
        "question:",
        "wait,",
        "good morning,",
        "hi there!",
        "yo",
        "dear guide,",
        "one more thing:",
        "tell me,",
        "say,",
        "listen,",
        "actually,",
        "you know,",
        "then",
        "honestly,",
        "my question is:",
        "i have a question:",
        "need help:",
        "help!",
        "hey grove,",
        "sorry if this is obvious but",
        "can you tell me",
        "do you know",
        "i was wondering",
        "i'd like to know",
        "tell me please",
        "might be a silly question, but",
        "ok,",
        "oh,",
        "ugh,",
        "argh,",
        "oh no,",
        "damn,",
        "jeez,",
        "omg",
        "hmmm",
        "aha,",
        "listen up,",
        "my friend,",
        "real quick:",
        "serious question:",
        "for a friend:",
    ),
    "ko": (
        "저기",
        "혹시",
        "음",
        "안녕하세요,",
        "근데",
        "그런데",
        "질문이 있는데",
        "저",
        "있잖아",
        "궁금한데",
        "그럼",
        "아",
        "미안한데",
        "죄송한데",
        "하나만 물어볼게",
        "질문:",
        "야",
        "혹시나 해서",
    ),
}
_AFTER = {
    "en": (
        "please",
        "pls",
        "thanks",
        "thx",
        "in grove",
        "here",
        "in this app",
        "lol",
        "right now",
        "exactly",
        "actually",
        "for me",
        "plz",
        "anyway",
        "then",
        "now",
        "again",
        "tho",
        "though",
        "in here",
        "with this",
        "btw",
        "if i may ask",
        "in this program",
        "quickly",
        "today",
        "i wonder",
        "haha",
        "ok",
        "somehow",
        "somewhere",
        "at all",
        "even",
        "any idea",
        "help",
        "i forgot",
        "tell me",
        "can you help",
        "thank you",
        "and how",
        "or not",
        "by any chance",
        "in simple words",
        "on this thing",
        "using grove",
        "inside grove",
        "man",
        "bro",
        "guide",
    ),
    "ko": (
        "알려줘",
        "요",
        "부탁해",
        "좀",
        "제발",
        "ㅠㅠ",
        "ㅋㅋ",
        "궁금해요",
        "도와줘",
        "그로브에서",
        "여기서",
        "이 앱에서",
        "지금",
        "ㅎㅎ",
        "혹시",
        "알려주세요",
        "Grove에서",
    ),
}


def typo(text: str, rng: random.Random) -> str:
    """One slip: letters swapped, left out, doubled, or the key beside it; a vowel swallowed."""
    places = [i for i, char in enumerate(text) if char.isalpha()]
    if len(places) < 4:
        return text
    at = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0 and at + 1 < len(text) and text[at + 1].isalpha():
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    vowels = [i for i in places if text[i] in "aeiou" and text[i - 1 : i].isalpha()]
    if kind == 3 and vowels:
        at = rng.choice(vowels)
        return text[:at] + text[at + 1 :]
    near = _NEAR.get(text[at].lower())
    return text[:at] + rng.choice(near) + text[at + 1 :] if near else text


def _casual(text: str, rng: random.Random) -> str:
    padded = f" {text} "
    for word, short in _CASUAL.items():
        if f" {word} " in padded and rng.random() < 0.6:
            padded = padded.replace(f" {word} ", f" {short} ")
    return padded.strip()


def _case(text: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.06:
        return text.upper()
    if kind < 0.075:
        return text.title()
    if kind < 0.5:
        return text
    text = text[:1].upper() + text[1:]
    for plain, proper in ((" i ", " I "), (" i'm ", " I'm "), ("grove", "Grove"), ("i'd", "I'd"),
                          ("ctrl", "Ctrl"), ("esc ", "Esc "), ("korean", "Korean")):  # fmt: skip
        text = text.replace(plain, proper)
    return text[:1].upper() + text[1:]


def shouted(text: str, rng: random.Random) -> str:
    """A short text with marks between its words, often in capitals: someone is upset."""
    mark = rng.choice(("!", "!!", "!!!", "?", "??", "?!", "...", ",", "-"))
    words = text.split()
    text = f"{mark} ".join(words) if len(words) < 4 else f"{text}{mark}"
    return text.upper() if rng.random() < 0.5 else text


def _ending(text: str, rng: random.Random, asking: bool) -> str:
    if text[-1:] in "?!.)":
        return text
    kind = rng.random()
    if kind < (0.52 if asking else 0.12):
        return text + "?"
    if kind < 0.6:
        return text + "."
    for limit, mark in ((0.63, "!"), (0.65, "??"), (0.665, "!!"), (0.675, " ?"), (0.685, "..."),
                        (0.69, "?!")):  # fmt: skip
        if kind < limit:
            return text + mark
    return text


def typed(
    text: str, rng: random.Random, *, lang: str, asking: bool = True, rough: float = 1.0
) -> str:
    """The template's text as someone might type it; rough scales how far it may stray."""
    if asking and rng.random() < 0.14 * rough:
        text = f"{rng.choice(_BEFORE[lang])} {text}"
    if asking and rng.random() < 0.10 * rough:
        text = f"{text} {rng.choice(_AFTER[lang])}"
    if lang == "en":
        if rng.random() < 0.3 * rough:
            text = text.replace("'", "")
        if rng.random() < 0.06 * rough:
            text = _casual(text, rng)
        if rng.random() < 0.10 * rough and len(text.split()) > 3:
            kept = [w for w in text.split() if w not in _DROPPED or rng.random() < 0.45]
            text = " ".join(kept) or text
        if rng.random() < 0.025 * rough:
            words = text.split()
            rng.shuffle(words)
            text = " ".join(words)
        text = _case(text, rng)
        if rng.random() < 0.02 * rough:
            at = rng.randrange(len(text))
            text = text[:at] + text[at] * rng.randint(3, 6) + text[at + 1 :]
        if rng.random() < 0.26 * rough:
            for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
                text = typo(text, rng)
    else:
        if rng.random() < 0.12 * rough:
            text = text.replace(" ", "")
        elif rng.random() < 0.08 * rough:
            words = text.split(" ")
            at = rng.randrange(len(words))
            text = " ".join(words[:at]) + "".join(words[at : at + 1]) + " ".join(words[at + 1 :])
        if rng.random() < 0.15 * rough:
            text += rng.choice(("요", "ㅋㅋ", "ㅠ", "~", "여"))
    text = _ending(text, rng, asking)
    return f" {text}" if rng.random() < 0.2 else text


_REQUESTS = {
    "en": (
        "{q}", "{q}", "{q}", "{q}, possible", "{q}, how", "{q}: how", "{q}, can i", "{q}, doable",
        "{q}, is that possible", "{q}, how does that work", "{q}, any chance", "{q}, what do i do",
        "{q}, where", "{q} - how", "so {q}, is there a way", "{q}, what now", "{q}, allowed",
        "{q} possible", "{q} how", "i tried to {q}", "what if i {q}", "when i {q}, what happens",
        "let's {q}", "time to {q}", "just {q}", "you know how to {q}", "{q}, which button",
        "{q}, show me", "{q}, what's the way", "to {q}, what do i press", "{q}, is there anything",
    ),
    "ing": (
        "{q}", "{q}", "{q}, possible", "{q}, how", "{q}: how", "{q}, how does that work",
        "{q}, doable", "is {q} possible", "what about {q}", "how does {q} work", "{q} howto",
        "does {q} work", "{q} instructions", "is there {q}", "about {q}", "i need help {q}",
        "how is {q} done", "tell me about {q}", "{q} doesn't work", "any trick for {q}",
        "what does {q} do", "why {q}", "explain {q}", "i have trouble {q}", "{q}, where",
    ),
}  # fmt: skip
_FILLER_TEXT = (
    "so when the what of a is it and my this that but with for one once more still just got where "
    "how why which here there then again about some now ever really even after before from into "
    "was be by no not any all me we they you i in on at to do does did can could would will should"
)
_FILLERS = _FILLER_TEXT.split()


def gerund(text: str) -> str:
    """The first word with -ing: roughly, as hurried people spell it."""
    verb, _, rest = text.partition(" ")
    if verb.endswith("e") and not verb.endswith("ee"):
        verb = verb[:-1]
    elif len(verb) == 3 and verb[1] in "aeiou" and verb[2] in "tpgnb":
        verb += verb[2]
    return f"{verb}ing {rest}".strip()


def request(wish: str, rng: random.Random) -> str:
    """A bare wish ("find a word") put as something other than a question with "how"."""
    if rng.random() < 0.35:
        return rng.choice(_REQUESTS["ing"]).format(q=gerund(wish))
    return rng.choice(_REQUESTS["en"]).format(q=wish)


def salad(words: list[str], rng: random.Random) -> str:
    """Words of a topic among small words, in any order: what remains of a sentence unknown."""
    mixed = words + [rng.choice(_FILLERS) for _ in range(rng.randint(1, 5))]
    rng.shuffle(mixed)
    return " ".join(mixed)


_SCRIPTS = (
    (0x0400, 0x044F), (0x0391, 0x03C9), (0x05D0, 0x05EA), (0x0627, 0x064A), (0x0905, 0x0939),
    (0x0E01, 0x0E2E), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5), (0x0021, 0x007E), (0x2190, 0x21FF),
    (0x10A0, 0x10FF), (0x0530, 0x058F), (0x2500, 0x257F), (0x0100, 0x017F), (0x1F900, 0x1F9FF),
)  # fmt: skip
_STRAY = (
    "<|prompter|>", "<|assistant|>", "<|system|>", "</s>", "<s>", "<|im_start|>", "<|endoftext|>",
    "[INST]", "<unk>", "<0x0A>", "<|im_end|>", "###", "<|prefix_begin|>", "User:", "Assistant:",
)  # fmt: skip


_UNITS = ("ha", "no ", "lol ", "why ", "ㅋㅋ", "ㅠㅠ", "네 ", "아", "hello ", "test ",
          "go ", "1 2 3 ", "abc", "...", "- ", "🙂", "😂😭", "🎉 ", "null ", "true\n",
          "x = 1\n", "blah ", "\t", "0x")  # fmt: skip
# Longest pasted repetition, in UTF-8 bytes: each may cost a token.
_LONGEST_BYTES = 3000


def repeated(rng: random.Random) -> str:
    """Held keys and pasted repetitions, up to thousands of bytes: short ones most often.

    Without them a long run of one token is answered by a reply that never ends.
    """
    kind = rng.randrange(5)
    if kind == 0:
        unit = rng.choice(_UNITS)
    elif kind == 1:
        low, high = rng.choice(_SCRIPTS)
        unit = chr(rng.randint(low, high))
    elif kind == 2:
        unit = chr(rng.randint(0x61, 0x7A)) + rng.choice(("", "", " ", "\n"))
    elif kind == 3:
        unit = rng.choice("?!.,-_=+*#~0123456789 \nㅋㅎㅠㅜ가나ㅏ😀👍🔥")
    else:
        unit = "".join(chr(rng.randint(0x61, 0x7A)) for _ in range(rng.randint(2, 7)))
        unit += rng.choice((" ", " ", ", ", "\n", ""))
    most = _LONGEST_BYTES // len(unit.encode())
    times = round(math.exp(rng.uniform(0.0, math.log(most))))
    return unit * times


def odd_input(rng: random.Random) -> str:
    """No question at all: mashed keys, emoji, other scripts, stray markers, blanks."""
    kind = rng.randrange(9)
    if rng.random() < 0.14:
        return repeated(rng)
    if kind == 0:
        return "".join(
            rng.choice("asdfghjklqwertyuiopzxcvbnm    ;") for _ in range(rng.randint(3, 40))
        )
    if kind in {1, 2, 3}:
        low, high = rng.choice(_SCRIPTS)
        length = rng.choice((1, 2, 3, 6, 12, 30, 60))
        chars = [chr(rng.randint(low, high)) for _ in range(length)]
        return "".join(c + (" " if rng.random() < 0.15 else "") for c in chars)
    if kind == 4:
        words = [rng.choice(_STRAY) for _ in range(rng.randint(1, 5))]
        return rng.choice(("", " ", "\n")).join(words)
    if kind == 5:
        return rng.choice(
            ("", " ", "  ", "\n", "\n\n", "\t", ".", "?", "...", "???", "!", "-", "—")
        )
    if kind == 6:
        return repeated(rng)
    if kind == 7:
        return "".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(rng.randint(1, 40)))
    return "".join(chr(rng.choice((rng.randint(32, 126), rng.randint(160, 0x2FFF))))
                   for _ in range(rng.randint(2, 50)))  # fmt: skip
