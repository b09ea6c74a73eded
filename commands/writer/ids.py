"""Ids of commands, operations and incarnations: UUIDv7, so that they sort by time."""

import secrets
import time
from random import Random

randbits = Random(secrets.randbits(256)).getrandbits  # of our own, as anybody may seed the shared one


def uuid7() -> str:
    """RFC 9562: 48 bits of milliseconds, then chance: good enough to be unique, and never a secret."""
    chance = randbits(74)
    value = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def secret() -> str:
    """A token's secret: 256 bits of chance."""
    return "berth_" + secrets.token_urlsafe(32)
