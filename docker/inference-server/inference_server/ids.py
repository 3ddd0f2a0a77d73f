"""Ids that tell requests and answers apart. They protect nothing, so they need not be asked of the kernel one by one."""

import random
import secrets

_random = random.Random(secrets.randbits(256))


def new_id() -> str:
    """32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"
