"""The contracts: each module is one way of asking, as a router over the loaded models. None of them knows an engine's library."""
