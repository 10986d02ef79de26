// The second view: choose, start, watch, stop.

import { ask, trouble } from "./api.js";
import { Chart } from "./chart.js";

const element = (id) => document.getElementById(id);
const BUSY = ["preparing", "training", "stopping"];

export class Training {
  constructor(page, adopted) {
    this.page = page;
    this.adopted = adopted; // called with the description of the network that draws from now on
    this.run = 0;
    this.points = [];
    this.before = []; // the curves of the run before, to compare with
    this.charts = [
      new Chart(element("chart-loss"), "Loss", ["loss", "val_loss"], true),
      new Chart(element("chart-accuracy"), "Accuracy", ["accuracy", "val_accuracy"], false),
    ];
    this.#fillForm();
    this.#listen();
  }

  #fillForm() {
    const { presets, backends, most_epochs } = this.page;
    const names = presets.map((preset) => new Option(`${preset.name}, ${preset.optimizer}`, preset.name));
    element("preset").replaceChildren(...names);
    element("preset").value = (presets[1] ?? presets[0]).name;
    const kinds = backends.map((backend) => {
      const option = new Option(backend.usable ? `${backend.name}: ${backend.device}` : `${backend.name}: cannot run here`, backend.name);
      option.disabled = !backend.usable;
      return option;
    });
    element("backend").replaceChildren(...kinds);
    // The fastest that can run is the last of the built-in ones that can.
    element("backend").value = ["cupy", "numba", "numpy"].find((name) => backends.some((one) => one.name === name && one.usable));
    element("backend-note").textContent = backends
      .filter((backend) => !backend.usable)
      .map((backend) => `${backend.name}: ${backend.reason}`)
      .join("; ");
    element("epochs").max = most_epochs;
    const preset = () => {
      const chosen = presets.find((one) => one.name === element("preset").value);
      element("rate").value = chosen.learning_rate;
      element("epochs").value = chosen.epochs;
    };
    preset();
    element("preset").addEventListener("change", preset);
    element("wish").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send("POST", "/api/training", {
        backend: element("backend").value,
        preset: element("preset").value,
        learning_rate: Number(element("rate").value),
        epochs: Number(element("epochs").value),
      });
    });
    element("stop").addEventListener("click", () => this.#send("DELETE", "/api/training"));
    element("adopt").addEventListener("click", async () => {
      const model = await this.#send("POST", "/api/model", {});
      if (!model) return;
      this.adopted(model);
      location.hash = "#draw";
    });
  }

  async #send(method, path, body) {
    try {
      const answer = await ask(path, method, body);
      trouble("");
      return answer;
    } catch (error) {
      trouble(error.message);
      return null;
    }
  }

  #listen() {
    const events = new EventSource("/api/training/events");
    events.onmessage = (event) => this.#hear(JSON.parse(event.data));
    events.onerror = () => trouble("The server does not answer. Start it again with nnbackend demo.");
    events.onopen = () => trouble("");
  }

  #hear(report) {
    if (report.run !== this.run) {
      if (this.points.length > 1) this.before = this.points;
      this.run = report.run;
      this.points = [];
    }
    this.points = [...this.points.slice(0, report.first), ...report.points];
    const busy = BUSY.includes(report.state);
    const last = this.points.at(-1);
    element("start").disabled = busy;
    element("stop").disabled = !busy || report.state === "stopping";
    element("adopt").hidden = busy || !last || report.state === "failed";
    element("progress").value = last ? Math.min(1, last.epoch / report.epochs) : 0;
    element("progress-text").textContent = saying(report, last);
    for (const chart of this.charts) chart.show(this.points, this.before, report.epochs ?? Number(element("epochs").value));
  }
}

function saying(report, last) {
  const far = last ? `epoch ${Number(last.epoch.toFixed(1))} of ${report.epochs}` : "";
  const found = last ? `${(100 * last.val_accuracy).toFixed(1)}\u00a0% of the test images right, after ${last.seconds.toFixed(1)} s of training` : "";
  switch (report.state) {
    case "idle": return "Nothing is being trained";
    case "preparing": return `Preparing: ${report.message} …`;
    case "training": return `On ${report.backend}, ${far}: ${found}`;
    case "stopping": return "Stopping …";
    case "finished": return `Done: ${found}`;
    case "stopped": return last ? `Stopped in ${far}: ${found}` : "Stopped before it began";
    default: return `Failed: ${report.message}`;
  }
}
