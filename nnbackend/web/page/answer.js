// Shows the network's answer for an image: the class, a bar for every class, and for every hidden layer its feature maps
// or a grid of cells.

import { colour, layerFigure, part } from "./drawing.js";
import { FeatureMaps } from "./maps.js";

const element = (id) => document.getElementById(id);

export class Answer {
  constructor(model) {
    this.last = null;
    this.describe(model);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
    new ResizeObserver(() => this.#paint()).observe(element("layers"));
  }

  describe(model) {
    this.model = model;
    element("model-text").textContent =
      `${model.network}, ${model.parameters.toLocaleString("en")} parameters, ${model.backend}; ${model.source}`;
    this.rows = model.classes.map((name) => {
      const row = document.createElement("li");
      row.append(part("name", name), part("track"), part("value", "–"));
      row.children[1].append(part("bar"));
      return row;
    });
    element("bars").replaceChildren(...this.rows);
    this.layers = [
      new InputImage(),
      ...model.hidden.map((name, place) => {
        const title = `Layer ${place + 1}`;
        return model.maps[place] ? new FeatureMaps(title, name, model.maps[place]) : new Cells(title, name, place + 1);
      }),
    ];
    element("layers").classList.toggle("deep", model.maps.some(Boolean));
    element("layers").replaceChildren(...this.layers.map((layer) => layer.figure));
    this.last = null;
    this.#paint();
  }

  // Show an answer of the server. When `done`, the pen was lifted and screen readers announce the answer.
  show(answer, done) {
    this.last = answer;
    const outputs = answer.outputs;
    const best = outputs ? outputs.indexOf(Math.max(...outputs)) : -1;
    const text = outputs ? this.#verdict(outputs, best, answer.label) : "Nothing drawn yet";
    const digit = element("answer");
    digit.textContent = outputs ? this.model.classes[best] : "?";
    digit.classList.toggle("word", digit.textContent.length > 2);
    digit.parentElement.classList.toggle("unsure", !outputs || outputs[best] < 0.5);
    element("answer-text").textContent = text;
    if (done) element("spoken").textContent = outputs ? `${this.model.classes[best]}. ${text}` : text;
    this.rows.forEach((row, place) => {
      const value = outputs ? outputs[place] : 0;
      row.classList.toggle("best", place === best);
      row.querySelector(".bar").style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
      row.querySelector(".value").textContent = outputs ? this.#format(value) : "–";
    });
    this.#paint();
  }

  #format(value) {
    if (!this.model.probabilities) return value.toFixed(3);
    // Never round up to 100 %.
    return value > 0.9995 ? "> 99.9\u00a0%" : `${(100 * value).toFixed(1)}\u00a0%`;
  }

  #verdict(outputs, best, label) {
    const sure = outputs[best] >= 0.9 ? "Quite sure" : outputs[best] >= 0.5 ? "Probably" : "Not sure";
    const truth = label === undefined ? "" : label === this.model.classes[best] ? ", correct" : `; correct is ${label}`;
    return `${sure}: ${this.#format(outputs[best])}${truth}`;
  }

  #paint() {
    this.layers.forEach((layer, place) => layer.paint(place === 0 ? this.last?.image : this.last?.hidden[place - 1]));
  }
}

// The image that the network receives.
class InputImage {
  constructor() {
    [this.figure, this.canvas] = layerFigure("Input image", "", "image");
    this.canvas.setAttribute("aria-label", "The drawing as an image of 28 by 28 pixels");
  }

  paint(image) {
    this.canvas.width = this.canvas.height = 28;
    const context = this.canvas.getContext("2d");
    context.fillStyle = colour("--ink");
    (image ?? []).forEach((value, place) => {
      context.globalAlpha = value / 255;
      context.fillRect(place % 28, Math.floor(place / 28), 1, 1);
    });
  }
}

// One cell per unit. Its opacity is its activation relative to the layer's largest; negative ones use the second colour.
class Cells {
  constructor(title, name, number) {
    [this.figure, this.canvas] = layerFigure(title, name, "cells");
    this.units = parseInt(name);
    this.number = number;
  }

  paint(values) {
    const { canvas, units } = this;
    const width = (canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio)));
    const height = (canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio)));
    const context = canvas.getContext("2d");
    const columns = Math.ceil(Math.sqrt((units * width) / height));
    const rows = Math.ceil(units / columns);
    const size = Math.min(width / columns, height / rows);
    const gap = size > 6 ? size * 0.14 : 0;
    const most = Math.max(1e-9, ...(values ?? []).map(Math.abs));
    const [empty, first, second] = [colour("--cell"), colour("--first"), colour("--second")];
    for (let unit = 0; unit < units; unit++) {
      const value = (values?.[unit] ?? 0) / most;
      const box = [(unit % columns) * size, Math.floor(unit / columns) * size, size - gap, size - gap, size * 0.18];
      for (const [fill, alpha] of [[empty, 1], [value < 0 ? second : first, Math.abs(value)]]) {
        context.globalAlpha = alpha;
        context.fillStyle = fill;
        context.beginPath();
        context.roundRect(...box);
        context.fill();
      }
    }
    const active = (values ?? []).filter((value) => value > 0.01 * most).length;
    canvas.setAttribute("aria-label", `Hidden layer ${this.number}: ${active} of ${units} units active`);
  }
}
