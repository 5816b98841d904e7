"""The default corpus: each rule on a record made by hand, then the real package."""

import random
import re
import string

import pytest

from datamodules.chitchat import join_consecutive, load_chitchat, render_conversations

Record = dict[str, list[list[dict[str, str]]]]

LINES = [
    "Hello there, how was the lake?",
    "Cold! We swam anyway.",
    "Brave. Did Jonas come along?",
    "No, he broke his ankle on Friday",
    "Ouch, that is bad luck",
    "He says the crutches are fun",
    "Give him my best wishes",
    "I will, thanks a lot",
]


def record(*messages: tuple[str, str]) -> Record:
    return {"messages": [[{"sender": sender, "text": text}] for sender, text in messages]}


def dialogue(texts: list[str]) -> Record:
    return record(*(("xy"[index % 2], text) for index, text in enumerate(texts)))


def random_text(length: int) -> str:
    return "".join(random.Random(length).choices(string.ascii_letters, k=length))


def test_conversation_becomes_lines_of_a_and_b() -> None:
    expected = "\n".join(f"{'AB'[i % 2]}: {text}" for i, text in enumerate(LINES[:6]))
    assert render_conversations([dialogue(LINES[:6])]) == [expected]


def test_first_sender_is_a() -> None:
    swapped = record(*(("yx"[i % 2], text) for i, text in enumerate(LINES)))
    assert render_conversations([swapped]) == render_conversations([dialogue(LINES)])


def test_messages_of_one_turn_are_joined() -> None:
    grouped = dialogue(LINES)
    parts = [{"sender": "x", "text": part} for part in ("Hello there,", "how was the lake?")]
    grouped["messages"][0] = parts
    assert render_conversations([grouped]) == render_conversations([dialogue(LINES)])


def test_order_of_records_is_kept() -> None:
    records = [dialogue(LINES), dialogue(LINES[:2]), dialogue(LINES[::-1])]
    documents = render_conversations(records)
    assert [document.splitlines()[0][3:] for document in documents] == [LINES[0], LINES[-1]]


@pytest.mark.parametrize(("num_turns", "is_kept"), [(0, False), (5, False), (6, True)])
def test_six_turns_are_needed(num_turns: int, is_kept: bool) -> None:
    assert bool(render_conversations([dialogue(LINES[:num_turns])])) is is_kept


def test_turns_are_counted_after_joining() -> None:
    senders = "xyxyxx"
    assert render_conversations([record(*zip(senders, LINES, strict=False))]) == []


@pytest.mark.parametrize(
    ("senders", "is_kept"), [("xxxxxxxx", False), ("xyxyxyxy", True), ("xyzxyzxy", False)]
)
def test_two_senders_are_needed(senders: str, is_kept: bool) -> None:
    documents = render_conversations([record(*zip(senders, LINES, strict=True))])
    assert bool(documents) is is_kept


@pytest.mark.parametrize(("num_distinct", "is_kept"), [(5, False), (6, True)])
def test_half_of_the_messages_must_be_distinct(num_distinct: int, is_kept: bool) -> None:
    letters = list("abcdefgh")[:num_distinct]
    texts = [*letters, *["A ", " a", "a"] * 4][:12]
    assert bool(render_conversations([dialogue(texts)])) is is_kept


def test_pasted_text_is_spam() -> None:
    long = " ".join(LINES)
    pasted = [f"{index} {long} {long}" for index in range(8)]
    assert render_conversations([dialogue(pasted)]) == []
    typed = [random_text(300 + index) for index in range(8)]
    assert len(render_conversations([dialogue(typed)])) == 1


@pytest.mark.parametrize(("length", "is_kept"), [(4000, True), (4001, False)])
def test_a_monologue_is_spam(length: int, is_kept: bool) -> None:
    texts = [*LINES[:7], random_text(length)]
    assert bool(render_conversations([dialogue(texts)])) is is_kept


def test_a_monologue_in_pieces_is_spam() -> None:
    messages = [("xy"[i % 2], text) for i, text in enumerate(LINES)]
    pieces = [("z", random_text(500 + index)) for index in range(9)]
    pieces = [("y", text) for _, text in pieces]
    assert len(render_conversations([record(*messages)])) == 1
    assert render_conversations([record(*messages, *pieces)]) == []


def test_white_space_is_folded_and_empty_messages_vanish() -> None:
    messages = [("x", " a\n\tb "), ("y", "  "), ("x", "c"), ("y", ""), ("y", "d  e")]
    assert join_consecutive(messages) == [("x", "a b c"), ("y", "d e")]


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return load_chitchat()


def test_package_gives_the_known_number_of_conversations(documents: list[str]) -> None:
    assert 2_900 <= len(documents) <= 2_962


def test_every_conversation_has_both_speakers(documents: list[str]) -> None:
    for document in documents:
        lines = document.split("\n")
        speakers = [line[:3] for line in lines]
        assert speakers == [("A: ", "B: ")[i % 2] for i in range(len(lines))], document[:200]
        assert len(lines) >= 6
        assert all(re.fullmatch(r"[AB]: \S.*", line) for line in lines), document[:200]
        assert max(map(len, lines)) <= 4_003
