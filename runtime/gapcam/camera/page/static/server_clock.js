// What time it is where the camera is: the reader's own clock may be minutes off.

export class ServerClock {
  #ahead = null;

  /** @param now the server's clock, Unix seconds */
  hear(now) {
    this.#ahead = now - performance.now() / 1000;
  }

  /** Unix seconds by the server's clock; null before it was heard. */
  get now() {
    return this.#ahead === null ? null : this.#ahead + performance.now() / 1000;
  }
}
