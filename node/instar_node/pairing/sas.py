"""The short authentication string: six digits and four emoji that two people compare."""

from __future__ import annotations

import msgspec

# 64 pictures that are told apart at a glance and are two cells wide in a terminal (no variation selectors).
# After the table of the Matrix key verification (MSC 1267), with its narrow ones replaced.
_TABLE = (
    "🐶 Dog|🐱 Cat|🦁 Lion|🐎 Horse|🦄 Unicorn|🐷 Pig|🐘 Elephant|🐰 Rabbit|🐼 Panda|🐓 Rooster|🐧 Penguin|"
    "🐢 Turtle|🐟 Fish|🐙 Octopus|🦋 Butterfly|🌷 Flower|🌳 Tree|🌵 Cactus|🍄 Mushroom|🌏 Globe|🌙 Moon|"
    "🌈 Rainbow|🔥 Fire|🍌 Banana|🍎 Apple|🍓 Strawberry|🌽 Corn|🍕 Pizza|🎂 Cake|💎 Gem|😀 Smiley|🤖 Robot|"
    "🎩 Hat|👓 Glasses|🔧 Spanner|🎅 Santa|👍 Thumb|☔ Umbrella|⌛ Hourglass|⏰ Clock|🎁 Gift|💡 Bulb|"
    "📕 Book|📏 Ruler|📎 Paperclip|🧲 Magnet|🔒 Lock|🔑 Key|🔨 Hammer|📞 Telephone|🏁 Flag|🚂 Train|"
    "🚲 Bicycle|🚁 Helicopter|🚀 Rocket|🏆 Trophy|⚽ Ball|🎸 Guitar|🎺 Trumpet|🔔 Bell|⚓ Anchor|"
    "🎧 Headphones|📁 Folder|📌 Pin"
)
EMOJI = tuple((entry.split(" ")[0], entry.split(" ")[1]) for entry in _TABLE.split("|"))


class ShortString(msgspec.Struct, frozen=True):
    """What both machines show. Digits and emoji come from different bits, about 44 in all."""

    digits: str
    emoji: tuple[str, ...]
    names: tuple[str, ...]


def short_string(secret: bytes) -> ShortString:
    """Make the string from at least 11 secret bytes of the exchange."""
    number = int.from_bytes(secret[:8], "big") % 1_000_000
    bits = int.from_bytes(secret[8:11], "big")
    chosen = [EMOJI[(bits >> shift) & 63] for shift in (18, 12, 6, 0)]
    return ShortString(f"{number:06d}", tuple(e for e, _ in chosen), tuple(name for _, name in chosen))
