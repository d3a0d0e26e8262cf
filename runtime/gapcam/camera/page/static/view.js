// What this page shows: source, class and look. The look is kept in the browser, all of it in the address.

const KEPT = "gapcam.view";
const LOOK = ["map", "boxes", "threshold", "alpha", "colormap"];

/** The values, and who wants to know when they change. */
export class View extends EventTarget {
  #defaults;
  #known;
  #held = false;
  #missed = false;

  /**
   * @param settings what /api/settings answered
   * @param source to begin with, where the address names none
   */
  constructor(settings, source) {
    super();
    this.#known = { source: settings.sources, colormap: settings.colormaps };
    this.#defaults = {
      source: settings.sources.length > 1 ? "" : settings.sources[0] ?? "", class: null, map: true, boxes: true,
      threshold: settings.threshold, alpha: settings.alpha, colormap: settings.colormap,
    };
    this.values = { ...this.#defaults, source: settings.sources[0] ?? "", ...this.#checked({ source }), ...this.#checked(kept()), ...this.#checked(inAddress()) };
    addEventListener("hashchange", () => this.#heedAddress());
  }

  /** While it is held, whatever would change it is refused: a "refused" event says so. */
  set held(held) {
    this.#held = held;
    if (!held && this.#missed) this.#heedAddress();
  }

  set(changes) {
    const checked = this.#checked(changes);
    const changed = Object.keys(checked).filter((name) => this.values[name] !== checked[name]);
    if (!changed.length) return;
    if (this.#held) {
      this.dispatchEvent(new Event("refused"));
      return;
    }
    Object.assign(this.values, checked);
    this.#keep();
    this.dispatchEvent(new Event("change"));
  }

  reset() {
    this.set(Object.fromEntries(LOOK.map((name) => [name, this.#defaults[name]])));
  }

  #heedAddress() {
    this.#missed = this.#held;
    this.set({ class: null, ...inAddress() });
  }

  #keep() {
    const apart = Object.entries(this.values).filter(([name, value]) => value !== this.#defaults[name]);
    const hash = new URLSearchParams(apart).toString();
    history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
    const look = Object.fromEntries(apart.filter(([name]) => LOOK.includes(name)));
    try {
      localStorage.setItem(KEPT, JSON.stringify(look));
    } catch { /* no storage: the address has it */ }
  }

  /** The values that are ones, whatever an old or edited address says. */
  #checked(found) {
    const right = {};
    for (const [name, value] of Object.entries(found ?? {})) {
      if (name === "class" ? value === null || (Number.isInteger(value) && value >= 0)
        : this.#known[name] ? this.#known[name].includes(value)
        : typeof value === typeof this.#defaults[name] && (typeof value !== "number" || (value >= 0 && value <= (name === "threshold" ? 0.95 : 1))))
        right[name] = value;
    }
    return right;
  }
}

function inAddress() {
  const found = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (name === "map" || name === "boxes") found[name] = text === "true";
    else if (name === "source" || name === "colormap") found[name] = text;
    else if (text) found[name] = Number(text);
  }
  return found;
}

function kept() {
  try {
    const look = JSON.parse(localStorage.getItem(KEPT));
    return Object.fromEntries(Object.entries(look ?? {}).filter(([name]) => LOOK.includes(name)));
  } catch {
    return {};
  }
}
