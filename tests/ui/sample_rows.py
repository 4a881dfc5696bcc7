"""Rows for looking at and for measuring: the conversation of the pictures, and mixed long ones."""

from __future__ import annotations

from desktop_app.ui.row_view import Elsewhere, RowState, RowView

LOAN = (
    "Over 25 years you pay **€188 less each month**, but €30,061 more in interest. With the "
    "amount $P$, the monthly rate $r$ and $n$ payments:\n\n"
    "$$M = \\frac{P\\,r}{1-(1+r)^{-n}}$$\n\n"
    "| Term | Each month | Interest in all |\n|---|--:|--:|\n"
    "| 20 years | €1,441.74 | €106,017 |\n| 25 years | €1,253.59 | €136,078 |\n"
)
CODE = (
    "This works for any rate above zero:\n\n```python\ndef monthly(amount, rate, years):\n"
    "    n, r = years * 12, rate / 12      # rate is yearly, 0.039\n"
    "    return amount * r / (1 - (1 + r) ** -n)\n```\n\n"
    "Call `monthly(240_000, 0.039, 25)` and you should get"
)
KOREAN = (
    "보증금 3천을 빼고 2억 1천을 빌리면 **전세가 한 달에 16만 7,500원 쌉니다**. 대출금을 $L$, "
    "연이율을 $i$라고 하면 한 달 비용은 다음과 같습니다.\n\n$$C = \\frac{L\\,i}{12}$$\n\n"
    "| 구분 | 한 달 | 2년 |\n|---|--:|--:|\n| 전세 | 682,500원 | 16,380,000원 |\n"
    "| 월세 | 850,000원 | 20,400,000원 |\n"
)


def picture_rows() -> list[RowView]:
    """The messages of the main picture."""
    llama = "Llama 3.2 3B"
    ask = "I’d borrow €240,000 at 3.9%. Compare 20 and 25 years, with the formula."
    write = "Write it as a Python function, so I can try other rates."
    return [
        RowView(
            1,
            "user",
            time="14:01",
            text=ask,
            version=2,
            versions=2,
            elsewhere=(Elsewhere(1, 12),),
            below=3,
        ),
        RowView(2, "assistant", llama, "14:02", text=LOAN, version=1, versions=3, below=2),
        RowView(3, "user", time="14:03", text=write, below=1),
        RowView(
            4,
            "assistant",
            llama,
            text=CODE,
            state=RowState.WRITING,
            detail="Read 46 tokens, 3,070 kept",
        ),
    ]


def state_rows() -> list[RowView]:
    """One row of each state."""
    llama = "Llama 3.2 3B"
    short = "Over 30 years you pay €310 less each month, but the"
    return [
        RowView(
            10,
            "user",
            time="14:01",
            text="Compare 20 and 30 years, with the formula.",
            version=2,
            versions=2,
            edited=True,
        ),
        RowView(
            11,
            "assistant",
            llama,
            state=RowState.READING,
            progress=0.58,
            detail="58% of 1,912 tokens, about 9 s left",
        ),
        RowView(
            12,
            "assistant",
            llama,
            text="Over 30 years you pay €310 less each month",
            state=RowState.WRITING,
            detail="Instant, 3,116 tokens kept",
        ),
        RowView(13, "assistant", llama, text=short, state=RowState.STOPPED),
        RowView(14, "assistant", llama, text=short, state=RowState.INTERRUPTED),
        RowView(
            15,
            "assistant",
            llama,
            text="Over 25 years you pay €188 less each month.",
            version=1,
            versions=3,
            stale=True,
        ),
        RowView(
            16,
            "assistant",
            llama,
            text="Over 25 years you pay",
            state=RowState.FAILED,
            error="There was not enough memory for this context. Try a smaller one.",
            error_badge="Memory ran out",
            error_detail="ggml: out of memory",
        ),
        RowView(
            17,
            "assistant",
            llama,
            "14:09",
            text=KOREAN,
            starred=True,
            reasoning="Let me think about the deposit first.\n\nThen the rent.",
        ),
    ]


def part_rows() -> list[RowView]:
    """Every part of Markdown."""
    text = (
        "# First heading\n\nA paragraph with a [link](https://example.org), `code in a line`, "
        "**bold words**, *slanted words* and ~~struck words~~, long enough to wrap.\n\n"
        '```python\nclass Loan:\n    """A loan."""\n\n    def rate(self) -> float:\n'
        "        return 0.039  # a year\n```\n\n## Second heading\n\n- an item\n- another one, "
        "which is so long that it wraps to a second line because it goes on and on\n"
        "  1. nested\n  2. nested with $\\sum_{i=0}^{n} x_i$\n- [ ] to do\n- [x] done\n\n"
        "> A quoted line.\n>\n> - with a list\n> > and a deeper quote\n\n---\n\n"
        "![A drawing](https://example.org/a.png) <b>html</b>\n\n"
        "| Left | Centre | Right | A long column of words |\n|:--|:-:|--:|---|\n"
        "| a | b | 1,000 | Words that need more room than there is in a narrow window |\n"
        "| `x` | **y** | 2 | short |\n"
    )
    return [
        RowView(30, "user", time="14:01", text="Show me everything:\n\n```sql\nSELECT 1;\n```"),
        RowView(31, "assistant", "Llama 3.2 3B", "14:02", text=text, version=2, versions=3),
        RowView(32, "system", time="14:03", text="You are a helpful assistant."),
    ]


def mixed_rows(count: int) -> list[RowView]:
    """Prompts and replies of every kind, all different."""
    replies = (
        LOAN,
        CODE,
        KOREAN,
        "Short answer.",
        "A list:\n\n" + "- an item of a list\n" * 12,
        "Long. " * 260,
        "# Heading\n\n" + ("Paragraph with `code` and more. " * 9 + "\n\n") * 4,
    )
    rows = []
    for number in range(1, count + 1):
        if number % 2:
            text = f"Question {number}: what about the {number}th case of it?"
            rows.append(RowView(number, "user", time="14:01", text=text))
        else:
            text = f"Answer {number}. " + replies[number // 2 % len(replies)]
            rows.append(RowView(number, "assistant", "Llama 3.2 3B", "14:02", text=text))
    return rows
