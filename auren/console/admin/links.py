"""A link's page answers "why is there no data?"."""

from django.contrib import admin
from django.utils.safestring import SafeString

from auren.admin import BigTableAdmin, Untouched, badge, when
from devices.models import Link


class LinkInline(Untouched, admin.TabularInline):  # type: ignore[type-arg]
    model = Link
    extra = 0
    show_change_link = True
    fields = readonly_fields = ("vendor", "vendor_user_id", "state_shown", "since", "last_delivery", "paused")

    @admin.display(description="status")
    def state_shown(self, link: Link) -> SafeString:
        return badge(link.status)

    @admin.display(description="since")
    def since(self, link: Link) -> str:
        return when(link.status_since)

    @admin.display(description="last delivery")
    def last_delivery(self, link: Link) -> str:
        return when(link.last_delivery_at)

    @admin.display(description="paused")
    def paused(self, link: Link) -> str:
        return when(link.paused_at)


@admin.register(Link)
class LinkAdmin(Untouched, BigTableAdmin[Link]):
    list_display = ("id", "vendor", "vendor_user_id", "patient", "state_shown", "since", "last_delivery", "paused")
    list_filter = ("status", "vendor")
    list_select_related = ("patient",)
    search_fields = ("=vendor_user_id", "=patient__external_id")
    search_help_text = "A vendor's user id or a patient's external id, exactly as it is"
    fields = readonly_fields = (
        "vendor",
        "vendor_user_id",
        "patient",
        "state_shown",
        "since",
        "scopes",
        "connected",
        "last_delivery",
        "last_synced",
        "paused",
    )

    @admin.display(description="connected")
    def connected(self, link: Link) -> str:
        return when(link.connected_at)

    @admin.display(description="last synced")
    def last_synced(self, link: Link) -> str:
        return when(link.last_synced_at)

    state_shown = LinkInline.state_shown
    since = LinkInline.since
    last_delivery = LinkInline.last_delivery
    paused = LinkInline.paused
