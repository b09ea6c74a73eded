"""Where the server is and who asks: flags, environment, a saved context, or the server that runs in this directory.

A token belongs to a server. One that was saved for a server, or found beside it, is never sent to another address; a
token from the environment or from `--token-file` goes where the caller says.
"""

import json
import os
import shlex
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cli import terminal
from cli.errors import Failed

DEFAULT_URL = "http://127.0.0.1:8420"


class Place(NamedTuple):
    """A server, and the token for it (None: ask without)."""

    url: str
    token: str | None
    source: str  # where the address was found, for `berth context show` and messages


class Saved(NamedTuple):
    """The saved contexts by name, and which one is in use."""

    current: str | None
    contexts: dict[str, dict[str, str]]


def config_path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(home) / "berth" / "config.yaml"


def read_saved() -> Saved:
    path = config_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Saved(None, {})
    except OSError as error:
        raise Failed(f"cannot read {path}: {error.strerror}") from None
    _warn_if_others_may_read(path)
    import yaml

    try:
        content: Any = yaml.safe_load(text) or {}
        contexts = {
            str(name): {"url": str(entry["url"]), **_token(entry)} for name, entry in content["contexts"].items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise Failed(f"{path} is not a list of contexts; mend it, or delete it and log in again") from None
    current = content.get("current")
    return Saved(str(current) if current in contexts else None, contexts)


@cache
def _warn_if_others_may_read(path: Path) -> None:
    """Once a call: it holds tokens. It was made for its owner alone, so somebody changed that, or wrote it by hand."""
    if path.stat().st_mode & 0o077:
        quoted = shlex.quote(str(path))
        terminal.say(f"berth: warning: others can read {path}, which holds tokens; `chmod 600 {quoted}`", err=True)


def write_saved(saved: Saved) -> None:
    """Replace the file in one step; it holds tokens, so nobody else may read it at any moment."""
    import tempfile

    import yaml

    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # made with mode 0600
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump({"current": saved.current, "contexts": saved.contexts}, file, sort_keys=True, allow_unicode=True)
    os.replace(temporary, path)


def find(*, url: str | None = None, token_file: str | None = None, context: str | None = None) -> Place:
    """The server and token for a call, the most explicit first.

    Address: `--url`, `--context`, `BERTH_URL`, the context in use, `endpoints.json` in `BERTH_DATA` or `.berth`, the
    default. Token: `--token-file`, `BERTH_TOKEN`, else the one known for exactly that address.
    """
    saved = read_saved()
    if context is not None and context not in saved.contexts:
        known = ", ".join(sorted(saved.contexts)) or "none; `berth login URL` saves one"
        raise Failed(f"there is no context {context!r}; saved are: {known}")
    local = running_here()
    address, source = _address(url, context, saved, local)
    if token_file is not None:
        return Place(address, read_token(token_file), source)
    if token := os.environ.get("BERTH_TOKEN"):
        return Place(address, token.strip(), source)
    return Place(address, _known_token(address, context or saved.current, saved, local), source)


def running_here() -> Place | None:
    """The server that `berth up` runs on this directory's data, if there is one."""
    path = Path(os.environ.get("BERTH_DATA") or ".berth") / "endpoints.json"
    try:
        endpoints = json.loads(path.read_text(encoding="utf-8"))
        token_file = endpoints.get("token_file")
        return Place(endpoints["http"], read_token(token_file) if token_file else None, str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Failed):
        return None


def read_token(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"cannot read the token in {path}: {getattr(error, 'strerror', None) or error}") from None
    if not token or not token.isascii() or any(sign.isspace() for sign in token):
        raise Failed(f"{path} holds no token: one line without spaces is expected")
    return token


def _address(url: str | None, context: str | None, saved: Saved, local: Place | None) -> tuple[str, str]:
    if url is not None:
        return url, "--url"
    if context is not None:
        return saved.contexts[context]["url"], f"context {context}"
    if from_environment := os.environ.get("BERTH_URL"):
        return from_environment, "BERTH_URL"
    if saved.current is not None:
        return saved.contexts[saved.current]["url"], f"context {saved.current}"
    if local is not None:
        return local.url, local.source
    return DEFAULT_URL, "the default"


def _known_token(address: str, preferred: str | None, saved: Saved, local: Place | None) -> str | None:
    wanted = address.rstrip("/")
    names = sorted(saved.contexts, key=lambda name: (name != preferred, name))
    for name in names:
        entry = saved.contexts[name]
        if entry["url"].rstrip("/") == wanted and entry.get("token"):
            return entry["token"]
    if local is not None and local.url.rstrip("/") == wanted:
        return local.token
    return None


def _token(entry: dict[str, Any]) -> dict[str, str]:
    return {"token": str(entry["token"])} if entry.get("token") else {}
