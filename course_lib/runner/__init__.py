"""Running labs headlessly: plan, execute, strict rules, live progress, report."""

import sys

# jsonschema, which nbformat reads notebooks with, takes along a grammar of internationalised addresses that costs a second at
# import and that no notebook or report here asks for. None in sys.modules is Python's way to say that a module can't be had.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # the type stubs leave None out
