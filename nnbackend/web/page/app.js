// Entry point of the page: connects its two views to the server.

import { Answer } from "./answer.js";
import { ask, trouble } from "./api.js";
import { Pad } from "./pad.js";
import { Training } from "./training.js";

const element = (id) => document.getElementById(id);

function showView() {
  const name = location.hash === "#train" ? "train" : "draw";
  for (const view of ["draw", "train"]) element(`view-${view}`).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// While one request is being answered, keep only the latest of the others.
function latestOnly(answered) {
  let waiting = null;
  let busy = false;
  return async (question) => {
    waiting = question;
    if (busy) return;
    busy = true;
    while (waiting) {
      const next = waiting;
      waiting = null;
      try {
        const answer = await next.ask();
        trouble("");
        // Intermediate answers are shown while the pen is down, so that one sees the answer evolve.
        if (!waiting || !next.done) answered(answer, next);
      } catch (error) {
        trouble(error.message);
      }
    }
    busy = false;
  };
}

async function begin() {
  addEventListener("hashchange", showView);
  showView();
  const page = await ask("/api/page");
  const answer = new Answer(page.model);
  const inquire = latestOnly((reply, { done, image }) => {
    if (image) pad.show(reply.image);
    update();
    answer.show(reply, done);
  });
  const look = (strokes, done) => inquire({ ask: () => ask("/api/look", "POST", { strokes }), done });
  const pad = new Pad(element("pad"), (strokes, lifted) => {
    update();
    look(strokes, lifted);
  });
  function update() {
    element("pad").parentElement.classList.toggle("drawn", !pad.empty);
    element("undo").disabled = element("clear").disabled = pad.empty;
  }
  element("undo").addEventListener("click", () => pad.undo());
  element("clear").addEventListener("click", () => pad.clear());
  element("test-image").addEventListener("click", () => {
    const number = Math.floor(Math.random() * 1e6);
    inquire({ ask: () => ask(`/api/test-images/${number}`), done: true, image: true });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => pad.paint());
  new Training(page, (model) => {
    answer.describe(model);
    // Only drawings can be sent to the new network again, not a test image.
    if (pad.image) pad.clear();
    else look(pad.strokes, true);
  });
}

begin().catch((error) => trouble(error.message));
