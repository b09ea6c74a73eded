"""What was done, in words, from the name of a verb: `stop` was `stopped`."""

import re

IRREGULAR = {"rebuild": "rebuilt", "set": "set", "undo": "undone", "create": "made", "put": "put", "shut": "shut"}


def done(verb: str) -> str:
    """The past participle: `moved`, `retried`, `stopped`, `cancelled`; of a verb of several words that of the first."""
    first, *rest = re.split(r"([-_.])", verb, maxsplit=1)
    return _participle(first) + "".join(rest)


def _participle(verb: str) -> str:
    if verb in IRREGULAR:
        return IRREGULAR[verb]
    if verb.endswith("e"):
        return f"{verb}d"
    if re.search(r"[^aeiou]y$", verb):
        return f"{verb[:-1]}ied"
    is_one_syllable = len(re.findall(r"[aeiouy]+", verb)) == 1
    if (is_one_syllable and re.search(r"[^aeiou][aeiou][^aeiouwxy]$", verb)) or re.search(r"[^aeiou][aeiou]l$", verb):
        return f"{verb}{verb[-1]}ed"
    return f"{verb}ed"
