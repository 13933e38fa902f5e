"""Whose device it is, for support, as far as nothing above this app is needed for it; the rest is the console's.

Tokens are registered nowhere, and of a key only its owner and its use are shown.
"""

from devices.admin import assignments, invitations, keys, subscriptions

__all__ = ["assignments", "invitations", "keys", "subscriptions"]
