"""Flask behind gunicorn, a model a worker, as the course's deployment guide writes it.

`gunicorn --workers 4 --bind 127.0.0.1:8000 --timeout 30 "flask_app:create_production_app()"`
"""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request
from model import event, load

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger(__name__)


def create_production_app() -> Flask:
    """The guide's application: it loads the model in each worker and logs each request twice."""
    app = Flask(__name__)
    model = load()

    @app.get("/health")
    def health() -> Any:
        return jsonify({"status": "healthy"})

    @app.post("/generate")
    @app.post("/classify")
    def answer() -> Any:
        return jsonify(model.answer([request.get_json()])[0])

    @app.post("/stream")
    def stream() -> Any:
        pieces = (event(pieces[0]) for pieces in model.stream([request.get_json()]))
        return Response(pieces, mimetype="text/event-stream")

    @app.before_request
    def log_request() -> None:
        logger.info("Request: %s %s", request.method, request.url)

    @app.after_request
    def log_response(response: Response) -> Response:
        logger.info("Response: %s", response.status_code)
        return response

    return app
