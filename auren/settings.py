"""Every setting of the bridge, read from the environment. `.env.example` names and explains each of them.

Values come from the process's environment, then from `.env`, then from `up.env` in the var folder, which is what
`manage.py up` tells its children: so a command typed beside a running `up` talks to the same servers.
"""

from pathlib import Path

from django.templatetags.static import static

from auren import environment as env

BASE_DIR = Path(__file__).resolve().parent.parent

env.load_file(Path(env.text("AUREN_ENV_FILE", str(BASE_DIR / ".env"))))
VAR_DIR = Path(env.text("AUREN_VAR", str(BASE_DIR / "var"))).resolve()
env.load_file(VAR_DIR / "up.env")

# Mode and secrets. auren/checks.py refuses what must not run outside the sandbox.
SANDBOX = env.flag("AUREN_SANDBOX")
DEBUG = env.flag("DEBUG")
SECRET_KEY = env.text("SECRET_KEY", "django-insecure-only-good-enough-to-print-help")
TOKEN_KEYS = env.items("TOKEN_KEYS")
PORT = env.whole("PORT", 8000, low=1)
PUBLIC_URL = env.text("PUBLIC_URL", f"http://127.0.0.1:{PORT}" if SANDBOX else "").rstrip("/")
ALLOWED_HOSTS = list(env.items("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"))
CSRF_TRUSTED_ORIGINS = list(env.items("CSRF_TRUSTED_ORIGINS"))

# What the bridge stands on.
DATABASE_URL = env.text("DATABASE_URL")
DATABASE_REPLICA_URL = env.text("DATABASE_REPLICA_URL")
REDIS_URL = env.text("REDIS_URL")
KAFKA_BOOTSTRAP_SERVERS = env.text("KAFKA_BOOTSTRAP_SERVERS")

# Ingest.
WEB_CONCURRENCY = env.whole("WEB_CONCURRENCY", 1, low=1)
WEBHOOK_MAX_AGE = env.number("WEBHOOK_MAX_AGE", 7200, low=1)
MAX_QUEUED_WEBHOOKS = env.whole("MAX_QUEUED_WEBHOOKS", 1000, low=1)
MAX_QUEUED_BYTES = env.whole("MAX_QUEUED_BYTES", 64 * 1024 * 1024, low=1)
MAX_BACKLOG = env.whole("MAX_BACKLOG", 1_000_000, low=1)
COMMIT_TIMEOUT = env.number("COMMIT_TIMEOUT", 0.9, low=0.05)

# Processing and publishing.
MAX_CONCURRENT_WEBHOOKS = env.whole("MAX_CONCURRENT_WEBHOOKS", 40, low=1)
DELIVERY_LEASE = env.number("DELIVERY_LEASE", 30, low=1)
POLL_INTERVAL = env.number("POLL_INTERVAL", 2, low=0.05)
RECENT_DAYS = env.whole("RECENT_DAYS", 3, low=1)
PUBLISHER_LEASE = env.number("PUBLISHER_LEASE", 5, low=1)
RECONCILE_HOURS = env.number("RECONCILE_HOURS", 24, low=0.01)
RECONCILE_DAYS = env.whole("RECONCILE_DAYS", 7, low=1)
BODY_RETENTION_DAYS = env.whole("BODY_RETENTION_DAYS", 30, low=1)
SAMPLE_RETENTION_YEARS = env.whole("SAMPLE_RETENTION_YEARS", 0)

# Vendors. A secret may be two, comma-separated, while it rotates: the first one signs.
VENDOR_TIMEOUT = env.number("VENDOR_TIMEOUT", 10, low=0.1)

# Connecting devices.
INVITATION_DAYS = env.whole("INVITATION_DAYS", 7, low=1)
BACKFILL_DAYS = env.whole("BACKFILL_DAYS", 90, low=1)

OURA_VERIFICATION_TOKEN = env.text("OURA_VERIFICATION_TOKEN")
OURA_CLIENT_ID = env.text("OURA_CLIENT_ID")
OURA_CLIENT_SECRETS = env.items("OURA_CLIENT_SECRET")
OURA_CLIENT_SECRET = OURA_CLIENT_SECRETS[0] if OURA_CLIENT_SECRETS else ""
OURA_API_URL = env.text("OURA_API_URL", "https://api.ouraring.com").rstrip("/")
OURA_AUTHORIZE_URL = env.text("OURA_AUTHORIZE_URL", "https://cloud.ouraring.com/oauth/authorize")
OURA_TOKEN_URL = env.text("OURA_TOKEN_URL", "https://api.ouraring.com/oauth/token")
OURA_REVOKE_URL = env.text("OURA_REVOKE_URL", "https://api.ouraring.com/oauth/revoke")
OURA_RATE_LIMIT = env.text("OURA_RATE_LIMIT", "5000/300")

WHOOP_CLIENT_ID = env.text("WHOOP_CLIENT_ID")
WHOOP_CLIENT_SECRETS = env.items("WHOOP_CLIENT_SECRET")
WHOOP_CLIENT_SECRET = WHOOP_CLIENT_SECRETS[0] if WHOOP_CLIENT_SECRETS else ""
WHOOP_API_URL = env.text("WHOOP_API_URL", "https://api.prod.whoop.com/developer").rstrip("/")
WHOOP_AUTHORIZE_URL = env.text("WHOOP_AUTHORIZE_URL", "https://api.prod.whoop.com/oauth/oauth2/auth")
WHOOP_TOKEN_URL = env.text("WHOOP_TOKEN_URL", "https://api.prod.whoop.com/oauth/oauth2/token")
WHOOP_REVOKE_URL = env.text("WHOOP_REVOKE_URL", "https://api.prod.whoop.com/developer/v2/user/access")
WHOOP_RATE_LIMIT = env.text("WHOOP_RATE_LIMIT", "100/60,10000/86400")

# The REST API. Rates are requests/seconds of one token or person; 0 is no limit.
API_TOKEN_DAYS = env.whole("API_TOKEN_DAYS", 90, low=1)
API_RATE_LIMIT = env.rate("API_RATE_LIMIT", "600/60")
API_COSTLY_RATE_LIMIT = env.rate("API_COSTLY_RATE_LIMIT", "120/60")

# Signing in. Rates are wrong passwords/seconds; 0 is no limit.
SESSION_IDLE_MINUTES = env.whole("SESSION_IDLE_MINUTES", 30, low=1)
SESSION_HOURS = env.number("SESSION_HOURS", 12, low=0.1)
SIGN_IN_RATE = env.rate("SIGN_IN_RATE", "5/900")
SIGN_IN_ADDRESS_RATE = env.rate("SIGN_IN_ADDRESS_RATE", "50/900")

# Exports.
EXPORT_HOURS = env.number("EXPORT_HOURS", 24, low=0.01)
EXPORT_LEASE = env.number("EXPORT_LEASE", 30, low=1)
MAX_EXPORT_BYTES = env.whole("MAX_EXPORT_BYTES", 512 * 1024 * 1024, low=1024)
SHORT_EXPORT_SAMPLES = env.whole("SHORT_EXPORT_SAMPLES", 5_000)

# Metrics.
METRICS_TOKEN = env.text("METRICS_TOKEN")
METRICS_PORT = env.whole("METRICS_PORT", 0)
LOG_LEVEL = env.text("LOG_LEVEL", "INFO")

# Django itself.
INSTALLED_APPS = [
    "auren.apps.AurenConfig",  # before unfold, some of whose templates it replaces
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "auren.apps.SupportConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_prometheus",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_otp",
    "auren.audit",
    "auren.biometrics",
    "devices",
    "webhooks",
    "auren.console",
    "auren.sandbox",
]
MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "auren.console.sessions.EndedSessions",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "auren.console.looks.RecordLooks",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]
ROOT_URLCONF = "auren.urls"
ASGI_APPLICATION = "auren.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DATABASES = {"default": env.database("DATABASE_URL", DATABASE_URL or "postgresql://auren@127.0.0.1:5432/auren")}
if DATABASE_REPLICA_URL:
    DATABASES["replica"] = env.database("DATABASE_REPLICA_URL", DATABASE_REPLICA_URL, connect_timeout=2)
DATABASE_ROUTERS = ["auren.biometrics.reads.NoReplica"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "auren",
        "OPTIONS": {"IGNORE_EXCEPTIONS": True, "SOCKET_CONNECT_TIMEOUT": 0.5, "SOCKET_TIMEOUT": 0.5},
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "auren.console.api.authentication.TokenAuthentication",  # first: its WWW-Authenticate makes refusals 401
        "auren.console.api.authentication.PageSession",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["auren.console.api.throttles.Every"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["auren.console.api.asking.StrictJSON"],
    "DEFAULT_SCHEMA_CLASS": "auren.console.api.schema.ApiSchema",
    "EXCEPTION_HANDLER": "auren.console.api.problems.answer",
    "URL_FORMAT_OVERRIDE": None,
    "COMPACT_JSON": True,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "AUREN Biometric Bridge",
    "DESCRIPTION": "What wearables know of patients, in one vocabulary. Begin with docs/api.md of the bridge.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "PATH_CONVERTER_OVERRIDES": {"int": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 2**63 - 1}},
    "POSTPROCESSING_HOOKS": ["auren.console.api.schema.tidy"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SORT_OPERATION_PARAMETERS": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGOUT_REDIRECT_URL = "login"
SESSION_COOKIE_AGE = int(3600 * SESSION_HOURS)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not SANDBOX
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.flag("BEHIND_TLS_PROXY") else None
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}
# What the admin may do beyond that: Alpine makes functions of the expressions in unfold's templates, and one of those
# writes a style attribute. Scripts and style sheets are still files of our own, and nothing stands within the pages.
ADMIN_CONTENT_SECURITY_POLICY = {
    "script-src": ["'self'", "'unsafe-eval'"],
    "style-src": ["'self'"],
    "style-src-attr": ["'unsafe-inline'"],
}
UNFOLD = {
    "SITE_TITLE": "AUREN support",
    "SITE_HEADER": "AUREN support",
    "SITE_ICON": lambda _: static("console/icon.svg"),
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda _: static("console/icon.svg")}],
    "STYLES": [lambda _, name=name: static(f"auren/{name}.css") for name in ("admin", "list", "reach")],
    "SCRIPTS": [lambda _: static("auren/admin.js")],
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "auren.console.overview.add_overview",
    "SIDEBAR": {"show_search": False, "navigation": "auren.console.navigation.groups"},
}

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
WHITENOISE_USE_FINDERS = True
PROMETHEUS_EXPORT_MIGRATIONS = False

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    # One line a request names patients' user ids in query strings and fills the disk: counted in metrics instead.
    "loggers": {
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
        "uvicorn.access": {"level": "WARNING"},
        # A scanner's Host header is answered 400; a traceback of each tells nobody anything.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
    },
}
