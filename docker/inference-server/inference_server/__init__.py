"""One small inference server: several contracts over two kinds of model, *generate* and *predict*.

Nothing is imported here: ``inference-server health`` runs every few seconds in each container and must start fast.
"""

__version__ = "0.1.0"
