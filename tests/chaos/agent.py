"""The agent of the chaos run: works a little, shows every 10 ms that it lives, and never says the same twice.

Started as ``python -I -S agent.py BEATS`` with the message on stdin; one beat is one line appended to BEATS.
"""

import json
import os
import random
import sys
import time

BEAT_S = 0.01
LONGEST_S = 0.15


def main() -> None:
    asked = json.load(sys.stdin)
    key, topic, machine = asked["message"]["key"], asked["topic"], asked["provenance"]["machine"]
    run = f"{os.getpid()}-{time.monotonic_ns()}"
    beats = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    until = time.monotonic() + random.uniform(0, LONGEST_S)
    while True:
        now = time.monotonic()
        os.write(beats, (json.dumps([now, key, topic, run, machine]) + "\n").encode())
        if now >= until:
            break
        time.sleep(BEAT_S)
    print(f"{key} answered by run {run}")


main()
