"""The browser of this machine: Debian's, nothing is downloaded."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WITHOUT = "The browser tests were left out: there is no Chromium here (apt-get install chromium)."
