"""The default corpus: the Chit-Chat dataset, real conversations between two people.

MIT licence; https://github.com/BYU-PCCL/chitchat-dataset. Read from the installed package.
"""

import importlib.resources
import json
import zlib
from collections.abc import Iterable, Sequence

MIN_TURNS = 6
MAX_TURN_CHARACTERS = 4_000
MIN_DISTINCT_RATIO = 0.5
MIN_COMPRESSED_RATIO = 0.3

Turn = tuple[str, str]
"""Sender and text."""


def load_chitchat() -> list[str]:
    """Every kept conversation as lines `A: …` and `B: …`, in the order of the package's file."""
    path = importlib.resources.files("chitchat_dataset") / "dataset.json"
    records = json.loads(path.read_text(encoding="utf-8"))
    return render_conversations(records.values())


def render_conversations(records: Iterable[dict[str, list[list[dict[str, str]]]]]) -> list[str]:
    """Keeps conversations of two senders and at least six turns that are not spam."""
    documents = []
    for record in records:
        messages = [message for turn in record["messages"] for message in turn]
        turns = join_consecutive((m["sender"], m["text"]) for m in messages)
        num_senders = len({sender for sender, _ in turns})
        if num_senders == 2 and len(turns) >= MIN_TURNS and not is_spam(messages, turns):
            documents.append(render(turns))
    return documents


def join_consecutive(messages: Iterable[Turn]) -> list[Turn]:
    """Joins consecutive messages of one sender; white space is folded, empty ones are left out."""
    turns: list[Turn] = []
    for sender, text in messages:
        text = " ".join(text.split())
        if not text:
            continue
        if turns and turns[-1][0] == sender:
            text = f"{turns.pop()[1]} {text}"
        turns.append((sender, text))
    return turns


def is_spam(messages: Sequence[dict[str, str]], turns: Sequence[Turn]) -> bool:
    """Whether a conversation repeats itself or is one person's monologue.

    Spam is a conversation in which fewer than half of the messages are distinct (single letters
    sent over and over), one that compresses to under 30 % (pasted or generated sentences; the
    next real one stands at 36 %), or one with a turn of more than 4,000 characters (somebody
    typing on to fill the prize's quota after the other had left).
    """
    distinct = {message["text"].strip().lower() for message in messages}
    text = "\n".join(text for _, text in turns).encode()
    return (
        len(distinct) < MIN_DISTINCT_RATIO * len(messages)
        or len(zlib.compress(text)) < MIN_COMPRESSED_RATIO * len(text)
        or any(len(text) > MAX_TURN_CHARACTERS for _, text in turns)
    )


def render(turns: Sequence[Turn]) -> str:
    """Writes the first sender as A, the other as B, a line a turn."""
    first_sender = turns[0][0]
    return "\n".join(f"{'A' if sender == first_sender else 'B'}: {text}" for sender, text in turns)
