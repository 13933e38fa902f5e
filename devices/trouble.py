"""What a patient is told when a device could not be connected."""

from typing import NamedTuple

from devices.oauth import Fault


class Trouble(NamedTuple):
    """A page that says what went wrong and what to do; `vendor` in its texts is the vendor's name."""

    status: int
    title: str
    text: str
    again: bool = True


START_AGAIN = "Nothing is connected. Open the link from your message again, in this same browser, and start anew."
LATER = "Nothing is connected. Please try again in an hour. If it still does not work, tell your care team."
OUR_FAULT = "Nothing is connected. Please tell your care team that connecting {vendor} does not work."
NOT_KNOWN = Trouble(
    404,
    "This link does not work",
    "It may have been cut off when it was copied. Open it from your message again, or ask your care team for another.",
    again=False,
)
EXPIRED = Trouble(
    410, "This link has expired", "It was good for some days only. Ask your care team for a new one.", again=False
)
REVOKED = Trouble(
    410, "This link has been withdrawn", "Ask your care team for a new one if you want to go on.", again=False
)
USED = Trouble(
    410,
    "This link cannot be used any more",
    "It works once. Ask your care team for a new one if you want to connect something else.",
    again=False,
)
STRAY = Trouble(
    400,
    "We could not tell which request this answers",
    f"It took longer than 15 minutes, came back in another browser, or was opened twice. {START_AGAIN}",
    again=False,
)
DENIED = Trouble(
    200,
    "You did not allow it",
    "You said no at {vendor}, so nothing is connected and nothing is shared. That is all right: the link stays good, "
    "in case you change your mind.",
)
NOT_KEPT = Trouble(503, "We could not store the answer", START_AGAIN)
VENDOR_REFUSED = Trouble(502, "{vendor} could not do it", LATER)
TAKEN = Trouble(
    409,
    "This {vendor} account cannot be connected here",
    "It is in use in another record. Nothing has been connected, and nothing of what you allowed just now is kept. "
    "Make sure that you sign in to your own {vendor} account; if you did, tell your care team.",
)
FAULTS = {
    Fault.CODE: Trouble(400, "{vendor} did not accept the request", START_AGAIN),
    Fault.LOST: Trouble(502, "The answer from {vendor} was lost", START_AGAIN),
    Fault.AWAY: Trouble(503, "{vendor} cannot be reached at the moment", LATER),
    Fault.BRIEF: Trouble(502, "{vendor} gave access for a short time only", OUR_FAULT),
    Fault.ACCOUNT: Trouble(
        400,
        "We cannot tell whose {vendor} account it is",
        "That needs your permission to read your {vendor} profile. Nothing is connected. Please start again, and leave "
        "that permission on.",
    ),
    Fault.OURS: Trouble(503, "This cannot be done at the moment", OUR_FAULT),
}
