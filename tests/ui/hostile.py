"""Replies that try to hide, fetch, freeze or break out: 300 of them, the same ones each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

_ADDRESSES = (
    "file:///etc/hostname",
    "//server/share/x.png",
    "\\\\server\\share\\x.png",
    "http://127.0.0.1:9/x.png",
    "https://example.org/x.svg",
    "data:image/png;base64,iVBORw0KGgo=",
    "/etc/hostname",
    "qrc:/x.png",
    "C:\\Windows\\win.ini",
    "javascript:alert(1)",
)
_SNIPPETS = (
    "<b>unclosed <i>tags <table><tr><td>cell",
    "vector<int> v; a < b && c > d <!-- comment",
    "```python\nnever closed",
    "~~~~\ntildes\n~~~\nstill inside",
    "`` unclosed ` code",
    "**bold *both _mixed** up* again_",
    "<style>body { background: url(http://127.0.0.1:9/a.css) } @import 'x.css'</style>",
    '<svg onload="x()"><image href="file:///etc/hostname"/><script>y</script></svg>',
    '<link rel="stylesheet" href="http://127.0.0.1:9/b.css"><iframe src="file:///etc">',
    "\u202egnp.exe\u202c and \u2066isolated\u2069 and \u200fmark",
    "bell\x07 escape\x1b[31mred\x1b[0m null\x00 vertical\x0btab form\x0cfeed \x85 next",
    "\ufdd0frame\ufdd1 \ufffcobject \ufeffbom \u2028line \u2029paragraph \U000e0041tag",
    "&#8238; &lt;script&gt; &nbsp;&zwj; &#0; &#xfdd0;",
    "[a]: http://127.0.0.1:9/definition 'title'\n[a] [b][a]",
    "$\\frac{$ and $$ \\begin{matrix} never \\[ ends",
    "$" + "{" * 60 + "x" + "}" * 60 + "$ and $" + "\\sqrt{" * 40 + "x" + "}" * 40 + "$",
    "| a | b |\n|---|---|\n| lost | cells | here | there |\n| `|` | \\| |",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "👨‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 한국어 العربية עברית ไทย नमस्ते",
    "***\n---\n___\n# # #\n=====\n+ + +\n1) 2) 3)",
)


def _big(draw: random.Random, kind: int) -> str:
    """One long text of a kind that parsers and layouts dislike."""
    size = draw.choice((20_000, 60_000))
    bodies = (
        lambda: "x" * 1_000_000,
        lambda: "word " * 200_000,
        lambda: "| a | b | c |\n|---|---|---|\n" + "| 1 | 2 | 3 |\n" * 4000,
        lambda: "|" + " a |" * 400 + "\n|" + "---|" * 400 + "\n" + ("|" + " 1 |" * 400 + "\n") * 20,
        lambda: ">" * size + " deep",
        lambda: "- " * size,
        lambda: "\n".join(" " * n + "- item" for n in range(400)),
        lambda: "[" * size,
        lambda: "![" * size,
        lambda: "*a " * size,
        lambda: "`" * size + "x",
        lambda: "<" * size,
        lambda: "$" * size,
        lambda: "\\(" * size,
        lambda: "&#" * size,
        lambda: "~~a" * size,
        lambda: "_a*b" * size,
        lambda: "https://a.b/" * size,
        lambda: "```c\n" + 'int x = "' + "a" * 500_000 + "\n```",
        lambda: "```\n" + "short line\n" * 20_000,
        lambda: "e\u0301\u0323" * size,
        lambda: "\u202e" * size,
        lambda: "\n" * size + "end",
        lambda: "\t" * size + "end",
        lambda: "# " * size,
        lambda: "1. a\n" * (size // 5),
        lambda: "    " * size + "code",
        lambda: "가나다 " * size,
        lambda: "$x$ " * 3000,
    )
    return bodies[kind % len(bodies)]()


@cache
def replies(count: int = 300) -> tuple[str, ...]:
    """Hostile replies: every big one, then mixtures of snippets, images and addresses."""
    return tuple(_replies(count))


def _replies(count: int) -> Iterator[str]:
    draw = random.Random(7)
    for number in range(count):
        if number < 29:
            yield _big(draw, number)
            continue
        parts = draw.sample(_SNIPPETS, draw.randint(1, 6))
        for _image in range(draw.randint(0, 3)):
            address = draw.choice(_ADDRESSES)
            form = draw.choice(("![alt {0}]({0})", "[text]({0})", "<img src='{0}'>", "<{0}>"))
            parts.append(form.format(address))
        draw.shuffle(parts)
        text = draw.choice(("\n\n", "\n", " ")).join(parts)
        if draw.random() < 0.3:
            cut = draw.randrange(len(text))
            text = text[:cut]
        yield text
