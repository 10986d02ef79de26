"""Files and descriptions from strangers: every reader of them, and inputs that were broken on purpose.

``python -m tests.fuzz --seconds 60 --seed 0`` tries mutated inputs on all targets. What must hold for each: the answer
is a result, an error of nnbackend or an OSError of the system; it comes in time; it takes no more memory than its
target states. An input that breaks this is written to a file; put into ``found``, it is tried by
``tests/saving/test_hostile_files.py`` for ever.
"""
