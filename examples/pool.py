"""Read PVs in a pool of processes, each with Channel Access of its own.

    pool.py METHOD PV [PV ...]

METHOD is how Python starts the processes: fork, spawn or forkserver.
"""

import multiprocessing
import os
import sys
import time

import epics

PROCESSES = 3


def read(name):
    """What a process of the pool does."""
    return os.getpid(), name, epics.caget(name, as_string=True)


def main(method, names):
    multiprocessing.set_start_method(method)
    here = read(names[0])
    print(f"this process, {here[0]}, reads {here[1]} = {here[2]}")
    begun = time.time()
    with epics.CAPool(processes=PROCESSES) as pool:
        answers = pool.map(read, names, chunksize=1)
    for pid, name, text in answers:
        print(f"  {pid}: {name} = {text}")
    workers = {pid for pid, _, _ in answers}
    print(
        f"{len(names)} PVs by {len(workers)} of {PROCESSES} processes in {time.time() - begun:.2f} s"
    )
    return 0 if here[0] not in workers and all(text is not None for _, _, text in answers) else 1


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
