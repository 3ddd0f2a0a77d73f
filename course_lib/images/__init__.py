"""Container images: made with the commands a learner would type, read back through the engine's API."""

from course_lib.images.bases import Bases
from course_lib.images.bases import choices as base_choices
from course_lib.images.bases import ensure_for_profile as ensure_bases
from course_lib.images.buildkit import Built, build, image_id
from course_lib.images.comparison import compare
from course_lib.images.containers import ASK_EVERY_SECOND, Container, NoGpuDriver, require_runs, running
from course_lib.images.course_image import (
    LOCK,
    build_builder_stage,
    build_for,
    build_inference_image,
    build_naive_image,
    ensure_inference_image,
)
from course_lib.images.for_stack import stack_variables
from course_lib.images.gpu import request_gpus
from course_lib.images.inspection import (
    build_leftovers,
    extends,
    files,
    layer_files,
    layers,
    platform,
    require_nothing_left_of_the_build,
    require_stages,
    size,
)
from course_lib.images.platforms import where_it_starts
from course_lib.images.python_packages import pip_check, require_locked
from course_lib.images.releases import build_release
from course_lib.images.server import InferenceServer, samples
from course_lib.images.software import table as software_table
from course_lib.images.software import write_bill_of_materials

__all__ = [
    "ASK_EVERY_SECOND", "LOCK", "Bases", "Built", "Container", "InferenceServer", "NoGpuDriver", "base_choices", "build",
    "build_builder_stage", "build_for", "build_inference_image", "build_leftovers", "build_naive_image", "build_release", "compare", "ensure_bases",
    "ensure_inference_image", "extends", "files", "image_id", "layer_files", "layers", "pip_check", "platform",
    "request_gpus", "require_locked", "require_nothing_left_of_the_build", "require_runs", "require_stages", "running",
    "samples", "size", "software_table", "stack_variables", "where_it_starts", "write_bill_of_materials",
]  # fmt: skip
