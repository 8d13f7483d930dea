"""The middle of a gradient's travel: the only part that sees all stops."""

from gradledger_server.machine.receipts import Receipt
from gradledger_server.machine.views import TRAIN
from gradledger_server.replica import roster
from gradledger_server.replica.answers import Answer
from gradledger_server.replica.draft import Draft, Sender
from gradledger_server.replica.events import News, Place
from gradledger_server.replica.hot import Hot
from gradledger_server.replica.laps import Laps
from gradledger_server.replica.listing import Listing, listed
from gradledger_server.replica.mailbox import Mailbox
from gradledger_server.replica.metrics import Reported, plateaus
from gradledger_server.replica.published import Published, TableRows
from gradledger_server.replica.replica import Replica
from gradledger_server.replica.shelf import Cadence
from gradledger_server.store.contract import SMALL_BYTES

__all__ = [
    "SMALL_BYTES",
    "TRAIN",
    "Answer",
    "Cadence",
    "Draft",
    "Hot",
    "Laps",
    "Listing",
    "Mailbox",
    "News",
    "Place",
    "Published",
    "Receipt",
    "Replica",
    "Reported",
    "Sender",
    "TableRows",
    "listed",
    "plateaus",
    "roster",
]
