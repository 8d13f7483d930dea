"""The version of this client, read from its installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("gradledger")
except PackageNotFoundError:  # run from a source tree
    __version__ = "0"
