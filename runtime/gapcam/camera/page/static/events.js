// The timeline: who came, stayed and went, as a list, and the last two minutes as lanes.
import { getJson } from "./api.js";
import { percent } from "./picture.js";

const KEPT = 1000;
const LISTED = 100;
const LANES = 4;
const SPAN_S = 120;
const timeOfDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

/** What happened, in a sentence without the time. */
export function sentence(event) {
  return parts(event).map((part) => part.textContent ?? part).join("");
}

function parts({ event, label, zone, seconds }) {
  const where = event.endsWith("zone") && zone ? [" ", apart(zone)] : [];
  const long = seconds === undefined ? [] : [` ${event === "leaves" ? "after" : "for"} ${seconds.toFixed(seconds < 10 ? 1 : 0)}\u00a0s`];
  return [apart(label), ` ${event}`, ...where, ...long];
}

/** A name, in whatever direction it is written, that does not turn what stands beside it. */
function apart(name) {
  const element = document.createElement("bdi");
  element.textContent = name;
  return element;
}

/** A place in a film: 0:05, 1:02:03. */
function place(seconds) {
  const whole = Math.floor(Math.abs(seconds));
  const [first, ...rest] = [whole / 3600, (whole / 60) % 60, whole % 60].map(Math.floor).slice(whole < 3600 ? 1 : 0);
  return `${seconds < 0 ? "-" : ""}${[first, ...rest.map((part) => String(part).padStart(2, "0"))].join(":")}`;
}

/** A text that is no wider than this, with an ellipsis where it was. */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let low = 0, high = text.length;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (context.measureText(text.slice(0, middle).trimEnd() + "…").width <= width) low = middle;
    else high = middle - 1;
  }
  return text.slice(0, low).trimEnd() + "…";
}

export class Timeline {
  #events = new Map();
  #latest = 0;
  #asked = false;
  #run = null;
  #list = document.getElementById("event-list");
  #kind = document.getElementById("event-kind");
  #source = document.getElementById("event-source");
  #lanes = document.getElementById("lanes");
  #clock;
  #handlers;

  /**
   * @param clock the server's, by which events have their times
   * @param handlers `choose({index, label, source})` where an event is chosen, `onNew(event)` for each that happens while
   *   the page is open, `onRestart()` where another run of the server is met
   */
  constructor(sources, clock, handlers) {
    this.#clock = clock;
    this.#handlers = handlers;
    this.#source.hidden = sources.length < 2;
    this.#source.append(...sources.map((name) => new Option(name, name)));
    for (const filter of [this.#kind, this.#source]) filter.addEventListener("change", () => this.#fill());
  }

  /** Those that no frame has brought: of other sources, of before the page was opened, of while it was hidden. */
  async ask() {
    const after = this.#latest;
    const { events, latest, run } = await getJson(`api/events?after=${after}&limit=${KEPT}`);
    this.heed(run);
    if (this.#latest !== after) return this.ask(); // these are not all of a new run's
    this.#latest = latest;
    this.add(events, !this.#asked);
    this.#asked = true;
  }

  /** Events are numbered anew in each run of the server: those of another one go. */
  heed(run) {
    if (run === this.#run) return;
    const restarted = this.#run !== null;
    this.#run = run;
    if (!restarted) return;
    this.#events.clear();
    this.#list.replaceChildren();
    this.#latest = 0;
    this.#asked = false;
    this.#fill();
    this.#handlers.onRestart();
  }

  add(events, old = false) {
    const fresh = events.filter(({ id }) => !this.#events.has(id));
    if (!fresh.length) return;
    for (const event of fresh) {
      this.#events.set(event.id, event);
      if (!old) this.#handlers.onNew(event);
    }
    if (this.#events.size > KEPT) {
      const ids = [...this.#events.keys()].sort((one, other) => one - other);
      for (const id of ids.slice(0, ids.length - KEPT)) this.#events.delete(id);
    }
    this.#fill();
  }

  #wanted() {
    return [...this.#events.values()]
      .filter(({ event, source }) => event.endsWith(this.#kind.value) && (!this.#source.value || source === this.#source.value))
      .sort((one, other) => other.time - one.time || other.id - one.id);
  }

  #fill() {
    const wanted = this.#wanted().slice(0, LISTED);
    document.getElementById("no-events").hidden = wanted.length > 0;
    const there = new Map([...this.#list.children].map((item) => [item.dataset.id, item]));
    this.#list.replaceChildren(...wanted.map((event) => there.get(String(event.id)) ?? this.#item(event)));
    this.draw();
  }

  #item(event) {
    const item = document.createElement("li");
    item.dataset.id = event.id;
    const button = document.createElement("button");
    button.type = "button";
    const time = document.createElement("time");
    time.dateTime = new Date(event.time * 1000).toISOString();
    const seen = timeOfDay.format(event.time * 1000);
    time.textContent = event.position_s === undefined ? seen : place(event.position_s);
    if (event.position_s !== undefined) time.title = `in the film; explained at ${seen}`;
    const mark = document.createElement("span");
    mark.className = "mark";
    mark.dataset.kind = event.event;
    const text = document.createElement("span");
    text.append(...parts(event));
    const where = document.createElement("span");
    where.className = "where muted small";
    where.append(...(this.#source.hidden ? [] : [apart(event.source), " · "]), percent(event.score));
    text.append(where);
    button.append(time, mark, text);
    button.addEventListener("click", () => this.#handlers.choose(event));
    item.append(button);
    return item;
  }

  /** The lanes: from when to when the latest classes were there. */
  draw() {
    const now = this.#clock.now;
    const stays = now === null ? [] : this.#stays(now);
    this.#lanes.hidden = stays.length === 0;
    if (!stays.length || document.hidden) return;
    this.#lanes.style.height = `${stays.length * 1.4}rem`;
    const canvas = this.#lanes, context = canvas.getContext("2d"), ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    context.font = `11px ${style.fontFamily}`;
    const x = (time) => width * (1 - (now - time) / SPAN_S);
    const step = height / stays.length;
    stays.forEach(({ label, parts, ticks }, lane) => {
      const y = lane * step;
      context.fillStyle = color("--muted");
      context.fillText(fitted(context, label, width), 0, y + 10);
      context.fillStyle = color("--line");
      context.fillRect(0, y + 13, width, 5);
      context.fillStyle = color("--s1");
      for (const [from, to] of parts) context.fillRect(Math.max(0, x(from)), y + 13, Math.max(2, x(to) - Math.max(0, x(from))), 5);
      context.fillStyle = color("--s2");
      for (const time of ticks) context.fillRect(x(time) - 1, y + 11, 2, 9);
    });
  }

  #stays(now) {
    const lanes = new Map();
    const oldestFirst = this.#wanted().reverse();
    for (const { event, source, index, label, time, seconds } of oldestFirst) {
      const key = `${source}/${index}`;
      if (!lanes.has(key)) lanes.set(key, { label: this.#source.hidden || this.#source.value ? label : `\u2068${source}\u2069: \u2068${label}\u2069`, parts: [], ticks: [], latest: 0 });
      const lane = lanes.get(key);
      lane.latest = time;
      const last = lane.parts.at(-1);
      if (event === "enters") lane.parts.push([time, now]);
      else if (event === "leaves" && last?.[1] === now) last[1] = time;
      else if (event === "leaves") lane.parts.push([time - (seconds ?? 0), time]);
      else if (event === "stays" && last?.[1] !== now) lane.parts.push([time - (seconds ?? 0), now]);
      else if (event.endsWith("zone")) lane.ticks.push(time);
    }
    const recent = (time) => time > now - SPAN_S;
    return [...lanes.values()]
      .map((lane) => ({ ...lane, parts: lane.parts.filter(([, to]) => recent(to)), ticks: lane.ticks.filter(recent) }))
      .filter(({ parts, ticks }) => parts.length || ticks.length)
      .sort((one, other) => other.latest - one.latest)
      .slice(0, LANES);
  }
}
