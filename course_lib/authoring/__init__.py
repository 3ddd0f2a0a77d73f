"""From one text a lab (solutions/*.py) to the learner's notebook (labs/) and the executed solution (solutions/*.ipynb)."""
