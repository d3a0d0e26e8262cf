// The best classes as bars. Each is a button that shows that class's map.
import { percent } from "./picture.js";

export class Bars {
  #list = document.getElementById("bars");
  #choose;

  /** @param choose called with {index, label} */
  constructor(choose) {
    this.#choose = choose;
  }

  /** The class of the bar at this place from the top, from 0. */
  at(place) {
    return this.#list.children[place]?.firstChild.shown;
  }

  /**
   * @param top [{index, label, score}], best first
   * @param chosen the class that the reader has chosen; null where the best one is followed
   */
  show(top, chosen) {
    if (top.length) this.#list.style.setProperty("--places", top.length);
    while (this.#list.children.length > top.length) this.#list.lastChild.remove();
    while (this.#list.children.length < top.length) this.#list.append(this.#bar());
    top.forEach((found, place) => {
      const button = this.#list.children[place].firstChild;
      const [fill, label, score] = button.children;
      button.shown = found;
      if (label.textContent !== found.label) {
        label.textContent = found.label;
        button.title = found.label;
      }
      score.textContent = percent(found.score);
      fill.style.clipPath = `inset(0 ${(100 - 100 * Math.min(1, found.score)).toFixed(1)}% 0 0 round 0.45rem)`;
    });
    this.mark(chosen);
  }

  /** Another class is chosen; the figures stay. */
  mark(chosen) {
    for (const { firstChild: button } of this.#list.children) button.setAttribute("aria-pressed", String(button.shown.index === chosen));
  }

  #bar() {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    for (const kind of ["fill", "label", "number"]) {
      const part = document.createElement("span");
      part.className = kind;
      button.append(part);
    }
    // What was under the finger when it came down, although the order may change before it leaves.
    let meant = null;
    button.addEventListener("pointerdown", () => (meant = button.shown));
    button.addEventListener("click", () => {
      this.#choose(meant ?? button.shown);
      meant = null;
    });
    item.append(button);
    return item;
  }
}
