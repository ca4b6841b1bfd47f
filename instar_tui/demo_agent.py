"""The agent of the demo: reads one message as JSON on stdin and prints a scripted reply.

Run by the node as ``command`` agent. It uses the standard library only, so that it starts at once.
"""

import json
import sys
import zlib
from typing import Any

REPLIES = (
    "Done: {text}.",
    "On it. I have the whole conversation here ({count} lines), so nothing has to be said twice.",
    "Short answer: yes. Long answer: it depends on what you mean by “{last}”.",
    "Noted. I remember that before this you said: {before}.",
    "I looked into “{text}” on this machine; nothing stands in its way.",
)


def reply(request: dict[str, Any]) -> str:
    """The same message always gets the same reply, on whichever machine it is asked."""
    message, history = request["message"], request["history"]
    said = [row["text"] for row in history if row["role"] == "user"]
    template = REPLIES[zlib.crc32(message["key"].encode()) % len(REPLIES)]
    words = message["text"].rstrip("?.! ").split()
    return template.format(
        text=message["text"].rstrip("?.! "),
        count=len(history),
        last=" ".join(words[-2:]),
        before=said[-1] if said else "nothing yet",
    )


if __name__ == "__main__":
    sys.stdout.write(reply(json.load(sys.stdin)))
