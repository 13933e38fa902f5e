"""What happens to links, for those above this app."""

from django.dispatch import Signal

# A patient's grant is stored. Sent inside that transaction, `sender` Link, with `link`, `reconnected` (the link was
# there before) and `quiet_since` (its `last_synced_at` before, or None).
link_connected = Signal()
