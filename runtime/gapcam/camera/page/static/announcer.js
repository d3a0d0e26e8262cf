// Tells screen readers what changed, seldom enough to be listened to.

const APART_MS = 4000;
const STEADY_MS = 1000;

export class Announcer {
  #region = document.getElementById("announcer");
  #waiting = [];
  #last = -Infinity;
  #timer = 0;
  #best = { index: null, since: 0, told: null };
  on = true;

  /** The best class of a frame: told once it has stayed best for a second. */
  best({ index, label, score }) {
    const now = performance.now();
    if (index !== this.#best.index) Object.assign(this.#best, { index, since: now });
    else if (index !== this.#best.told && now - this.#best.since >= STEADY_MS) {
      this.#best.told = index;
      this.say(`Best class: ${label}, ${Math.round(score * 100)} percent`);
    }
  }

  say(text) {
    if (!this.on) return;
    this.#waiting.push(text);
    if (this.#waiting.length > 3) this.#waiting.shift(); // the newest are what matters
    if (!this.#timer) this.#timer = setTimeout(() => this.#tell(), Math.max(0, this.#last + APART_MS - performance.now()));
  }

  #tell() {
    this.#timer = 0;
    this.#last = performance.now();
    this.#region.textContent = this.#waiting.join(". ");
    this.#waiting = [];
  }
}
