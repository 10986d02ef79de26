// What the pictures of all layers have in common: elements, captions, colours.

export function part(kind, text = "", tag = "div") {
  const made = document.createElement(tag);
  made.className = kind;
  made.textContent = text;
  return made;
}

export function picture() {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  return canvas;
}

// A figure with a caption, and its canvas.
export function layerFigure(title, note, kind) {
  const figure = part(kind, "", "figure");
  const caption = document.createElement("figcaption");
  caption.append(title, part("", note, "span"));
  const canvas = picture();
  figure.append(caption, canvas);
  return [figure, canvas];
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name);
}
