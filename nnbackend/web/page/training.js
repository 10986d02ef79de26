// The view "Train": choose settings, start, watch and stop a training.

import { ask, trouble } from "./api.js";
import { Chart } from "./chart.js";

const element = (id) => document.getElementById(id);
const BUSY = ["preparing", "training", "stopping"];

export class Training {
  constructor(page, adopted) {
    this.page = page;
    this.adopted = adopted; // called with the description of the network that reads drawings from now on
    this.run = 0;
    this.points = [];
    this.before = []; // the curves of the previous run, for comparison
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
    // Choose the fastest usable built-in backend.
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
    element("settings").addEventListener("submit", (event) => {
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
    events.onerror = () => trouble("The server is not responding. Restart it with nnbackend demo.");
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
    element("progress").dataset.run = report.run;
    element("progress").value = last ? Math.min(1, last.epoch / report.epochs) : 0;
    element("progress-text").textContent = progressText(report, last);
    for (const chart of this.charts) chart.show(this.points, this.before, report.epochs ?? Number(element("epochs").value));
  }
}

function progressText(report, last) {
  const epoch = last ? `epoch ${Number(last.epoch.toFixed(1))} of ${report.epochs}` : "";
  const result = last ? `test accuracy ${(100 * (last.val_accuracy ?? NaN)).toFixed(1)}\u00a0% after ${last.seconds.toFixed(1)} s of training` : "";
  switch (report.state) {
    case "idle": return "No training yet";
    case "preparing": return `Preparing: ${report.message} …`;
    case "training": return `On ${report.backend}, ${epoch}: ${result}`;
    case "stopping": return "Stopping …";
    case "finished": return `Done: ${result}`;
    case "stopped": return last ? `Stopped in ${epoch}: ${result}` : "Stopped before the first step";
    default: return `Failed: ${report.message}`;
  }
}
