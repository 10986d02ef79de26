// The drawing pad: strokes by mouse, finger, pen or keyboard. Coordinates are shares of its side; the server converts
// them to an image.

const PEN = 0.075; // thickness of the pen on the screen
const STEP = 1 / 28; // distance per press of an arrow key
const NEAR = 0.004; // points closer than this to the last one are skipped
const MOST = 9000; // most points; the server accepts 10,000

export class Pad {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed; // called with (strokes, whether the pen was lifted)
    this.strokes = [];
    this.image = null; // pixels of a test image, shown instead of strokes
    this.cursor = null; // position of the keyboard's pen
    this.lowered = false;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#up(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#leave());
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  clear() {
    this.#reset();
    this.#tell(true);
  }

  undo() {
    if (this.image) return this.clear();
    this.lowered = false;
    this.strokes.pop();
    this.#tell(true);
  }

  show(image) {
    this.#reset();
    this.image = image;
    this.paint();
  }

  get empty() {
    return !this.strokes.length && !this.image;
  }

  paint() {
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    const style = getComputedStyle(this.canvas);
    context.strokeStyle = context.fillStyle = style.getPropertyValue("--ink");
    if (this.image) {
      const cell = side / 28;
      this.image.forEach((value, place) => {
        context.globalAlpha = value / 255;
        context.fillRect((place % 28) * cell, Math.floor(place / 28) * cell, cell + 0.5, cell + 0.5);
      });
      context.globalAlpha = 1;
    }
    context.lineWidth = PEN * side;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(stroke[0][0] * side, stroke[0][1] * side);
      for (const [x, y] of stroke) context.lineTo(x * side, y * side);
      context.stroke();
    }
    if (this.cursor) {
      context.strokeStyle = style.getPropertyValue("--first");
      context.lineWidth = Math.max(2, side / 150);
      context.beginPath();
      context.arc(this.cursor[0] * side, this.cursor[1] * side, (PEN / 2) * side * (this.lowered ? 0.7 : 1.2), 0, 7);
      context.stroke();
    }
  }

  #reset() {
    this.strokes = [];
    this.image = null;
    this.lowered = false;
  }

  #tell(lifted) {
    this.paint();
    this.changed(this.strokes, lifted);
  }

  #begin(point) {
    if (this.image) this.#reset();
    this.strokes.push([point]);
  }

  #add(point) {
    const stroke = this.strokes.at(-1);
    const [x, y] = stroke.at(-1);
    if (Math.hypot(point[0] - x, point[1] - y) < NEAR) return;
    if (this.strokes.reduce((sum, other) => sum + other.length, 0) < MOST) stroke.push(point);
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = (value) => Math.round(1e4 * Math.min(1, Math.max(0, value))) / 1e4;
    return [share((event.clientX - box.left) / box.width), share((event.clientY - box.top) / box.height)];
  }

  #down(event) {
    if (event.button !== 0 || this.pointer !== undefined) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    this.lowered = false;
    this.#begin(this.#point(event));
    this.#tell(false);
  }

  #move(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) this.#add(this.#point(each));
    this.#tell(false);
  }

  #up(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = undefined;
    this.#tell(true);
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (this.pointer !== undefined) return;
    if (move) this.#step(move);
    else if (event.key === " ") this.#toggle();
    else if (event.key === "Escape" || event.key === "Delete") this.clear();
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else return;
    event.preventDefault();
  }

  #step([x, y]) {
    const clamp = (value) => Math.min(1, Math.max(0, value));
    const [left, top] = this.cursor ?? [0.5, 0.25];
    this.cursor = [clamp(left + x * STEP), clamp(top + y * STEP)];
    if (this.lowered) {
      this.#add(this.cursor);
      this.#tell(false);
    } else this.paint();
  }

  #toggle() {
    this.cursor ??= [0.5, 0.25];
    this.lowered = !this.lowered;
    if (this.lowered) this.#begin(this.cursor);
    this.#tell(!this.lowered);
  }

  #leave() {
    if (!this.cursor) return;
    this.cursor = null;
    this.lowered = false;
    this.paint();
  }
}
