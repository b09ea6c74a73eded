"""Ids of commands, operations and incarnations: UUIDv7, so that they sort by time."""

import secrets
import time
from functools import lru_cache
from random import Random

randbits = Random(secrets.randbits(256)).getrandbits  # of our own, as anybody may seed the shared one


def uuid7() -> str:
    """RFC 9562: 48 bits of milliseconds, then chance: good enough to be unique, and never a secret."""
    chance = randbits(74)
    digits = "%018x" % (chance >> 2)  # and the variant's two bits
    return f"{_begin(time.time_ns() // 1_000_000)}{digits[:3]}-{'89ab'[chance & 3]}{digits[3:6]}-{digits[6:]}"


@lru_cache(maxsize=1)
def _begin(ms: int) -> str:
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-7"


def secret() -> str:
    """A token's secret: 256 bits of chance."""
    return "berth_" + secrets.token_urlsafe(32)
