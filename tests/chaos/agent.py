"""The agent of the chaos run: works a little, shows every 10 ms that it lives, and never says the same twice.

Started as ``python -I -S agent.py BEATS`` with the message on stdin; a beat is one line appended to BEATS. A
message that says ``work N`` is worked on for N seconds.
"""

import json
import os
import random
import signal
import sys
import time

BEAT_S = 0.01
USUAL_S = 0.15
LONG_S = 4.0
LONG_CHANCE = 0.04
"""Some runs are long enough to be under way when their node hangs, is cut off, or is taken over from."""
DEAF_CHANCE = 0.5
"""Some agents do not end when they are asked to."""


def main() -> None:
    asked = json.load(sys.stdin)
    key, topic, told = asked["message"]["key"], asked["topic"], asked["provenance"]
    run = f"{os.getpid()}-{time.monotonic_ns()}"
    if random.random() < DEAF_CHANCE:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    beats = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    until = time.monotonic() + duration(asked["message"]["text"])
    while True:
        now = time.monotonic()
        os.write(beats, (json.dumps([now, key, topic, run, told["machine"], told["epoch"]]) + "\n").encode())
        if now >= until:
            break
        time.sleep(BEAT_S)
    print(f"{key} answered by run {run}")


def duration(text: str) -> float:
    if text.startswith("work "):
        return float(text.split()[1])
    return random.uniform(0, LONG_S if random.random() < LONG_CHANCE else USUAL_S)


main()
