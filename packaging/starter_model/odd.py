"""Odd inputs for the evaluation, made apart from the noise that the training sees."""

from __future__ import annotations

import random

_FOREIGN = (
    "Привет, как дела? Расскажи о себе.",
    "¿Cómo puedo borrar una conversación?",
    "Où sont mes données ?",
    "Wie mache ich das rückgängig?",
    "これは何ですか?どうやって使いますか。",
    "你好，这个程序是做什么的？",
    "مرحبا، كيف حالك؟",
    "שלום, מה זה?",
    "नमस्ते, यह क्या है?",
    "สวัสดี นี่คืออะไร",
    "Γεια σου, τι κάνεις;",
    "Xin chào, bạn là ai?",
    "Merhaba, bu program ne yapar?",
    "Dzień dobry, co to jest?",
    "გამარჯობა",
    "Բարեւ Ձեզ",
    "ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ",
    "Bonjour le monde",
    "Hvordan søger jeg?",
    "Какая сегодня погода?",
)
_EMOJI = "😀😂🥹😭❤️🔥👍👎🙏🎉💩🐧🐉🌲🌳🍕🍜⚽🚀👨‍👩‍👧‍👦🏳️‍🌈🇰🇷🇫🇷👩🏽‍💻🧑‍🚀🫠🤖"
_MARKERS = (
    "<|prompter|>",
    "<|assistant|>",
    "<|system|>",
    "</s>",
    "<s>",
    "<unk>",
    "<|im_start|>system",
    "<|im_end|>",
    "<|endoftext|>",
    "<0x00>",
    "[INST] <<SYS>>",
    "<|prefix_begin|>",
    "▁",
    "\ufeff",
    "\u200b",
)
_SNIPPETS = (
    '{"role": "user", "content": null}',
    "SELECT * FROM chats; DROP TABLE chats;--",
    "<script>alert(1)</script>",
    "https://example.org/?q=%F0%9F%98%80&x=1",
    "C:\\Users\\me\\file.gguf",
    "\x1b[31mred\x1b[0m",
    "$(rm -rf /)",
    "{{ 7 * 7 }}",
    "a\tb\tc\n1\t2\t3",
    "```python\nprint('hi')\n```",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "∀x∈ℝ: ∃y (y² = x)",
    "ℌ𝔢𝔩𝔩𝔬 𝕎𝕠𝕣𝕝𝕕",
    "Z̷̢͝a̶l̵g̴o̸",
    "\u202eright to left\u202c",
    "0" * 200,
    "-1e309",
    "NaN",
    "null",
    "😀" * 100,
    "ㅋ" * 200,
    "가" * 500,
    "!" * 300,
    "word " * 300,
    "a" * 1000,
    "\n" * 50,
    " " * 100,
)


def _korean(rng: random.Random, length: int) -> str:
    words = []
    size = 0
    while size < length:
        word = "".join(chr(0xAC00 + rng.randrange(11172)) for _ in range(rng.randint(1, 5)))
        words.append(word)
        size += len(word) + 1
    return " ".join(words)[:length]


def _korean_text(length: int) -> str:
    text = (
        "어제는 비가 많이 와서 하루 종일 집에 있었습니다. 오래된 책을 다시 읽고 차를 마시며 창밖을 "
        "보았습니다. "
        "저녁에는 동생이 전화를 걸어 주말에 함께 시장에 가자고 했습니다. 우리는 "
        "사과와 배를 사고 국수를 먹을 생각입니다. "
    )
    return (text * (length // len(text) + 1))[:length]


def odd_inputs(count: int, seed: int) -> list[str]:
    """Count inputs that no user means: the fixed ones first, the rest drawn by the seed."""
    rng = random.Random(f"odd {seed}")
    fixed = ["", " ", _korean_text(3000), _korean(rng, 3000), *_FOREIGN, *_MARKERS, *_SNIPPETS]
    made: list[str] = []
    while len(fixed) + len(made) < count:
        kind = rng.randrange(8)
        if kind == 0:
            made.append("".join(rng.choice(_EMOJI) for _ in range(rng.randint(1, 30))))
        elif kind == 1:
            made.append("".join(rng.choice(_MARKERS) for _ in range(rng.randint(1, 6))))
        elif kind == 2:
            made.append(_korean(rng, rng.choice((3, 20, 200))))
        elif kind == 3:
            parts = [
                rng.choice(_FOREIGN),
                rng.choice(_MARKERS),
                rng.choice(_EMOJI),
                rng.choice(_SNIPPETS),
            ]
            rng.shuffle(parts)
            made.append(rng.choice((" ", "\n", "")).join(parts[: rng.randint(2, 4)]))
        elif kind == 4:
            low = rng.choice((0x20, 0x370, 0x400, 0x590, 0x900, 0xE00, 0x3040, 0x4E00, 0x1F300))
            made.append("".join(chr(low + rng.randrange(90)) for _ in range(rng.randint(1, 80))))
        elif kind == 5:
            made.append(rng.randbytes(rng.randint(1, 60)).decode("latin-1").replace("\0", ""))
        elif kind == 6:
            made.append(" ".join(rng.choice(_FOREIGN) for _ in range(rng.randint(1, 12))))
        else:
            made.append(rng.choice(_SNIPPETS) * rng.randint(1, 3))
    return (fixed + made)[:count]
