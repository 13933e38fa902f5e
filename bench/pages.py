"""How soon is a timeline drawn, and does it keep up with the hand? In Chromium, with 100,000 points and more in view.

A PostgreSQL, a web process and a Chromium of its own. `drawn` is from the start of the navigation to the frame after
the last lane was drawn (the mark `lanes-drawn`). A pan is the wheel pushed sideways every frame, a zoom the keys +, -.
Each figure is the time from one frame to the next, at best the screen's 16.7 ms, until new data were loaded and drawn.
`CPU` is what the page's own thread was busy, which others on the machine change least.
"""

import argparse
import os
import shutil
import statistics
from collections.abc import Sequence

from playwright.sync_api import Page, sync_playwright

from bench.bridge import WEB, serving
from bench.goals import Goal, Row, add_results, keep
from bench.parts.clinic import PASSWORD, PATIENT
from bench.store import database, run

DRAWN_GOAL = Goal("a patient's page", "a day of 5-second heart rate drawn", "", "ms", 1_000)
PAN_GOAL = Goal("a patient's page", "a frame of a pan, 120,960 points in view", "", "ms", 50)
VIEWS = {"day (17,280 points)": 1, "week (120,960)": 7, "two weeks (241,920)": 14}
IN_VIEW = 7  # days, while it is moved: 120,960 points of heart rate
STEPS = 60
DRAWN = "() => performance.getEntriesByName('lanes-drawn')[0]?.startTime ?? 0"
# Does `act` once a frame, then goes on counting frames until what it led to is loaded and drawn.
FRAMES = """async ([what, steps]) => {
  const lanes = document.getElementById("lanes"), lane = lanes.querySelector(".lane");
  const how = { bubbles: true, cancelable: true };
  const acts = {
    pan: (step) => lane.dispatchEvent(new WheelEvent("wheel", { deltaX: step % 40 < 20 ? -24 : 24, ...how })),
    zoom: (step) => lane.dispatchEvent(new KeyboardEvent("keydown", { key: step % 2 ? "-" : "+", ...how })),
  };
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const count = () => performance.getEntriesByName("lanes-drawn").length;
  const before = count(), frames = [];
  let last = await frame();
  for (let step = 0; step < steps || (count() === before && step < 600); step += 1) {
    if (step < steps) acts[what](step);
    const now = await frame();
    frames.push(now - last);
    last = now;
  }
  for (let more = 0; more < 5; more += 1) { const now = await frame(); frames.push(now - last); last = now; }
  return frames;
}"""


def sign_in(page: Page) -> None:
    page.goto("/sign-in/")
    page.fill("[name=username]", "clara")
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url("/")


def drawn(page: Page, days: float) -> float:
    """Milliseconds from the start of the navigation until every lane stands."""
    page.goto(f"/patients/{PATIENT}/?days={days}")
    page.locator("#updated", has_text="Loaded").wait_for()
    while not (taken := page.evaluate(DRAWN)):
        page.wait_for_timeout(5)
    return float(taken)


def tell(label: str, figures: Sequence[float]) -> Sequence[float]:
    """Print them, and give them back."""
    ordered = sorted(figures)
    spread = f"{ordered[len(ordered) // 10]:.0f} to {ordered[-1 - len(ordered) // 10]:.0f}"
    median, worst = statistics.median(ordered), ordered[-1]
    print(f"  {label}: median {median:.0f} ms, eight in ten {spread}, worst {worst:.0f}", flush=True)
    return figures


class Clock:
    """The CPU time of the page's thread, in ms."""

    def __init__(self, page: Page) -> None:
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def read(self) -> float:
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return next(1000 * float(one["value"]) for one in metrics if one["name"] == "TaskDuration")


def measure(page: Page, rounds: int) -> list[Row]:
    sign_in(page)
    drawn(page, 1)  # the web process has everything in memory now
    clock = Clock(page)
    views: dict[int, Sequence[float]] = {}
    for label, days in VIEWS.items():
        busy, taken = 0.0, []
        for _ in range(rounds):
            taken.append(drawn(page, days))
            busy += clock.read()  # begins anew with each navigation
        views[days] = tell(f"{label} drawn", taken)
        print(f"    CPU {busy / rounds:.0f} ms each")
    moves = {what: move(page, what, rounds, clock) for what in ("pan", "zoom")}
    return [DRAWN_GOAL.row(views[1]), PAN_GOAL.row(moves["pan"])]


def move(page: Page, what: str, rounds: int, clock: Clock) -> Sequence[float]:
    """Milliseconds from each frame to the next."""
    frames, busy = [], 0.0
    for _ in range(max(rounds // 3, 1)):
        drawn(page, IN_VIEW)
        before = clock.read()
        frames += page.evaluate(FRAMES, [what, STEPS])
        busy += clock.read() - before
    tell(f"a frame of a {what} over a week", frames)
    print(f"    CPU {busy / len(frames):.1f} ms each, {busy / max(rounds // 3, 1) / STEPS:.1f} ms a step")
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--days", type=int, default=30, help="of history, 17,280 heart rates each (30)")
    parser.add_argument("--rounds", type=int, default=9, help="of each view (9)")
    add_results(parser)
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if not chromium:
        raise SystemExit("There is no Chromium here: apt-get install chromium.")
    with database(None, {}) as settings:
        run(settings, "-m", "bench.parts.clinic", str(options.days))
        load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        print(f"{options.days} days of history; {load}", flush=True)
        with serving(WEB, settings) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(base_url=address, viewport={"width": 1440, "height": 900})
            rows = measure(page, options.rounds)
            browser.close()
    keep(options.results, "pages", rows)


if __name__ == "__main__":
    main()
