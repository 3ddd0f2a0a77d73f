"""``python -m rag_service`` is the same as ``rag-service``."""

import sys

from rag_service.cli import main

if __name__ == "__main__":
    sys.exit(main())
