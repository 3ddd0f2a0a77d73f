"""course_lib: what the seven labs call, and the tools that run and grade them.

Rooms, and who may import whom (tests/test_architecture.py holds this):
cli -> runner, doctor, bench, authoring -> exercises -> images -> host -> lab, reaper, ledger, waits, shell, settings, errors.
"""

__version__ = "0.1.0"
