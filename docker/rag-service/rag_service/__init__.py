"""Answers questions from documents: Chroma finds the passages, an inference server embeds and generates."""

__version__ = "0.1.0"
