"""The Lua scripts: each is one step in the server, never seen half done. Their texts are in lua/."""

from __future__ import annotations

import hashlib
from importlib import resources

from gradledger_server.store.packing import Argument, Command


class Script:
    """One script, called by the digest of its text."""

    def __init__(self, name: str) -> None:
        self.text = resources.files(__package__).joinpath("lua", f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def __call__(self, keys: list[str], *arguments: Argument) -> Command:
        """The command that runs the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


commit = Script("commit")
publish = Script("publish")
trim = Script("trim")
bury = Script("bury")
reserve = Script("reserve")
bind = Script("bind")
unbind = Script("unbind")
overdue = Script("overdue")

LOAD: list[Command] = [
    ("SCRIPT", "LOAD", script.text)
    for script in (commit, publish, trim, bury, reserve, bind, unbind, overdue)
]
