// Which source is shown: radio buttons that look like tabs, or a list where there are many.

const MOST_TABS = 5;

/** The source to begin with: the first that runs, else one that may soon. @param sources of /api/status */
export function firstRunning(sources) {
  const first = (wanted) => sources.find(({ state }) => state === wanted);
  return (first("running") ?? first("opening") ?? sources[0])?.name;
}

/** @param {import("./view.js").View} view */
export class Sources {
  #view;
  #field = document.getElementById("sources");
  #labels = new Map(); // what says a source's name and state

  constructor(view, names) {
    this.#view = view;
    this.names = names;
    if (names.length < 2) return;
    this.#field.hidden = false;
    if (names.length > MOST_TABS) this.#list();
    else this.#tabs();
    view.addEventListener("change", () => this.#show());
    this.#show();
  }

  /** The source after this one. */
  next() {
    const place = this.names.indexOf(this.#view.values.source);
    this.#view.set({ source: this.names[(place + 1) % this.names.length] });
  }

  /** @param sources of /api/status: those that do not run say so before they are chosen */
  mark(sources) {
    for (const { name, state } of sources) {
      const said = this.#labels.get(name);
      if (!said) continue;
      if (state === "running") delete said.dataset.state;
      else said.dataset.state = state;
      if (said instanceof HTMLOptionElement) said.textContent = state === "running" ? name : `${name} (${state})`;
    }
  }

  #tabs() {
    for (const name of this.names) {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "source", value: name });
      const text = document.createElement("span");
      text.textContent = name;
      radio.addEventListener("change", () => this.#view.set({ source: name }));
      label.append(radio, text);
      this.#field.append(label);
      this.#labels.set(name, text);
    }
  }

  #list() {
    const select = document.createElement("select");
    select.ariaLabel = "Source";
    for (const name of this.names) {
      const option = new Option(name, name);
      select.append(option);
      this.#labels.set(name, option);
    }
    select.addEventListener("change", () => this.#view.set({ source: select.value }));
    this.#field.append(select);
  }

  #show() {
    const { source } = this.#view.values;
    for (const radio of this.#field.querySelectorAll("input")) radio.checked = radio.value === source;
    const select = this.#field.querySelector("select");
    if (select) select.value = source;
  }
}
