"""Stacks of services with Docker Compose: started with an explanation for what fails, measured, scaled, broken, mended."""

from course_lib.stacks.alerts import Alert, wait_firing, wait_resolved
from course_lib.stacks.course import built_variables, by_hand, course_stack, door_image, env_values, merged
from course_lib.stacks.gpu import GpuOutcome
from course_lib.stacks.gpu import request as request_gpu
from course_lib.stacks.project import Project
from course_lib.stacks.prometheus import Prometheus
from course_lib.stacks.rag import Answer, Passage, Rag
from course_lib.stacks.readings import (
    networks,
    require_all_healthy,
    require_answer,
    require_counted,
    require_gone,
    require_reachable,
    require_services,
    require_survived,
    require_unreachable,
    take_stock,
)
from course_lib.stacks.stack import Stack, running
from course_lib.stacks.traces import trace

__all__ = [
    "Alert", "Answer", "GpuOutcome", "Passage", "Project", "Prometheus", "Rag", "Stack", "built_variables", "by_hand", "course_stack", "door_image", "env_values", "merged", "networks",
    "request_gpu", "require_all_healthy", "require_answer", "require_counted", "require_gone", "require_reachable",
    "require_services", "require_survived", "require_unreachable", "running", "take_stock", "trace", "wait_firing", "wait_resolved",
]  # fmt: skip
