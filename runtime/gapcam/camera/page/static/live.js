// The live frames, by a WebSocket. One credit: the server sends the next frame when the last one has been drawn.
// While nobody looks there is no connection, and nothing is computed for it.

const FIRST_WAIT_S = 0.5;
const LONGEST_WAIT_S = 10;
const decoder = new TextDecoder();

/** The message of one frame: 4 bytes big-endian N, N bytes of JSON, the JPEG. */
export function parseFrame(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, length)));
  return { header, jpeg: new Blob([new Uint8Array(buffer, 4 + length)], { type: "image/jpeg" }) };
}

/**
 * Keeps a connection open for as long as the page is, and opens it again where it is lost.
 *
 * Calls `onFrame(header, jpeg)` and waits until it is done, `onState("connecting" | "open" | "held" | "lost", seconds to
 * the next attempt)`, and `onRefused(message)` where the server did not understand a view.
 */
export class Live {
  #handlers;
  #view = null;
  #socket = null;
  #attempt = 0;
  #timer = 0;
  #held = false;

  constructor(handlers) {
    this.#handlers = handlers;
    addEventListener("online", () => this.retry());
  }

  /** What to show; sent now, and again with each new connection. */
  show(view) {
    this.#view = view;
    if (this.#socket) this.#send({ type: "view", ...view });
    else if (!this.#timer && !this.#held) this.#connect();
  }

  /** Take no more frames until this is undone: nobody is looking. */
  hold(held) {
    if (held === this.#held) return;
    this.#held = held;
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (held) {
      this.#leave();
      this.#handlers.onState("held");
    } else if (this.#view) this.#connect();
  }

  /** Try now rather than when the wait is over. */
  retry() {
    if (!this.#timer) return;
    clearTimeout(this.#timer);
    this.#connect();
  }

  /** The connection says nothing although the server does: make a new one. */
  renew() {
    this.#socket?.close();
  }

  /** Close without a new attempt. A browser complains on its console of a socket closed before it was open. */
  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    if (socket?.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket?.close();
  }

  #connect() {
    this.#timer = 0;
    const url = new URL("api/live", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.hash = "";
    this.#handlers.onState("connecting");
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#handlers.onState("open");
      this.#send({ type: "view", ...this.#view });
    };
    socket.onmessage = (message) => this.#receive(socket, message.data);
    socket.onclose = () => {
      if (socket === this.#socket) this.#lost();
    };
  }

  async #receive(socket, data) {
    if (typeof data === "string") {
      const said = JSON.parse(data);
      if (said.type === "error") this.#handlers.onRefused(said.message);
      return;
    }
    this.#attempt = 0;
    const { header, jpeg } = parseFrame(data);
    await this.#handlers.onFrame(header, jpeg);
    if (socket === this.#socket) this.#send({ type: "ready" });
  }

  #lost() {
    this.#socket = null;
    const wait = Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** this.#attempt++) * (0.8 + 0.4 * Math.random());
    this.#timer = setTimeout(() => this.#connect(), wait * 1000);
    this.#handlers.onState("lost", wait);
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}
