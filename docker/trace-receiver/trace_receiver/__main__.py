"""``python -m trace_receiver``: receive until SIGTERM."""

import sys

from trace_receiver.server import serve

sys.exit(serve())
