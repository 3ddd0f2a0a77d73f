"""Whether the whole process stood still, as ``docker pause``, SIGSTOP or a frozen virtual machine make it: no engine is stuck for that."""

import time

PAUSE_SECONDS = 1.0
_looked = _awake = time.monotonic()


def look() -> float:
    """Since when this process has run without a pause, in monotonic seconds.

    A pause is that nobody looked for a second; the server looks ten times a second. To be called on its event loop's thread only.
    """
    global _looked, _awake
    now = time.monotonic()
    if now - _looked > PAUSE_SECONDS:
        _awake = now
    _looked = now
    return _awake
