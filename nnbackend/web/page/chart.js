// Curves over the epochs, drawn in SVG so that the style sheet sets their colours.

const ROOM = { left: 48, right: 14, top: 8, bottom: 22 };

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
        const shown = points.filter((point) => point[name] !== undefined);
        if (!shown.length) return;
        const line = shown.map((point) => `${x(point.epoch).toFixed(1)} ${y(point[name]).toFixed(1)}`).join("L");
        parts.push(make("path", { class: curve + kind, d: `M${line}` }));
        const last = shown.at(-1);
        if (!kind) parts.push(make("circle", { class: curve, cx: x(last.epoch), cy: y(last[name]), r: 4 }));
      });
    }
    this.svg.replaceChildren(...parts);
    this.place.setAttribute("aria-label", this.#spoken());
  }

  #scaled(value) {
    return this.logarithmic ? Math.log10(Math.max(value, 1e-6)) : value;
  }

  #values() {
    const all = [...this.points, ...this.before].flatMap((point) => this.names.map((name) => point[name]));
    return all.filter((value) => Number.isFinite(value));
  }

  // Round values that enclose all values.
  #ticks() {
    const values = this.#values();
    if (this.logarithmic) {
      const grid = [1, 2, 5].flatMap((step) => [-5, -4, -3, -2, -1, 0, 1, 2, 3].map((power) => step * 10 ** power));
      grid.sort((one, other) => one - other);
      const [least, greatest] = values.length ? [Math.min(...values), Math.max(...values)] : [0.06, 0.9];
      const begin = Math.max(0, grid.findLastIndex((tick) => tick <= least));
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
    const [train, test] = this.names.map((name) => (last[name] === undefined ? "unknown" : format(last[name])));
    return `${this.title} after ${last.epoch.toFixed(1)} epochs: ${train} in training, ${test} on the test images`;
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
