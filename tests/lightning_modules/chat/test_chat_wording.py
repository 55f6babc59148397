"""The message to a chat model, written out by hand, and the reply in its answer."""

import pytest

from lightning_modules.chat.wording import ChatWording

WORDING = ChatWording(
    task="Do it.", profile="Who:", examples="Before:", conversation="Now:", speaker="Me", partner="You"
)
CONTEXT = [("speaker", "hi"), ("partner", "tea?")]


def test_the_whole_message():
    examples = [([("partner", "coffee?")], "no thanks"), ([("speaker", "well"), ("partner", "so?")], "yes")]
    assert WORDING.message("old, Osaka", examples, CONTEXT) == (
        "Do it.\n\nWho: old, Osaka\n\nBefore:\n\nYou: coffee?\nMe: no thanks\n\nMe: well\nYou: so?\nMe: yes\n\n"
        "Now:\n\nMe: hi\nYou: tea?\nMe:"
    )


def test_what_is_empty_is_left_out_with_its_heading():
    assert WORDING.message("", [], CONTEXT) == "Do it.\n\nNow:\n\nMe: hi\nYou: tea?\nMe:"


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        ("yes please", "yes please"),
        ("  yes \n please\n", "yes please"),
        (" Me: yes", "yes"),
        ("Me：はい", "はい"),
        ("yes\nYou: sugar?\nMe: no", "yes"),
        ("yes\nMe : and you?", "yes"),
        ("You: what?", ""),
        ("Meet me: at ten", "Meet me: at ten"),
        ("Your tea: hot", "Your tea: hot"),
        ("", ""),
    ],
)
def test_the_reply_in_an_answer(answer, reply):
    assert WORDING.reply(answer) == reply


def test_names_are_not_patterns():
    assert ChatWording(speaker="A.", partner="(B)").reply("A.: yes\nAx: no\n(B): well") == "yes Ax: no"
