"""How a patient connects a WHOOP band. https://developer.whoop.com/docs/developing/oauth (2026-11)"""

from devices.vendors.oauth import OAuth, Scope

OAUTH = OAuth(
    scopes=(
        Scope("offline"),  # without it there is no refresh token
        Scope("read:profile"),  # whose band it is
        Scope(
            "read:recovery", "recovery, with resting heart rate, HRV, blood oxygen and skin temperature", ("recovery",)
        ),
        Scope("read:sleep", "sleep", ("sleep",)),
        Scope("read:cycles", "day strain and energy", ("cycle",)),
        Scope("read:workout", "workouts", ("workout",)),
        Scope("read:body_measurement", "height and weight", ("body_measurement",)),
    ),
    state_length=8,  # exactly, says WHOOP of a state that one makes oneself
    account_path="/v2/user/profile/basic",
    account_id="user_id",
    revoke_method="DELETE",  # which stops the webhooks too
    manage="in the WHOOP app, under app settings and integrations",
    device="band",
    # Not documented (2026-11): a server that does not know PKCE ignores it (RFC 7636, section 5).
    pkce=True,
)
