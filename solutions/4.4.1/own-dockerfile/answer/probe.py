"""Healthy means: a question gets an answer. Anything else raises, and ends with status 1."""

from urllib.request import Request, urlopen

with urlopen(Request("http://127.0.0.1:8080/route", data=b'{"text": "are you there"}'), timeout=3) as answer:
    print(answer.read().decode())
