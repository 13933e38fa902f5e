"""How a patient connects an Oura ring. https://cloud.ouraring.com/docs/authentication (2026-11)"""

from devices.vendors.oauth import OAuth, Scope

# Only what is asked for later: `stress` would add resilience alone, `tag` and `session` nothing that is stored.
OAUTH = OAuth(
    scopes=(
        Scope("personal"),  # whose ring it is
        Scope(
            "daily",
            "sleep, readiness, activity and daytime stress",
            ("sleep", "daily_sleep", "daily_readiness", "daily_activity", "daily_stress"),
        ),
        Scope("heartrate", "heart rate during the day", ("heartrate",)),
        Scope("spo2", "blood oxygen during sleep", ("daily_spo2",)),
        Scope("heart_health", "cardio capacity (VO2 max) and vascular age", ("vo2_max", "daily_cardiovascular_age")),
        Scope("workout", "workouts", ("workout",)),
    ),
    state_length=43,
    account_path="/v2/usercollection/personal_info",
    account_id="id",
    # The documented way is the parameter; applications of the newer portal show the token in the header.
    revoke_method="POST",
    revoke_parameter="access_token",
    revoke_beside_token=True,
    manage="in the Oura account, under connected applications",
    device="ring",
    # Not documented (2026-11): a server that does not know PKCE ignores it (RFC 7636, section 5).
    pkce=True,
)
