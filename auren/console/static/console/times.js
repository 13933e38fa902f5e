// Times as people say them, always in the patient's zone. Seconds in, text out.

const DAY = 86_400;
const QUARTER = 900; // no zone's clock is changed within one

export class Clock {
  constructor(zone) {
    this.zone = zone;
    this.known = new Map();
    const format = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...options });
    this.formats = {
      time: format({ hour: "2-digit", minute: "2-digit" }),
      second: format({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
      day: format({ day: "numeric", month: "short" }),
      full: format({ weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" }),
      wall: format({ year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" }),
      year: format({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" }),
    };
  }

  // A time of the clock that is not over a minute long keeps its seconds where it has any.
  time = (at) => this.formats[at % 60 ? "second" : "time"].format(at * 1000);
  day = (at) => this.formats.day.format(at * 1000);
  full = (at) => this.formats.full.format(at * 1000);
  year = (at) => this.formats.year.format(at * 1000);
  short = (at) => `${this.day(at)} ${this.time(at)}`;

  span(from, to) {
    if (from === to) return this.short(from);
    return this.day(from) === this.day(to) ? `${this.short(from)}–${this.time(to)}` : `${this.short(from)} – ${this.short(to)}`;
  }

  // Labels under an axis: the day alone where labels are days apart, else the time, with the day where it changes.
  ticks = (chart, splits, axis, space, apart) => {
    let last = "";
    return splits.map((at) => {
      const day = this.day(at);
      if (apart >= DAY) return day;
      const label = day === last ? this.time(at) : `${this.time(at)}\n${day}`;
      last = day;
      return label;
    });
  };

  // Seconds by which the zone's wall clock is ahead of UTC at a moment.
  ahead(at) {
    const quarter = Math.floor(at / QUARTER);
    if (!this.known.has(quarter)) this.known.set(quarter, this.ask(quarter * QUARTER));
    return this.known.get(quarter);
  }

  ask(at) {
    const said = Object.fromEntries(this.formats.wall.formatToParts(at * 1000).map(({ type, value }) => [type, Number(value)]));
    return Date.UTC(said.year, said.month - 1, said.day, said.hour, said.minute, said.second) / 1000 - Math.floor(at);
  }

  // When a day such as "2026-03-29" begins. Asked twice, because the first guess may lie across a change of the clock.
  midnight(day) {
    const wall = Date.parse(`${day}T00:00:00Z`) / 1000;
    const guess = wall - this.ahead(wall);
    return wall - this.ahead(guess);
  }

  // The day of a moment, as an input of dates wants it.
  iso = (at) => new Date((at + this.ahead(at)) * 1000).toISOString().slice(0, 10);

  // uPlot places its splits by the wall clock of this date: the zone's, as if it were the browser's. (Its own tzDate makes
  // a formatter for each split, which was two thirds of what a pan took.)
  wall = (at) => {
    const wall = new Date((at + this.ahead(at)) * 1000);
    const day = [wall.getUTCFullYear(), wall.getUTCMonth(), wall.getUTCDate()];
    return new Date(...day, wall.getUTCHours(), wall.getUTCMinutes(), wall.getUTCSeconds(), wall.getUTCMilliseconds());
  };
}
