// How the pipeline is doing, asked every second: rates, what was dropped, lost sources, the table of parts.
import { getJson } from "./api.js";
import { fillTable } from "./charts.js";

const EVERY_MS = 1000;
const SILENT_AFTER = 3;

const element = (id) => document.getElementById(id);
const STATES = { opening: "is being opened", stalled: "gives no pictures", lost: "is lost", failed: "has failed", ended: "has ended", stopped: "was stopped" };
const AFTER = { stalled: "It is waited for.", lost: "It is being reopened.", failed: "It is not tried again.", ended: "This was its last picture." };

export class Status {
  #onStatus;
  #onSilent;
  #failures = 0;
  #last = null;
  #source = "";

  /** @param onSilent called when the server has not answered three times running, although the page is connected */
  constructor(onStatus, onSilent) {
    this.#onStatus = onStatus;
    this.#onSilent = onSilent;
    this.#ask();
  }

  /** Whose state the banner is about. */
  about(source) {
    this.#source = source;
    if (this.#last) this.#show(this.#last);
  }

  async #ask() {
    if (!document.hidden) {
      try {
        this.#last = await getJson("api/status");
        this.#failures = 0;
        this.#show(this.#last);
        this.#onStatus(this.#last);
      } catch {
        if (++this.#failures % SILENT_AFTER === 0) this.#onSilent();
      }
    }
    setTimeout(() => this.#ask(), EVERY_MS);
  }

  #show({ model, engine, sources, sinks }) {
    element("about").textContent = [model, engine].filter(Boolean).join(" · ");
    const source = sources.find(({ name }) => name === this.#source);
    if (source) {
      element("camera-fps").textContent = `${source.fps.toFixed(1)} fps`;
      element("dropped").textContent = String(source.dropped);
      this.#banner(source);
    }
    const row = ({ name, state, problem, dropped, failed, age }, frames) =>
      [name, problem ? `${state}\n${problem}` : state, String(frames), String(dropped), String(failed), age ? `${age.p99_ms.toFixed(1)} ms` : "–"];
    fillTable(element("parts"), [...sources.map((one) => row(one, one.captured)), ...sinks.map((one) => row(one, one.received))]);
    const heads = [...element("parts").closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
    for (const { cells } of element("parts").rows) for (const [place, cell] of [...cells].entries()) cell.dataset.head = heads[place];
  }

  #banner({ name, state, since, problem }) {
    const banner = element("banner");
    const said = STATES[state];
    element("stage").toggleAttribute("data-dim", Boolean(said));
    const why = state === "stalled" ? "" : problem; // how long it has been so: that changes each second, and is read aloud
    const key = [name, state, why].join("\n");
    if (banner.dataset.said === key) return;
    banner.dataset.said = key;
    banner.hidden = !said;
    banner.replaceChildren();
    if (!said) return;
    const strong = document.createElement("strong"), whose = document.createElement("bdi");
    whose.textContent = name;
    strong.append(whose, ` ${said}, since ${new Date(since * 1000).toLocaleTimeString()}`);
    banner.append(strong, [why, AFTER[state]].filter(Boolean).join(". ").replace("..", "."));
  }
}
