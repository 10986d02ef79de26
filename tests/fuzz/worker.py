"""A process that tries inputs of one target: ``python -m tests.fuzz.worker TARGET SEED FIRST COUNT SECONDS NOTES``.

It writes each input to a file before it tries it, so that the input survives a crash: the number, the length, the
bytes. Its result is printed as JSON.
"""

from __future__ import annotations

import base64
import json
import logging
import mmap
import os
import struct
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.memory import limit
from tests.fuzz.mutations import LONGEST
from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import try_input, try_inputs

#: Bytes that a worker may allocate in addition to its memory at the start.
RESERVE = 1 << 30

#: A folder in memory instead of on disk, if there is one.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

NOTE = struct.Struct("<qq")
NOTE_BYTES = NOTE.size + 4 * LONGEST


def main() -> None:
    name, seed, first, count, seconds, notes = sys.argv[1:]
    logging.disable()
    end = time.monotonic() + float(seconds)
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as folder,
        open(notes, "r+b") as file,
        mmap.mmap(file.fileno(), 0) as memory,
    ):

        def note(number: int, data: bytes) -> None:
            memory[: NOTE.size + len(data)] = NOTE.pack(number, len(data)) + data

        target = TARGETS[name](Path(folder))
        for data in target.seeds:
            # Memory for imports and setup at the first use must not be attributed to an input.
            note(-1, data)
            try_input(target, data)
        limit(RESERVE)
        tally = try_inputs(
            target, int(seed), lambda done: done >= int(count) or time.monotonic() > end, int(first), note
        )
    findings = [{**vars(finding), "data": base64.b64encode(finding.data).decode()} for finding in tally.findings]
    print(json.dumps({**vars(tally), "findings": findings}))


if __name__ == "__main__":
    main()
