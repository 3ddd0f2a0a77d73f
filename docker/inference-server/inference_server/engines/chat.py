"""A model's tokenizer and chat template: messages to token ids, token ids back to text."""

import datetime
import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from inference_server.errors import ModelRefused, RequestError
from inference_server.models import check_whole, read_json

LONG_TOKEN = 32  # characters; hardly any token has more
ENOUGH_BEFORE = 8  # tokens: a character has at most four bytes


class ChatTokenizer:
    """tokenizer.json with the chat template from chat_template.jinja or tokenizer_config.json."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        check_whole(path)
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 (tokenizers raises plain Exception, whatever is wrong)
            raise ModelRefused(f"{path} can't be read as a tokenizer ({error}): copy it again.") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
        beside = folder / "chat_template.jinja"
        source = beside.read_text(encoding="utf-8") if beside.exists() else settings.get("chat_template")
        if not isinstance(source, str):
            raise ModelRefused(
                f"{folder} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): add the model's own."
            )
        # The same options as transformers, or templates come out with other white space than the model was trained on.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ModelRefused(f"{folder}: the chat template can't be read ({error}): correct it.") from None
        self._specials = {key: _text(settings.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
        self.eos_id: int | None = self._tokenizer.token_to_id(self._specials["eos_token"] or "")
        self._byte_level = "ByteLevel" in repr(self._tokenizer.decoder)
        controls = [token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special]
        self._controls = re.compile("|".join(map(re.escape, controls))) if controls else None

    def encode(self, messages: list[dict[str, Any]], most: int = sys.maxsize) -> list[int]:
        """A chat as the model's prompt, up to where its answer begins. Raises RequestError for a chat the template refuses.

        Of a prompt with more than twice ``most`` tokens perhaps only a beginning, which has more than twice that, too.

        Control tokens such as ``<|system|>`` written inside a message are taken out: a message can't speak for another role.
        """
        if self._controls:
            messages = [{**message, "content": self._controls.sub("", message["content"])} for message in messages]
        try:
            prompt = self._template.render(messages=messages, add_generation_prompt=True, **self._specials)
        except TemplateError as error:
            raise RequestError(
                422, f"The model's chat template refused these messages: {error}", "bad_messages", "messages"
            ) from None
        try:
            return self._ids(prompt, most, specials=False)
        except (UnicodeEncodeError, TypeError):  # JSON can write half a character ("\\ud800"), which is no text
            raise RequestError(
                422, "The text holds half a character: send whole ones.", "bad_text", "messages"
            ) from None

    def encode_text(self, text: str, most: int = sys.maxsize) -> list[int]:
        """A plain text as the model's prompt, without the template; control tokens in it count as such. See ``encode`` for ``most``."""
        return self._ids(text, most, specials=True)

    def _ids(self, text: str, most: int, specials: bool) -> list[int]:
        """Piece by piece where it is long, until it is too long: a megabyte of noise as a whole takes a second and 300 MB."""
        piece = most * LONG_TOKEN
        if len(text) > piece:
            begun: list[int] = []
            for start in range(0, len(text), piece):
                begun += self._tokenizer.encode(text[start : start + piece], add_special_tokens=False).ids
                if len(begun) > 2 * most:
                    return begun
        return self._tokenizer.encode(text, add_special_tokens=specials).ids

    def decode(self, ids: list[int]) -> str:
        """Token ids as text."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    @functools.cached_property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, perhaps a part of a character."""
        written = self._tokenizer.id_to_token(token) or ""
        if self._byte_level:
            letters = _byte_letters()
            if all(letter in letters for letter in written):
                return bytes(letters[letter] for letter in written)
        elif re.fullmatch("<0x[0-9A-F]{2}>", written):
            return bytes([int(written[3:5], 16)])
        return written.replace("\u2581", " ").encode()

    def words(self, after: list[int] | None = None) -> "TokenText":
        """A fresh stream from tokens to text; ``after`` are the tokens that it continues, if what it makes is to follow their text."""
        return TokenText(self._tokenizer, after or [])


class TokenText:
    """Turns tokens into text one by one; a character spread over several tokens comes out when it is whole."""

    def __init__(self, tokenizer: Tokenizer, after: list[int]) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        for token in after[-ENOUGH_BEFORE:]:
            self._stream.step(tokenizer, token)

    def feed(self, token: int) -> str:
        """The text this token completes, perhaps none."""
        return self._stream.step(self._tokenizer, token) or ""


@functools.cache
def _byte_letters() -> dict[str, int]:
    """The letters that byte-level BPE writes for the 256 bytes (GPT-2): printable ones as themselves, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}


def _text(value: object) -> str | None:
    """A special token, which configs write as a string or as an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _refuse(message: str) -> None:
    """What templates call for chats they can't express."""
    raise TemplateError(message)
