"""The training conversations: made from the phrase files, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import noise
from grammar import Phrases

PHRASES_DIR = Path(__file__).resolve().parent / "phrases"
KINDS = {"!": "full", "-": "short", "+": "long", "k": "place"}
SMALL_TALK = frozenset(
    {"hello", "howareyou", "thanks", "bye", "praise", "joke", "insult", "ok", "sorry"}
)
OUTSIDE = frozenset({"elsewhere", "sad", "unclear", "unknownapp"})
# How often a topic opens a conversation, beside 1.0 for the rest.
_SHARE = {
    "again": 1.7, "edit": 1.5, "undo": 1.5, "privacy": 1.7, "weights": 1.6, "search": 1.3,
    "stop": 1.3, "continue": 1.3, "tree": 1.1, "branch": 1.1, "outline": 1.2, "pager": 1.3,
    "trash": 1.3, "about": 1.3, "can": 1.2, "cannot": 1.2, "bigger": 1.2, "gguf": 1.1,
    "delete": 1.1, "hub": 0.5, "slow": 0.6, "stopped": 0.6, "editreply": 0.6, "size": 0.6,
    "maker": 0.6, "language": 0.6, "newchat": 0.5, "storage": 0.7, "account": 0.8, "saves": 0.9,
    "joke": 0.4, "sorry": 0.4, "praise": 0.6, "insult": 0.6, "ok": 0.7, "bye": 0.6,
    "howareyou": 0.5, "human": 0.7, "notgpt": 0.6, "unknownapp": 0.9,
}  # fmt: skip
_SYSTEM = (
    "You are a helpful assistant.", "You are the Grove guide.", "Be brief.", "Answer in English.",
    "You are a pirate.", "Answer politely and shortly.", "Reply in one sentence.", "Help the user.",
    "You help people with their work.", "친절하게 답하세요.", "Use simple words.", "Be kind.",
)  # fmt: skip
_KEYWORD_FRAMES = {
    "en": (
        "{a}", "{a} {b}", "{a}, {b}", "{a} how", "how {a}", "where {a}", "what {a}", "{a} help",
        "help with {a}", "about {a}", "{a} not working", "need {a}", "{a} where", "{a} {b} how",
        "how {a} {b}", "{b} {a} {c}", "i want {a}", "can i {a}", "how does {a} work", "{a} please",
        "something about {a}", "{a} and {b}", "{a} or {b}", "why {a}", "{a} possible", "no {a}",
        "tell me about {a}", "what about {a}", "is there {a}", "where's {a}", "{a} in {b}",
        "how can i {a}", "the {a} of {b}", "what is {a}", "{a}: how", "i'm looking for {a}",
        "do you have {a}", "when {a}", "{a} {b} {c}", "does grove have {a}", "show me {a}",
    ),
    "ko": (
        "{a}", "{a} {b}", "{a} 어떻게", "{a}은", "{a} 뭐야", "{a} 알려줘", "{a} 방법", "{a} 어디",
        "{a} {b} 어떻게", "{a}에 대해", "{a} 하고 싶어", "{a} 도와줘", "{a} 있어", "{a} 가능해",
        "{b} {a}", "{a}, {b}", "{a} 왜", "{a} 되나요", "{a} 하려면", "{a} {b} {c}",
    ),
}  # fmt: skip
_ASIDES = (
    "i was writing about {topic} and {q}",
    "in my chat about {subject}, {q}",
    "{q} in my chat about {food}",
    "i'm working on {form} about {topic}. {q}",
    "i asked it about {subject}. {q}",
    "{q} i was on {topic}",
    "i use grove for {subject}. {q}",
    "my {product} is new. {q}",
    "i am {pseudo} from {city}. {q}",
    "we talked about {thing} and now {q}",
    "{q} the one about {topic}",
    "my chat on {pseudo}: {q}",
    "my {pseudo} {pseudo} {q}",
    "{q} it was {pseudo}",
    "i told it to {task} but {q}",
    "for my {subject} class: {q}",
    "{q} my friend {pseudo} wants to know",
)
_JOINERS = {
    "en": (
        "",
        "",
        "and ",
        "ok, ",
        "ok and ",
        "thanks. ",
        "great, ",
        "and what about this: ",
        "also, ",
        "i see. ",
        "next question: ",
        "another question: ",
        "cool. ",
        "good. now ",
        "so ",
        "but ",
    ),
    "ko": ("", "", "그리고 ", "그럼 ", "고마워. ", "네, ", "그런데 ", "알겠어. ", "다음 질문: "),
}


# Outside subjects without a sentence around them.
_BARE = (
    "{task}", "{task}", "{thing} {topic}", "{pseudo} {subject} {person}", "{city} {food}",
    "{pseudo} {pseudo} {product}",
)  # fmt: skip
# What people say before they ask for the same in another form.
_REASONS = {
    "en": (
        "hm, ", "ok, ", "that's a lot of text, ", "i'm in a hurry, ", "i have little time, ",
        "my (wife|husband|mother|father|friend|son|boss) (asks too|wants to know|is here too), ",
        "that was (long|hard|complicated|fast|unclear), ", "wow, ", "not sure i follow, ", "nice, ",
        "good, but ", "i see, but ", "sorry, ", "thanks, but ", "could you, ", "would you mind: ",
        "my english is (bad|not good|poor), ", "i'm (korean|from seoul|from korea), ",
        "now ", "and ",
        "great. ", "got it. ", "hmm. ", "interesting. ", "right. ", "one more thing: ", "fine, ",
    ),
    "ko": (
        "음, ", "네, ", "길어요, ", "바빠요, ", "시간이 없어, ", "잘 모르겠어, ",
        "고마워, 그런데 ", "어려워, ", "친구가 궁금해해, ", "외국인 친구가 있어, ", "영어가 편해, ",
        "알겠어, 근데 ",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """One question with its answer; label names topic, kind and language of the answer."""

    asked: str
    answer: str
    label: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A short conversation, with or without a system text."""

    system: str
    turns: tuple[Turn, ...]


class Corpus:
    """Draws conversations; each is a function of the seed and its number alone."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self.phrases = {lang: Phrases() for lang in ("en", "ko")}
        self.facts = {lang: Phrases() for lang in ("en", "ko")}
        follow = Phrases()
        follow.read(PHRASES_DIR / "follow_ups.txt")
        for lang, phrases in self.phrases.items():
            phrases.read(PHRASES_DIR / f"{lang}_questions.txt")
            phrases.read(PHRASES_DIR / f"{lang}_elsewhere.txt")
            self.facts[lang].read(PHRASES_DIR / f"{lang}_facts.txt")
            phrases.parts |= follow.parts
            for name, lines in follow.topics.items():
                spoken, _, kind = name.partition(" ")
                if spoken == lang:
                    phrases.topics[kind] = lines
        self.general = {
            "en": ("shorter", "more", "repeat", "korean", "place"),
            "ko": ("shorter", "more", "repeat", "english"),
        }
        self.topics = {
            lang: [t for t in facts.topics if t not in OUTSIDE]
            for lang, facts in self.facts.items()
        }
        self.labels = sorted(
            f"{lang} {topic} {kind}"
            for lang, facts in self.facts.items()
            for topic in facts.topics
            for mark, kind in KINDS.items()
            if facts.lines(topic, mark)
        )

    def dialogues(self, count: int, first: int = 0) -> Iterator[Dialogue]:
        """Conversations number first to first + count - 1."""
        for index in range(first, first + count):
            yield self.dialogue(random.Random(f"{self.seed}:{index}"))

    def dialogue(self, rng: random.Random) -> Dialogue:
        """One conversation of one to three turns."""
        lang = "en" if rng.random() < 0.74 else "ko"
        many = rng.random()
        count = 1 if many < 0.62 else 2 if many < 0.95 else 3
        topic, turn = self._opening(lang, rng)
        turns = [turn]
        while len(turns) < count:
            topic, lang, turn = self._next(topic, lang, rng)
            turns.append(turn)
        system = rng.choice(_SYSTEM) if rng.random() < 0.05 else ""
        return Dialogue(system, tuple(turns))

    def _answer(self, lang: str, topic: str, mark: str, rng: random.Random) -> tuple[str, str]:
        facts = self.facts[lang]
        lines = facts.lines(topic, mark)
        if not lines:
            mark, lines = "!", facts.lines(topic, "!")
        if not lines:
            return self._answer(lang, "elsewhere", "!", rng)
        text = facts.expand(facts.pick(lines, rng).text, rng)
        return text, f"{lang} {topic} {KINDS[mark]}"

    def _turn(self, asked: str, lang: str, topic: str, mark: str, rng: random.Random) -> Turn:
        answer, label = self._answer(lang, topic, mark, rng)
        return Turn(asked, answer, label)

    def _opening(self, lang: str, rng: random.Random) -> tuple[str, Turn]:
        kind = rng.random()
        if kind < 0.035:
            return "unclear", self._turn(noise.odd_input(rng), "en", "unclear", "!", rng)
        if kind < 0.044:
            return "elsewhere", self._turn(self._long(lang, rng), lang, "elsewhere", "!", rng)
        if kind < 0.30:
            return self._outside(lang, rng)
        topics = self.topics[lang]
        topic = rng.choices(topics, [_SHARE.get(t, 1.0) for t in topics])[0]
        asked = self._ask(lang, topic, rng)
        if rng.random() < 0.03 and topic not in SMALL_TALK:
            brief = rng.choice((", in short", " (short answer)", " briefly", ", keep it short",
                                " in one sentence", ", short") if lang == "en" else
                               (" 짧게", " 간단히", " 한 줄로"))  # fmt: skip
            return topic, self._turn(asked.rstrip("?.! ") + brief, lang, topic, "-", rng)
        if rng.random() < 0.015 and lang == "en" and topic in self.facts["ko"].topics:
            other = rng.choice(
                (" (in korean)", ", answer in korean", " 한국어로", " in korean please")
            )
            return topic, self._turn(asked.rstrip("?.! ") + other, "ko", topic, "!", rng)
        return topic, self._turn(asked, lang, topic, "!", rng)

    def _outside(self, lang: str, rng: random.Random) -> tuple[str, Turn]:
        topic = rng.choices(("elsewhere", "sad", "unknownapp"), (0.86, 0.06, 0.08))[0]
        phrases = self.phrases[lang]
        text = phrases.expand(phrases.pick(phrases.lines(topic, "?"), rng).text, rng)
        if lang == "en" and rng.random() < 0.10:
            template = rng.choice(_BARE)
            text = phrases.expand(template, rng)
            words = text.split()
            text = noise.request(text, rng) if template == "{task}" else noise.salad(words, rng)
        asked = noise.typed(text, rng, lang=lang, rough=0.8)
        return topic, self._turn(asked, lang, topic, "!", rng)

    def _long(self, lang: str, rng: random.Random) -> str:
        phrases = self.phrases[lang]
        lines = phrases.lines("elsewhere", "?")
        many = rng.choice((5, 8, 8, 12, 20, 30, 60, 120 if rng.random() < 0.3 else 8))
        parts = [phrases.expand(phrases.pick(lines, rng).text, rng) for _ in range(many)]
        if rng.random() < 0.3:
            parts = [parts[0]] * many
        elif rng.random() < 0.4:
            parts = ["".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(6)) for _ in parts]
        return rng.choice((". ", " ", "\n", ", ")).join(parts)

    def _ask(self, lang: str, topic: str, rng: random.Random) -> str:
        phrases = self.phrases[lang]
        words = phrases.lines(topic, "*")
        if words and rng.random() < (0.04 if topic in SMALL_TALK else 0.15):
            choices = words[0].text.split("|")
            a, b, c = (rng.choice(choices) for _ in range(3))
            if lang == "en" and rng.random() < 0.4:
                text = noise.salad([a, b, c][: rng.randint(1, 3)], rng)
            else:
                text = rng.choice(_KEYWORD_FRAMES[lang]).format(a=a, b=b, c=c)
            return self._slips(noise.typed(text, rng, lang=lang), lang, rng)
        template = phrases.pick(phrases.lines(topic, "?"), rng).text
        if template.startswith("{how} ") and lang == "en" and rng.random() < 0.25:
            text = noise.request(phrases.expand(template[6:], rng), rng)
        else:
            text = phrases.expand(template, rng)
        if topic in SMALL_TALK:
            return noise.typed(text, rng, lang=lang, asking=False, rough=0.7)
        if lang == "en" and rng.random() < 0.05:
            aside = phrases.expand(rng.choice(_ASIDES).replace("{q}", "\0"), rng)
            text = aside.replace("\0", text)
        asked = noise.typed(text, rng, lang=lang)
        return self._slips(asked, lang, rng) if rng.random() < 0.35 else asked

    @staticmethod
    def _slips(text: str, lang: str, rng: random.Random) -> str:
        """A short English text with a few more slips: short questions are typed in haste."""
        if lang == "en" and len(text) < 48:
            kind = rng.random()
            if kind < 0.06:
                text = noise.shouted(text, rng)
            elif kind < 0.12:
                text = text.upper()
            for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
                text = noise.typo(text, rng)
        return text

    def _next(self, topic: str, lang: str, rng: random.Random) -> tuple[str, str, Turn]:
        """The next turn after one on this topic: (its topic, its language, the turn)."""
        phrases = self.phrases[lang]
        source = "elsewhere_follow" if topic in OUTSIDE else topic
        leads = phrases.lines(source, ">")
        kind = rng.random()
        if leads and kind < 0.45:
            line = rng.choice(leads)
            text = phrases.expand(line.text, rng)
            if rng.random() < 0.2:
                text = rng.choice(_JOINERS[lang]) + text
            asked = noise.typed(text, rng, lang=lang, rough=0.8)
            mark = "k" if "shortcut" in text or "which key" in text else "!"
            return line.target, lang, self._turn(asked, lang, line.target, mark, rng)
        if kind < 0.72:
            return self._general(topic, lang, rng)
        if kind < 0.82:
            asked_topic = rng.choice(("thanks", "thanks", "ok", "bye", "praise", "insult"))
            asked = self._ask(lang, asked_topic, rng)
            return asked_topic, lang, self._turn(asked, lang, asked_topic, "!", rng)
        topic, turn = self._opening(lang, rng)
        if rng.random() < 0.5 and turn.asked.strip():
            joined = rng.choice(_JOINERS[lang]) + turn.asked.strip()
            turn = Turn(joined, turn.answer, turn.label)
        return topic, lang, turn

    def _general(self, topic: str, lang: str, rng: random.Random) -> tuple[str, str, Turn]:
        phrases = self.phrases[lang]
        kind = rng.choice(self.general[lang])
        text = phrases.expand(phrases.pick(phrases.lines(kind, "?"), rng).text, rng)
        if rng.random() < 0.2:
            text = phrases.expand(rng.choice(_REASONS[lang]), rng) + text
        asked = noise.typed(text, rng, lang=lang, rough=0.7)
        mark = {"shorter": "-", "more": "+", "place": "k"}.get(kind, "!")
        spoken = {"korean": "ko", "english": "en"}.get(kind, lang)
        if topic in SMALL_TALK and spoken == lang:
            topic = "can"
        if topic not in self.facts[spoken].topics:
            topic = "elsewhere"
        return topic, spoken, self._turn(asked, spoken, topic, mark, rng)
