"""Apple HealthKit: there is no cloud and no API; an app on the phone posts batches with an API key."""
