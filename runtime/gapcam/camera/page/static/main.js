// The page: brings its parts together.
import { getJson, toSignIn } from "./api.js";
import { Announcer } from "./announcer.js";
import { Bars } from "./bars.js";
import { Charts } from "./charts.js";
import { ClassPicker } from "./classes.js";
import { connectControls } from "./controls.js";
import { sentence, Timeline } from "./events.js";
import { Live } from "./live.js";
import { percent, Picture } from "./picture.js";
import { connectShortcuts } from "./shortcuts.js";
import { ServerClock } from "./server_clock.js";
import { firstRunning, Sources } from "./sources.js";
import { Status } from "./status.js";
import { View } from "./view.js";

const SEND_EVERY_MS = 60;
const TELL_EVERY_MS = 200; // what changes more often cannot be read
const element = (id) => document.getElementById(id);

const settings = await firstSettings();
const { sources: found } = await getJson("api/status").catch(() => ({ sources: [] }));
const view = new View(settings, firstRunning(found));
const clock = new ServerClock();
const picture = new Picture();
const announcer = new Announcer();
const charts = new Charts();
const sources = new Sources(view, settings.sources);
const labels = new Map(); // of classes that were seen, by index
let last = null; // the header of the frame that is shown
let told = null; // the header that caption, bars and score are of
let toldAt = -Infinity, telling = 0;
let source = view.values.source; // whose frames are shown
let lastAt = 0;
let undecided = !new URLSearchParams(location.hash.slice(1)).has("source");
let arrivals = [];
let paused = false;
let retryAt = 0;

element("inexact").hidden = settings.exact;
connectControls(view, settings.colormaps);

const choose = ({ index, label }) => {
  if (index !== null) labels.set(index, label);
  view.set({ class: index });
};
const picker = new ClassPicker(choose);
const bars = new Bars((found) => choose(found.index === view.values.class ? { index: null } : found));
const timeline = new Timeline(settings.sources, clock, {
  choose: (event) => {
    labels.set(event.index, event.label);
    view.set({ source: event.source, class: event.index });
  },
  onNew: (event) => announcer.say(settings.sources.length > 1 ? `${event.source}: ${sentence(event)}` : sentence(event)),
  onRestart: reloadIfOther,
});

const live = new Live({ onFrame: showFrame, onState: showState, onRefused: (message) => announcer.say(message) });

// What is asked of the server.

let sending = 0;
function sendView() {
  sending ||= setTimeout(() => {
    sending = 0;
    live.show({ ...view.values, max_width: picture.usefulWidth });
  }, SEND_EVERY_MS);
}

async function viewChanged() {
  const { class: index } = view.values;
  sendView();
  if (source !== view.values.source) {
    undecided = false;
    forgetPicture(view.values.source);
  }
  status.about(source);
  linkSnapshots();
  if (index !== null && !labels.has(index)) await findLabel(index).catch(() => {}); // its first frame has it, too
  if (index !== view.values.class) return; // it was changed meanwhile
  picker.show(index === null ? { index, label: "Best class" } : { index, label: labels.get(index) ?? `Class ${index}` });
  bars.mark(index);
  tellScore();
}

/** The label of a class that only the address names; the best class where there is none of this number. */
async function findLabel(index) {
  const { classes } = await getJson(`api/classes?search=${index}&limit=50`);
  const found = classes.find((one) => one.index === index);
  if (found) labels.set(index, found.label);
  else view.set({ class: null });
}

function linkSnapshots() {
  const { source, class: index, map, boxes, threshold, alpha, colormap } = view.values;
  const query = new URLSearchParams({ source, map, boxes, threshold, alpha, colormap });
  if (index !== null) query.set("class", index);
  for (const kind of ["jpg", "png"]) {
    const link = element(`snapshot-${kind}`);
    if (last) link.href = `api/snapshot.${kind}?${query}`;
    else link.removeAttribute("href"); // there is nothing to save yet
    link.setAttribute("aria-disabled", String(!last));
  }
}

/** Another run of the server has its own classes, and may have another model and other sources. */
async function reloadIfOther() {
  labels.clear();
  const now = await getJson("api/settings").catch(() => settings);
  if (JSON.stringify(now) !== JSON.stringify(settings)) location.reload();
}

// What comes back.

async function showFrame(header, jpeg) {
  clock.hear(header.now ?? header.time + header.age_ms / 1000);
  timeline.heed(header.run);
  timeline.add(header.events);
  try {
    // Not where another source was chosen meanwhile, or the picture is held.
    if (!(await picture.draw(header, jpeg, () => header.source === source && !paused))) return;
  } catch {
    return; // a picture that cannot be decoded: the next one
  }
  const first = !last;
  last = header;
  lastAt = performance.now();
  arrivals.push(lastAt);
  if (first) {
    linkSnapshots();
    setTimeout(everySecond); // the figures need not wait
  }
  for (const { index, label } of header.top) labels.set(index, label);
  const shown = header.class;
  if (shown && !labels.has(shown.index)) {
    labels.set(shown.index, shown.label);
    if (shown.index === view.values.class) picker.show(shown);
  }
  if (told?.class?.index !== shown?.index || lastAt - toldAt >= TELL_EVERY_MS) tell();
  else telling ||= setTimeout(tell, TELL_EVERY_MS);
  charts.add(header);
  if (header.top.length) announcer.best(header.top[0]);
}

/** Caption, bars and score: of one frame all of them. */
function tell() {
  clearTimeout(telling);
  telling = 0;
  if (!last) return;
  told = last;
  toldAt = performance.now();
  picture.caption(told.class);
  bars.show(told.top, view.values.class);
  tellScore();
}

function tellScore() {
  const { class: index } = view.values;
  const shown = [told?.class, ...(told?.top ?? [])].find((one) => one?.index === index);
  const text = index === null ? "Follows whatever scores highest." : shown ? `Score${paused ? "" : " now"}: ${percent(shown.score)}` : "";
  if (element("class-shown").textContent !== text) element("class-shown").textContent = text;
}

/** Nothing of one source may be taken for another's. */
function forgetPicture(chosen) {
  source = chosen;
  last = told = null;
  toldAt = -Infinity;
  arrivals = [];
  picture.clear();
  bars.show([], null);
  charts.clear();
  element("waiting").textContent = waitingFor();
  for (const name of ["camera-fps", "dropped"]) element(name).textContent = "–";
  everySecond();
}

function waitingFor() {
  return settings.sources.length > 1 ? `No picture of \u2068${source}\u2069 yet` : "Waiting for the first picture";
}

function showState(state, wait = 0) {
  retryAt = state === "lost" ? performance.now() + wait * 1000 : 0;
  element("connection").dataset.state = state === "open" ? "live" : state;
  element("retry").hidden = state !== "lost";
  element("stage").toggleAttribute("data-stale", state === "lost");
  // One text for the whole of an outage: it is read aloud.
  const again = element("connection-text").textContent.startsWith("Connection lost");
  const text = { open: "Live", held: "Paused" }[state] ?? (state === "lost" || again ? "Connection lost, trying again" : "Connecting");
  if (element("connection-text").textContent !== text) element("connection-text").textContent = text;
  if (state === "lost") refusedOrGone();
  if (state === "open" && !last) element("waiting").textContent = waitingFor();
}

/** A browser does not say why a WebSocket was refused. The API does, and sends on whoever has to sign in. */
async function refusedOrGone() {
  let reason;
  try {
    const { clients, max_clients: most } = await getJson("api/status");
    reason = clients >= most ? `No more than ${most} can watch at once, and so many do` : "";
  } catch (error) {
    reason = error.message;
  }
  if (!last) element("waiting").textContent = reason || waitingFor();
}

function everySecond() {
  const now = performance.now();
  arrivals = arrivals.filter((time) => now - time < 2000);
  element("shown-fps").textContent = paused ? "paused" : `${(arrivals.length / 2).toFixed(1)} fps`;
  element("age").textContent = last ? ageNow(now) : "–";
  element("retry").textContent = retryAt ? `Try now (${Math.max(0, Math.ceil((retryAt - now) / 1000))} s)` : "Try now";
  charts.draw();
  timeline.draw();
}

/** Of the picture that is seen: one that no other follows grows older. */
function ageNow(now) {
  const since = now - lastAt < 2000 ? 0 : now - lastAt;
  const age = last.age_ms + since;
  return age < 10000 ? `${age.toFixed(0)} ms` : `${Math.round(age / 1000)} s`;
}

// What the reader does.

function setPaused(now) {
  paused = now;
  const button = element("pause");
  button.setAttribute("aria-pressed", String(paused));
  button.lastChild.textContent = paused ? "Go on" : "Pause";
  // The server keeps no frame that could be drawn anew for another class or look.
  view.held = paused;
  for (const controls of document.querySelectorAll("main fieldset")) controls.disabled = paused;
  element("held").hidden = !paused;
  if (paused) tell();
  tellScore();
  live.hold(paused || document.hidden);
}

/** While the picture is held, that very picture is saved; otherwise the server's newest, in full size. */
async function saveHeld(event, type, kind) {
  if (!paused || !last) return;
  event.preventDefault();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await picture.copy(type));
  link.download = `${last.source}-${last.number}.${kind}`.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function toggleFullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (document.fullscreenEnabled) element("stage").requestFullscreen();
}

function showTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  element("theme").setAttribute("aria-pressed", String(dark));
  charts.draw();
}

element("pause").addEventListener("click", () => setPaused(!paused));
element("retry").addEventListener("click", () => live.retry());
element("theme").addEventListener("click", () => window.toggleTheme());
element("fullscreen").hidden = !document.fullscreenEnabled;
element("fullscreen").addEventListener("click", toggleFullscreen);
element("snapshot-jpg").addEventListener("click", (event) => saveHeld(event, "image/jpeg", "jpg"));
element("snapshot-png").addEventListener("click", (event) => saveHeld(event, "image/png", "png"));
// Not as a form: without a referrer it would come from nowhere, and be refused.
element("logout").addEventListener("submit", async (event) => {
  event.preventDefault();
  await fetch("logout", { method: "POST", redirect: "manual" }).catch(() => {});
  await toSignIn();
});
element("speak-on").checked = true;
element("speak-on").addEventListener("change", (event) => (announcer.on = event.target.checked));
addEventListener("gapcam-theme", showTheme);
document.addEventListener("visibilitychange", () => live.hold(paused || document.hidden));

const nudge = (name, by) => {
  const { min, max } = element(name);
  view.set({ [name]: Math.min(Number(max), Math.max(Number(min), Number((view.values[name] + by).toFixed(2)))) });
};
connectShortcuts([
  ["p", "hold the picture, go on", () => setPaused(!paused)],
  ["m", "map on or off", () => view.set({ map: !view.values.map })],
  ["b", "boxes on or off", () => view.set({ boxes: !view.values.boxes })],
  ["c", "choose a class", () => picker.focus()],
  ["0", "follow the best class", () => choose({ index: null })],
  ["1–9", "the class at this place", (place) => bars.at(place - 1) && choose(bars.at(place - 1))],
  ["[", "map less opaque", () => nudge("alpha", -0.1)],
  ["]", "map more opaque", () => nudge("alpha", 0.1)],
  ["-", "box threshold down", () => nudge("threshold", -0.05)],
  ["+", "box threshold up", () => nudge("threshold", 0.05)],
  ["n", "the next source", () => sources.next()],
  ["s", "save a snapshot", () => element("snapshot-jpg").click()],
  ["f", "full screen", toggleFullscreen],
  ["t", "light or dark", () => window.toggleTheme()],
  ["?", "this list", () => element("help").click()],
]);

// Begin.

const status = new Status(
  (now) => {
    if (now.now) clock.hear(now.now);
    sources.mark(now.sources);
    if (undecided && !last) view.set({ source: firstRunning(now.sources) });
    element("logout").hidden = !now.token;
    timeline.ask().catch(() => {}); // the status says that the server is gone
  },
  () => live.renew(),
);
view.addEventListener("change", viewChanged);
view.addEventListener("refused", () => announcer.say("The picture is held: go on before you change what is shown"));
picture.onResize(sendView);
await viewChanged();
showTheme();
everySecond();
setInterval(everySecond, 1000);

/** The settings, however long the server takes to come up. */
async function firstSettings() {
  for (let attempt = 0; ; attempt++) {
    try {
      return await getJson("api/settings");
    } catch (error) {
      element("connection").dataset.state = "lost";
      element("connection-text").textContent = "No connection, trying again";
      element("waiting").textContent = error.message;
      await new Promise((again) => setTimeout(again, Math.min(10000, 500 * 2 ** attempt)));
    }
  }
}
