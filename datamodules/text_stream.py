"""Text from tokens as they come."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_CONTEXT_TOKENS = 16
"""Tokens before the first that some tokenizers need to know whether a space stands between."""
_MOST_HELD = 64
"""Tokens held back at most: a character has four bytes, so that so many are not part of one."""


class TextStream:
    """Hands on the text of each token, and holds back bytes until their character is whole."""

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self._held: list[int] = []
        self._decoder = _decoder(prompt_ids)

    def feed(self, token_id: int) -> str:
        """The text that one more token completes; empty where a character is not whole yet."""
        self._held.append(token_id)
        text: str | None = self._decoder.step(self.tokenizer, token_id)
        if text is not None:
            self._held.clear()
            return text
        return self.finish() if len(self._held) == _MOST_HELD else ""

    def finish(self) -> str:
        """What is held back as it is: bytes that are no character become U+FFFD."""
        text: str = self.tokenizer.decode(self._held, skip_special_tokens=False)
        self._decoder = _decoder(self._held)
        self._held.clear()
        return text


def _decoder(ids: Sequence[int]) -> DecodeStream:
    return DecodeStream(ids=list(ids[-_CONTEXT_TOKENS:]), skip_special_tokens=False)
