"""The machine under the course: which Docker engine answers, how to get one, and how to start it."""
