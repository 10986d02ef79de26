// Shows what a convolution makes of the image: its feature maps and kernels. Their opacity is the value relative to the
// largest of the layer; negative values use the second colour.

import { colour, layerFigure, part, picture } from "./drawing.js";

const MAP = 56; // preferred side of a feature map on the screen
const KERNEL = 30;
const GAP = 5;

export class FeatureMaps {
  // `maps`: "shape" [height, width, maps], the number of maps that are "shown", and "kernels": null, or their "shape"
  // [filters, channels, height, width], "levels", and "of", the numbers of filters and channels including those not shown.
  constructor(title, name, maps) {
    [this.figure, this.canvas] = layerFigure(title, name, "maps");
    this.maps = maps;
    this.chosen = 0;
    const [height, width, count] = maps.shape;
    this.title = `${title}: ${counted(maps.shown, count)} feature maps of ${height} by ${width}`;
    if (maps.kernels) this.#addKernels(title);
  }

  #addKernels(title) {
    const [filters, channels, height, width] = this.maps.kernels.shape;
    this.kernelTitle = `kernels of ${height} by ${width}`;
    this.levels = decoded(this.maps.kernels.levels);
    const row = part("kernels");
    this.kernels = picture();
    if (channels > 1) {
      this.slider = part("", "", "input");
      Object.assign(this.slider, { type: "range", min: 1, max: filters, step: 1, value: 1 });
      this.slider.setAttribute("aria-label", `${title}: filter whose kernels are shown`);
      this.slider.addEventListener("input", () => this.#choose(this.slider.valueAsNumber - 1));
      this.canvas.classList.add("choice");
      this.canvas.addEventListener("click", (event) => this.#choose(this.#mapAt(event)));
    }
    this.note = part("note");
    row.append(this.note, ...(this.slider ? [this.slider] : []), this.kernels);
    this.figure.append(row);
  }

  #choose(place) {
    if (!(place >= 0 && place < this.maps.kernels.shape[0])) return;
    this.chosen = place;
    this.slider.value = place + 1;
    this.paint(this.last);
  }

  #mapAt(event) {
    const { columns, width, height } = this.grid;
    const column = Math.floor(event.offsetX / (width + GAP));
    return column < columns ? Math.floor(event.offsetY / (height + GAP)) * columns + column : -1;
  }

  paint(text) {
    this.last = text;
    const [height, width] = this.maps.shape;
    const values = text ? decoded(text) : null;
    this.grid = paintTiles(this.canvas, values, this.maps.shown, height, width, MAP, this.slider ? this.chosen : -1);
    const active = values ? activeTiles(values, this.maps.shown, height * width) : 0;
    this.canvas.setAttribute("aria-label", `${this.title}, ${active} active`);
    if (this.kernels) this.#paintKernels();
  }

  #paintKernels() {
    const [filters, channels, height, width] = this.maps.kernels.shape;
    const size = height * width;
    // A filter of an image with one channel has one kernel: show those of all filters, in the order of the maps.
    const count = channels > 1 ? channels : filters;
    const first = channels > 1 ? this.chosen * channels * size : 0;
    paintTiles(this.kernels, this.levels.subarray(first, first + count * size), count, height, width, KERNEL, -1);
    const [allFilters, allChannels] = this.maps.kernels.of;
    const text = channels > 1
      ? `Filter ${this.chosen + 1} of ${allFilters}: ${counted(channels, allChannels)} ${this.kernelTitle}, one for each channel of its input`
      : `${counted(filters, allFilters)} ${this.kernelTitle}, one for each map`;
    this.note.textContent = text;
    this.kernels.setAttribute("aria-label", text);
  }
}

function counted(shown, all) {
  return shown < all ? `the first ${shown} of ${all}` : `${all}`;
}

function decoded(text) {
  return new Int8Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function activeTiles(values, count, size) {
  let active = 0;
  for (let tile = 0; tile < count; tile++) if (values.subarray(tile * size, (tile + 1) * size).some((value) => value > 1)) active++;
  return active;
}

// Images side by side, as many in a row as fit; sets the height of the canvas. Returns the columns and the size of a tile.
function paintTiles(canvas, values, count, rows, columns, preferred, marked) {
  const room = Math.max(1, canvas.clientWidth);
  const most = Math.max(1, Math.min(count, Math.floor((room + GAP) / (preferred + GAP))));
  const down = Math.ceil(count / most);
  const across = Math.ceil(count / down); // rows of equal length
  const width = Math.min((room - GAP * (across - 1)) / across, 1.6 * preferred);
  const height = (width * rows) / columns;
  canvas.style.height = `${down * (height + GAP) - GAP}px`;
  canvas.width = Math.round(room * devicePixelRatio);
  canvas.height = Math.round((down * (height + GAP) - GAP) * devicePixelRatio);
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.imageSmoothingEnabled = false;
  const small = new OffscreenCanvas(columns, rows);
  const colours = [rgb("--first"), rgb("--second")];
  for (let tile = 0; tile < count; tile++) {
    const box = [(tile % across) * (width + GAP), Math.floor(tile / across) * (height + GAP), width, height];
    context.fillStyle = colour("--cell");
    context.fillRect(...box);
    if (values) {
      const size = rows * columns;
      small.getContext("2d").putImageData(coloured(values.subarray(tile * size, (tile + 1) * size), columns, colours), 0, 0);
      context.drawImage(small, ...box);
    }
    if (tile === marked) {
      context.strokeStyle = colour("--ink");
      context.lineWidth = 2;
      context.strokeRect(box[0] + 1, box[1] + 1, width - 2, height - 2);
    }
  }
  return { columns: across, width, height };
}

function coloured(levels, columns, [first, second]) {
  const image = new ImageData(columns, levels.length / columns);
  levels.forEach((level, place) => image.data.set([...(level < 0 ? second : first), 2 * Math.abs(level)], 4 * place));
  return image;
}

// A colour of the style sheet, "#rrggbb", as three numbers.
function rgb(name) {
  const text = colour(name).trim();
  return [1, 3, 5].map((place) => parseInt(text.slice(place, place + 2), 16));
}
