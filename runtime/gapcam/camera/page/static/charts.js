// The charts of the last two minutes: frame age, and what a frame goes through stage by stage.

const SPANS_S = [10, 20, 30, 60, 90, 120];
const KEPT_S = SPANS_S.at(-1);
const ENOUGH = 100; // frames for a 99th percentile that is more than the greatest of a few
const ROW_S = 10;
const ROUND_TOPS = [5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000, 30000, 60000];

const element = (id) => document.getElementById(id);

/** The value below which this share of the sorted values lies, as numpy's "linear" method has it. */
export function percentile(sorted, share) {
  if (!sorted.length) return NaN;
  const at = (sorted.length - 1) * share;
  const below = Math.floor(at);
  return sorted[below] + (sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]) * (at - below);
}

const ascending = (values) => Float64Array.from(values).sort();
const ms = (value) => (Number.isNaN(value) ? "–" : `${value.toFixed(value < 10 ? 1 : 0)} ms`);
const bare = (value) => (Number.isNaN(value) ? "–" : value.toFixed(1));
const p99Of = (sorted) => (sorted.length < ENOUGH ? NaN : percentile(sorted, 0.99));
/** Up to where a scale goes: a few slow frames, such as the first ones, do not flatten all others. */
const mostOf = (sorted) => (percentile(sorted, sorted.length < ENOUGH ? 0.9 : 0.99) || 1) * 1.15;

/** A canvas that is as sharp as the screen, with a time axis of what was seen and a scale in milliseconds. */
class Plot {
  constructor(id) {
    this.canvas = element(id);
    this.context = this.canvas.getContext("2d");
  }

  /**
   * Clears it and draws the axes.
   * @param greatest milliseconds that are to fit; what is more ends at the upper edge
   * @param span seconds
   */
  begin(greatest, span) {
    const { canvas, context } = this;
    const width = canvas.clientWidth, height = canvas.clientHeight, ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    this.color = (name) => style.getPropertyValue(name).trim();
    context.font = `11px ${style.fontFamily}`;
    const left = 34, right = width - 6, top = 8, bottom = height - 18;
    const scale = ROUND_TOPS.find((round) => round >= greatest) ?? greatest;
    this.x = (ago) => Math.max(left, right - (ago / span) * (right - left));
    this.y = (value) => bottom - (Math.min(value, scale) / scale) * (bottom - top);
    Object.assign(this, { left, right });
    context.fillStyle = this.color("--muted");
    context.strokeStyle = this.color("--line");
    context.lineWidth = 1;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const share of [0, 0.5, 1]) {
      const y = Math.round(this.y(scale * share)) + 0.5;
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(right, y);
      context.stroke();
      context.fillText(String(scale * share), left - 6, y);
    }
    context.textBaseline = "alphabetic";
    context.fillText("now", right, height - 4);
    context.textAlign = "center";
    context.fillText(ago(span / 2), this.x(span / 2), height - 4);
    context.textAlign = "left";
    context.fillText(`${ago(span)} ago`, left, height - 4);
  }

  /** Between two rows of points [seconds ago, low, high], broken where there are none. */
  area(points, color, opacity) {
    const { context } = this;
    context.fillStyle = color;
    context.globalAlpha = opacity;
    for (const run of runs(points)) {
      context.beginPath();
      run.forEach(([ago, , high]) => context.lineTo(this.x(ago), this.y(high)));
      run.toReversed().forEach(([ago, low]) => context.lineTo(this.x(ago), this.y(low)));
      context.fill();
    }
    context.globalAlpha = 1;
  }

  line(points, color) {
    const { context } = this;
    context.strokeStyle = color;
    context.lineWidth = 1.75;
    context.lineJoin = "round";
    for (const run of runs(points)) {
      context.beginPath();
      run.forEach(([ago, value]) => context.lineTo(this.x(ago), this.y(value)));
      context.stroke();
    }
  }

  /** A dashed level with its name. */
  level(value, name) {
    const { context } = this, y = Math.round(this.y(value)) + 0.5;
    context.strokeStyle = context.fillStyle = this.color("--ink");
    context.lineWidth = 1;
    context.setLineDash([3, 4]);
    context.globalAlpha = 0.7;
    context.beginPath();
    context.moveTo(this.left, y);
    context.lineTo(this.right, y);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
    context.textAlign = "left";
    context.fillText(name, this.left + 4, y < 20 ? y + 11 : y - 4);
  }
}

function ago(seconds) {
  return seconds < 60 ? `${seconds} s` : `${seconds / 60} min`;
}

/** Points in runs without a gap of more than three seconds; a lone point has a second's width. */
function runs(points) {
  const found = [];
  for (const point of points) {
    const run = found.at(-1);
    if (run && run.at(-1)[0] - point[0] <= 3) run.push(point);
    else found.push([point]);
  }
  return found.map((run) => (run.length > 1 ? run : [run[0], [run[0][0] - 1, ...run[0].slice(1)]]));
}

/** Keeps what frames say of themselves, and draws it once a second. */
export class Charts {
  #age = new Plot("age-chart");
  #stages = new Plot("stage-chart");
  #frames = [];

  constructor() {
    const resized = new ResizeObserver(() => this.draw());
    for (const { canvas } of [this.#age, this.#stages]) resized.observe(canvas);
  }

  add({ age_ms: age, timings_ms: timings }) {
    this.#frames.push({ at: performance.now() / 1000, age, stages: Object.entries(timings) });
  }

  /** Another camera's figures say nothing of this one. */
  clear() {
    this.#frames = [];
  }

  draw() {
    const now = performance.now() / 1000;
    while (this.#frames.length && this.#frames[0].at < now - KEPT_S) this.#frames.shift();
    if (document.hidden) return;
    const seconds = this.#bins(now, 1);
    const seen = this.#frames.length ? now - this.#frames[0].at : 0;
    const span = SPANS_S.find((one) => one >= seen) ?? KEPT_S;
    this.#drawAge(now, seconds, span);
    this.#drawStages(seconds, span);
  }

  /** The frames by how many times `length` seconds ago they came, oldest first. */
  #bins(now, length) {
    const bins = new Map();
    for (const frame of this.#frames) {
      const bin = Math.floor((now - frame.at) / length);
      if (!bins.has(bin)) bins.set(bin, []);
      bins.get(bin).push(frame);
    }
    return [...bins];
  }

  #drawAge(now, seconds, span) {
    const ages = ascending(this.#frames.map(({ age }) => age));
    const p50 = percentile(ages, 0.5), p99 = p99Of(ages), greatest = ages.at(-1) ?? NaN;
    element("age-p50").textContent = ms(p50);
    element("age-p99").textContent = ms(p99);
    element("age-max").textContent = ms(greatest);
    this.#age.canvas.setAttribute("aria-label", `Frame age over the last ${ago(span)}: p50 ${ms(p50)}, p99 ${ms(p99)}, greatest ${ms(greatest)}`);
    const plot = this.#age;
    plot.begin(mostOf(ages), span);
    const sorted = seconds.map(([ago, frames]) => [ago, ascending(frames.map(({ age }) => age))]);
    plot.area(sorted.map(([ago, values]) => [ago, values[0], values.at(-1)]), plot.color("--s1"), 0.22);
    plot.line(sorted.map(([ago, values]) => [ago, percentile(values, 0.5)]), plot.color("--s1"));
    if (ages.length) {
      if (!Number.isNaN(p99)) plot.level(p99, "p99");
      if (!(plot.y(p50) - plot.y(p99) <= 14)) plot.level(p50, "p50");
    }
    if (element("age-details").open) this.#fillAges(now);
  }

  #fillAges(now) {
    const rows = this.#bins(now, ROW_S).reverse().map(([bin, frames]) => {
      const values = ascending(frames.map(({ age }) => age));
      return [`${bin * ROW_S} to ${(bin + 1) * ROW_S}`, bare(percentile(values, 0.5)), bare(values.at(-1))];
    });
    fillTable(element("age-rows"), rows);
  }

  #drawStages(seconds, span) {
    const names = [...new Set(this.#frames.flatMap(({ stages }) => stages.map(([name]) => name)))];
    const totals = ascending(this.#frames.map(({ stages }) => stages.reduce((sum, [, value]) => sum + value, 0)));
    element("total-p50").textContent = ms(percentile(totals, 0.5));
    element("total-p99").textContent = ms(p99Of(totals));
    const means = seconds.map(([ago, frames]) => {
      const sums = new Map();
      for (const { stages } of frames) for (const [name, value] of stages) sums.set(name, (sums.get(name) ?? 0) + value / frames.length);
      return [ago, sums];
    });
    const plot = this.#stages;
    plot.begin(mostOf(totals), span);
    const floor = new Map(means.map(([ago]) => [ago, 0]));
    names.forEach((name, place) => {
      const layer = means.map(([ago, sums]) => {
        const low = floor.get(ago), high = low + (sums.get(name) ?? 0);
        floor.set(ago, high);
        return [ago, low, high];
      });
      plot.area(layer, plot.color(`--s${(place % 7) + 1}`), 0.85);
    });
    const rows = names.map((name) => {
      const values = ascending(this.#frames.flatMap(({ stages }) => stages.filter(([own]) => own === name).map(([, value]) => value)));
      return [name, bare(percentile(values, 0.5)), bare(p99Of(values))];
    });
    fillTable(element("stage-rows"), rows, (head, place) => {
      const key = document.createElement("span");
      key.className = "key";
      key.style.backgroundColor = `var(--s${(place % 7) + 1})`;
      head.prepend(key);
    });
  }
}

/** Rows of texts, the first one each row's head; only what changed is written, so that a reader keeps their place. */
export function fillTable(body, rows, decorate = () => {}) {
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  rows.forEach((texts, place) => {
    let row = body.rows[place];
    if (!row || row.cells[0].textContent !== texts[0]) {
      const fresh = document.createElement("tr");
      texts.forEach((_, column) => fresh.append(document.createElement(column ? "td" : "th")));
      fresh.cells[0].scope = "row";
      fresh.cells[0].textContent = texts[0];
      decorate(fresh.cells[0], place);
      if (row) row.replaceWith(fresh);
      else body.append(fresh);
      row = fresh;
    }
    texts.slice(1).forEach((text, column) => {
      if (row.cells[column + 1].textContent !== text) row.cells[column + 1].textContent = text;
    });
  });
}
