"""What happens to links, for those above this app."""

from django.dispatch import Signal

# A patient's grant is stored. Sent inside that transaction, `sender` Link, with `link`.
link_connected = Signal()
