// The picture: frames drawn on a canvas, with its caption, and a copy of it for whoever saves it.

/** A frame's canvas and the class that its map is of. */
export class Picture {
  #canvas = document.getElementById("picture");
  #context = this.#canvas.getContext("2d", { alpha: false });
  #stage = document.getElementById("stage");
  #caption = document.getElementById("caption");
  #described = -Infinity;

  /** How many device pixels wide a picture can be of use here. */
  get usefulWidth() {
    const wide = Math.ceil(this.#stage.clientWidth * Math.min(devicePixelRatio, 2));
    return Math.min(1920, Math.max(320, Math.ceil(wide / 160) * 160));
  }

  onResize(changed) {
    new ResizeObserver(changed).observe(this.#stage);
  }

  /**
   * @param wanted whether the frame is still to be shown, once its picture is decoded
   * @returns whether it was drawn
   */
  async draw(header, jpeg, wanted) {
    const bitmap = await createImageBitmap(jpeg);
    if (!wanted()) {
      bitmap.close();
      return false;
    }
    if (this.#canvas.width !== bitmap.width || this.#canvas.height !== bitmap.height) {
      this.#canvas.width = bitmap.width;
      this.#canvas.height = bitmap.height;
    }
    this.#context.drawImage(bitmap, 0, 0);
    bitmap.close();
    document.getElementById("waiting").hidden = true;
    Object.assign(this.#canvas.dataset, { number: header.number, source: header.source, class: header.class?.index ?? "" });
    this.#describe(header);
    return true;
  }

  /** @param shown the class that the picture is about; null where the scene is quiet */
  caption(shown) {
    this.#caption.hidden = !shown;
    if (!shown) return;
    document.getElementById("caption-label").textContent = shown.label;
    document.getElementById("caption-score").textContent = percent(shown.score);
  }

  /** No picture, until the next one is drawn. */
  clear() {
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    for (const name of ["number", "source", "class"]) delete this.#canvas.dataset[name];
    this.#canvas.setAttribute("aria-label", "Live picture: none yet");
    this.#described = -Infinity;
    this.caption(null);
    document.getElementById("waiting").hidden = false;
  }

  /** The picture as it stands, as a file of this type. */
  copy(type) {
    return new Promise((done) => this.#canvas.toBlob(done, type, 0.92));
  }

  #describe({ source, class: shown, map, boxes }) {
    const now = performance.now();
    if (now - this.#described < 2000) return; // a label that changes with every frame helps nobody
    this.#described = now;
    const over = shown && map ? `, with the map of ${shown.label}` : "";
    const around = boxes?.length ? ` and ${boxes.length} ${boxes.length === 1 ? "box" : "boxes"}` : "";
    this.#canvas.setAttribute("aria-label", `Live picture of ${source}${over}${around}`);
  }
}

/** 0.873 -> "87 %"; what is under a tenth has one more digit. */
export function percent(share) {
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
