// The class picker: a combobox with a list, after the ARIA Authoring Practices ("list autocomplete, manual selection").
import { getJson } from "./api.js";

const LIMIT = 50;
const BEST = { index: null, label: "Best class" };

export class ClassPicker {
  #input = document.getElementById("class");
  #list = document.getElementById("class-list");
  #best = document.getElementById("class-best");
  #count = document.getElementById("class-count");
  #choose;
  #chosen = BEST;
  #options = [];
  #active = -1;
  #asked = null;
  #timer = 0;

  /** @param choose called with {index, label}; index null is the best class */
  constructor(choose) {
    this.#choose = choose;
    this.#input.addEventListener("input", () => this.#searchSoon());
    this.#input.addEventListener("keydown", (event) => this.#key(event));
    this.#input.addEventListener("focus", () => this.#input.select());
    this.#input.addEventListener("click", () => this.#open || this.#search(""));
    this.#input.addEventListener("blur", () => this.#close());
    // The field keeps the focus while its list is used.
    this.#list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.#list.addEventListener("click", (event) => {
      const place = this.#options.findIndex(({ item }) => item === event.target);
      if (place >= 0) this.#take(this.#options[place]);
    });
    this.#best.addEventListener("click", () => this.#take(BEST));
    this.show(BEST);
  }

  /** What is chosen, as the view has it. */
  show(chosen) {
    this.#chosen = chosen;
    this.#best.hidden = chosen.index === null;
    if (!this.#open) this.#input.value = chosen.label;
  }

  focus() {
    this.#input.focus();
    this.#input.scrollIntoView({ block: "nearest" });
  }

  get #open() {
    return !this.#list.hidden;
  }

  #searchSoon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#search(this.#input.value.trim()), 120);
  }

  async #search(text) {
    this.#asked?.abort();
    const asked = new AbortController();
    this.#asked = asked;
    const query = new URLSearchParams({ search: text, limit: LIMIT });
    let found;
    try {
      found = await getJson(`api/classes?${query}`, { signal: asked.signal });
    } catch (error) {
      if (!asked.signal.aborted) this.#count.textContent = error.message;
      return;
    }
    if (asked.signal.aborted || document.activeElement !== this.#input) return;
    this.#fill(text ? found.classes : [BEST, ...found.classes], found);
  }

  #fill(classes, { found: all }) {
    this.#options = classes.map(({ index, label }, place) => {
      const item = document.createElement("li");
      item.id = `class-${place}`;
      item.role = "option";
      item.textContent = label;
      item.setAttribute("aria-selected", String(index === this.#chosen.index));
      return { index, label, item };
    });
    const rest = document.createElement("li");
    rest.role = "presentation";
    const number = this.#options.filter(({ index }) => index !== null).length;
    rest.textContent = !number ? "No class has such a name." : number < all ? "Type to find more." : "";
    this.#list.replaceChildren(...this.#options.map(({ item }) => item), ...(rest.textContent ? [rest] : []));
    this.#count.textContent = number ? `${number} ${number === 1 ? "class" : "classes"}` : rest.textContent;
    this.#list.hidden = false;
    this.#input.setAttribute("aria-expanded", "true");
    this.#list.scrollTop = 0;
    this.#activate(-1);
  }

  #activate(place) {
    this.#options[this.#active]?.item.classList.remove("active");
    this.#active = place;
    const item = this.#options[place]?.item;
    if (item) {
      item.classList.add("active");
      item.scrollIntoView({ block: "nearest" });
      this.#input.setAttribute("aria-activedescendant", item.id);
    } else this.#input.removeAttribute("aria-activedescendant");
  }

  async #key(event) {
    const last = this.#options.length - 1;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const down = event.key === "ArrowDown";
      if (!this.#open) {
        await this.#search("");
        if (this.#open && !event.altKey) this.#activate(down ? 0 : this.#options.length - 1);
      } else if (down) this.#activate(this.#active < last ? this.#active + 1 : 0);
      else this.#activate(this.#active > 0 ? this.#active - 1 : last);
    } else if (event.key === "Enter" && this.#open) {
      event.preventDefault();
      const option = this.#options[this.#active] ?? (last === 0 ? this.#options[0] : null);
      if (option) this.#take(option);
    } else if (event.key === "Escape") {
      event.preventDefault();
      if (this.#open) this.#close();
      else this.#take(BEST);
    }
  }

  #take(option) {
    this.#close();
    this.show({ index: option.index, label: option.label });
    this.#choose(this.#chosen);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#asked?.abort();
    this.#list.hidden = true;
    this.#options = [];
    this.#active = -1;
    this.#input.setAttribute("aria-expanded", "false");
    this.#input.removeAttribute("aria-activedescendant");
    this.#input.value = this.#chosen.label;
    this.#count.textContent = "";
  }
}
