// Tells when there is something new: by server-sent events, and by looking now and then where they do not come through.

const LOOK_EVERY = 15_000; // milliseconds
const AT_MOST_EVERY = 1_500; // or under steady news nothing would ever be drawn

// Runs `act` now, or as soon as the last time lies far enough back.
function paced(act) {
  let [timer, last] = [0, -Infinity];
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => { last = performance.now(); act(); }, Math.max(0, last + AT_MOST_EVERY - performance.now()));
  };
}

export function listen(address, act) {
  const onNews = paced(act);
  let known = null;
  let looking = 0;
  const look = () => { looking ||= setInterval(() => document.hidden || onNews(), LOOK_EVERY); };
  const source = new EventSource(address);
  source.addEventListener("version", ({ data }) => {
    if (known !== null && data !== known) onNews();
    known = data;
  });
  source.addEventListener("end", () => window.location.reload()); // the page says why
  source.addEventListener("error", () => { if (source.readyState === EventSource.CLOSED) look(); });
  window.addEventListener("pagehide", () => source.close());
}
