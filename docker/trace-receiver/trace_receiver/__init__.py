"""The smallest receiver that shows a trace: OTLP over HTTP and nginx's log lines in, a waterfall out."""

__version__ = "0.1.0"
