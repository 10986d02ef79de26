// Curves over the epochs, drawn in SVG so that the style sheet sets their colours.

const ROOM = { left: 48, right: 14, top: 8, bottom: 22 };

// The ends of a logarithmic axis. Curves beyond them are clipped: a network that guesses has a loss of about 2.3.
const [LEAST, MOST] = [1e-5, 5000];

export class Chart {
  // names: the training metric and the test metric of a point; logarithmic: whether the vertical axis is.
  constructor(place, title, names, logarithmic) {
    Object.assign(this, { place, title, names, logarithmic });
    this.svg = make("svg", { "aria-hidden": "true" });
    place.append(this.svg);
    this.points = [];
    this.before = [];
    this.epochs = 1;
    new ResizeObserver(() => this.paint()).observe(place);
  }

  show(points, before, epochs) {
    Object.assign(this, { points, before, epochs });
    this.paint();
  }

  paint() {
    const width = this.place.clientWidth;
    const height = this.place.clientHeight;
    if (!width) return; // hidden
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const bottom = height - ROOM.bottom;
    const ticks = this.#ticks();
    const [low, high] = [this.#scaled(ticks[0]), this.#scaled(ticks.at(-1))];
    const most = Math.max(this.epochs, ...this.before.map((point) => point.epoch));
    const x = (epoch) => ROOM.left + (epoch / most) * (width - ROOM.left - ROOM.right);
    const y = (value) => bottom - ((this.#scaled(value) - low) / (high - low)) * (bottom - ROOM.top);
    const parts = [];
    for (const tick of ticks) {
      parts.push(make("line", { class: "grid", x1: ROOM.left, x2: width - ROOM.right, y1: y(tick), y2: y(tick) }));
      parts.push(make("text", { x: ROOM.left - 8, y: y(tick) + 4, "text-anchor": "end" }, this.#label(tick)));
    }
    for (const epoch of epochTicks(most, width)) {
      const text = epoch === 0 ? "epoch 0" : String(epoch);
      parts.push(make("text", { x: x(epoch), y: height - 4, "text-anchor": epoch === 0 ? "start" : "middle" }, text));
    }
    for (const [points, kind] of [[this.before, " before"], [this.points, ""]]) {
      this.names.forEach((name, place) => {
        const curve = place === 0 ? "train" : "test";
        const shown = points
          .map((point) => ({ epoch: point.epoch, value: this.#clipped(point[name]) }))
          .filter((point) => point.value !== undefined);
        if (!shown.length) return;
        const line = shown.map((point) => `${x(point.epoch).toFixed(1)} ${y(point.value).toFixed(1)}`).join("L");
        parts.push(make("path", { class: curve + kind, d: `M${line}` }));
        const last = shown.at(-1);
        if (!kind) parts.push(make("circle", { class: curve, cx: x(last.epoch), cy: y(last.value), r: 4 }));
      });
    }
    const trouble = this.#trouble();
    if (trouble) parts.push(make("text", { class: "trouble", x: ROOM.left + 10, y: ROOM.top + 22 }, trouble));
    this.svg.replaceChildren(...parts);
    this.place.setAttribute("aria-label", this.#spoken());
  }

  #scaled(value) {
    return this.logarithmic ? Math.log10(Math.max(value, LEAST)) : value;
  }

  // A value as far as the axis reaches; undefined if there is none to show. The server sends null for NaN and infinity.
  #clipped(value) {
    if (value === undefined) return undefined;
    if (!this.logarithmic) return Number.isFinite(value) ? value : undefined;
    return Number.isFinite(value) ? Math.min(value, MOST) : MOST;
  }

  // What to say if the curve leaves the axis, or "".
  #trouble() {
    if (!this.logarithmic) return "";
    const fits = (value) => value === undefined || (Number.isFinite(value) && value <= MOST);
    const isAbove = (point) => !this.names.every((name) => fits(point[name]));
    if (!this.points.some(isAbove)) return "";
    if (isAbove(this.points.at(-1))) return `The run diverged: ${this.title.toLowerCase()} above ${MOST.toLocaleString("en")}`;
    return `Clipped at ${MOST.toLocaleString("en")}`;
  }

  #values() {
    const all = [...this.points, ...this.before].flatMap((point) => this.names.map((name) => this.#clipped(point[name])));
    return all.filter((value) => value !== undefined);
  }

  // Round values that enclose all values.
  #ticks() {
    const values = this.#values();
    if (this.logarithmic) {
      const grid = [1, 2, 5].flatMap((step) => [-5, -4, -3, -2, -1, 0, 1, 2, 3].map((power) => step * 10 ** power));
      grid.sort((one, other) => one - other);
      const [least, greatest] = values.length ? [Math.min(...values), Math.max(...values)] : [0.06, 0.9];
      const begin = Math.min(Math.max(0, grid.findLastIndex((tick) => tick <= least)), grid.length - 2);
      const end = Math.max(begin + 1, grid.findIndex((tick) => tick >= greatest));
      return thin(grid.slice(begin, end + 1));
    }
    const least = values.length ? Math.min(...values) : 0;
    const step = [0.01, 0.02, 0.05, 0.1].find((size) => (1 - least) / size <= 5) ?? 0.2;
    const ticks = [];
    for (let tick = Math.floor(least / step + 1e-9); tick <= Math.round(1 / step); tick++) ticks.push(tick * step);
    return ticks.length > 1 ? ticks : [1 - step, 1];
  }

  #label(value) {
    return this.logarithmic ? String(Number(value.toPrecision(1))) : `${Math.round(100 * value)} %`;
  }

  #spoken() {
    const last = this.points.at(-1);
    if (!last) return `${this.title}: no curve yet`;
    const format = (value) => (this.logarithmic ? value.toFixed(3) : `${(100 * value).toFixed(1)} %`);
    const [train, test] = this.names.map((name) => (Number.isFinite(last[name]) ? format(last[name]) : "unknown"));
    const trouble = this.#trouble();
    const text = `${this.title} after ${last.epoch.toFixed(1)} epochs: ${train} in training, ${test} on the test images`;
    return trouble ? `${text}. ${trouble}` : text;
  }
}

// At most six labels, including the first and the last.
function thin(ticks) {
  const every = Math.ceil((ticks.length - 1) / 5);
  return ticks.filter((_, place) => place % every === 0 || place === ticks.length - 1);
}

function epochTicks(most, width) {
  const step = [1, 2, 5, 10, 20, 50].find((size) => (most / size) * 60 < width) ?? 100;
  return Array.from({ length: Math.floor(most / step + 1e-9) + 1 }, (_, place) => place * step);
}

function make(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}
