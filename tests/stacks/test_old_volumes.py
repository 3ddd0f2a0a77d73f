"""A volume that an older Chroma wrote is taken over; a damaged one is refused with advice. (A newer one's: test_up_errors.)

chroma-0.4.24.sqlite3.xz was written by chromadb 0.4.24: the collection `course` with one row of eight numbers.
"""

from __future__ import annotations

import json
import lzma
import subprocess
from pathlib import Path

import pytest

from course_lib import stacks
from course_lib.errors import CourseError
from course_lib.exercises import stack_scenes
from course_lib.stacks import Stack
from tests.stacks.conftest import DOCUMENT, objects

pytestmark = pytest.mark.docker

OLD = lzma.decompress((Path(__file__).parent / "chroma-0.4.24.sqlite3.xz").read_bytes())


def fill(stack: Stack, image: str, database: bytes) -> None:
    """Makes this the database on the stack's volume."""
    volume = stack.project.config()["volumes"]["documents"]["name"]
    put = "rm -rf /data/* && cat > /data/chroma.sqlite3 && chown -R 10004:10004 /data"
    command = ["docker", "run", "--rm", "-i", f"--volume={volume}:/data", image, "sh", "-c", put]
    subprocess.run(command, input=database, check=True, timeout=60)


def test_a_volume_whose_files_are_damaged(own_work: Path, stack_images: dict[str, str], small_image: str) -> None:
    stack = stacks.course_stack(stack_images, short="old")
    try:
        stack.project.prepare()
        fill(stack, small_image, OLD[:4000][::-1] * 9)
        with pytest.raises(CourseError) as failed:
            stack.up(services=("chroma",))
        assert "not every service got healthy: chroma" in failed.value.what
        assert "files on the volume are damaged" in failed.value.why and "restore a backup" in failed.value.why
        assert objects(stack, "container", "network") == set()
        assert len(objects(stack, "volume")) == 1, "what is stored is not thrown away"
    finally:
        stack.remove()
    assert objects(stack) == set()


def test_a_volume_of_an_older_chroma(course_stack: Stack, small_image: str) -> None:
    """Chroma migrates it by itself. That its vectors are another embedder's is what the service finds out, and says."""
    course_stack.stop("chroma")
    fill(course_stack, small_image, OLD)
    course_stack.start("chroma")
    try:
        ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/api/v2/tenants/default_tenant/databases/default_database/collections').read().decode())"
        (kept,) = json.loads(course_stack.execute("chroma", "python3", "-c", ask).output)
        assert (kept["name"], kept["dimension"]) == ("course", 8)
        with pytest.raises(CourseError, match="answered 409") as failed:
            course_stack.rag.put(*DOCUMENT)
        assert "another embedder" in failed.value.why and "COLLECTION" in failed.value.why
    finally:
        stack_scenes.lose_documents(course_stack)
        course_stack.rag.put(*DOCUMENT)
