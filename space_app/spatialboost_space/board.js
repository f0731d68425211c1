// Images that take points (click, or arrow keys and Enter) and regions (drag, or R at two corners).
const board = element.querySelector(".board");
const NS = "http://www.w3.org/2000/svg";
const say = document.createElement("p");
say.className = "help";
say.setAttribute("role", "status");
const strip = document.createElement("div");
strip.className = "strip";
board.append(strip, say);
let drag = null, cursor = null, corner = null;

const clamp = value => Math.min(1, Math.max(0, value));
const short = value => value.toFixed(3);
const centre = (value, pixels) => (Math.min(pixels - 1, Math.floor(value * pixels)) + 0.5) / pixels;
const marks = () => Array.isArray(props.value) ? props.value : [];

function shape(name, kind, attributes, parent) {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.setAttribute("class", kind);
  parent.append(node);
}

function drawMark(figure, mark, kind) {
  const svg = figure.querySelector("svg");
  const wide = figure.querySelector("img").clientWidth || 300, high = figure.querySelector("img").clientHeight || 200;
  const x = mark.x * wide, y = mark.y * high;
  if (mark.x1 == null) {
    shape("circle", "halo", {cx: x, cy: y, r: 6}, svg);
    shape("circle", "point " + kind, {cx: x, cy: y, r: 6}, svg);
  } else {
    const box = {x: Math.min(x, mark.x1 * wide), y: Math.min(y, mark.y1 * high),
                 width: Math.abs(mark.x1 * wide - x), height: Math.abs(mark.y1 * high - y)};
    shape("rect", "region " + kind, box, svg);
  }
  if (mark.label) {
    const tag = document.createElement("span");
    tag.className = "tag " + kind;
    tag.textContent = mark.label;  // never as markup
    const left = Math.min(mark.x, mark.x1 ?? 1), right = Math.max(mark.x, mark.x1 ?? 0);
    if (left > 0.6) tag.style.right = 100 * (1 - right) + "%";  // or it would leave the image
    else tag.style.left = 100 * left + "%";
    tag.style.top = 100 * Math.max(0.06, Math.min(mark.y, mark.y1 ?? 1)) + "%";
    figure.append(tag);
  }
}

function labelled(list) {  // regions are A, B, ... in their order
  let next = 0;
  return list.map(mark => mark.x1 == null ? mark : {...mark, label: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[next++ % 26]});
}

function draw() {
  for (const [number, figure] of [...strip.children].entries()) {
    figure.querySelectorAll(".tag").forEach(tag => tag.remove());
    const svg = figure.querySelector("svg");
    svg.replaceChildren();
    (props.spoken || []).filter(mark => mark.image === number).forEach(mark => drawMark(figure, mark, "spoken"));
    labelled(marks()).filter(mark => mark.image === number).forEach(mark => drawMark(figure, mark, ""));
    if (drag && drag.image === number && drag.x1 != null) drawMark(figure, drag, "");
    if (cursor && cursor.image === number && document.activeElement === figure) {
      const wide = figure.querySelector("img").clientWidth, high = figure.querySelector("img").clientHeight;
      shape("path", "cross", {d: `M${cursor.x * wide - 9} ${cursor.y * high}h18M${cursor.x * wide} ${cursor.y * high - 9}v18`}, svg);
    }
  }
}

function add(mark) {
  if (props.grid) {  // the pixels that the model sees
    const [columns, rows] = props.grid;
    mark = {...mark, x: centre(mark.x, columns), y: centre(mark.y, rows)};
    if (mark.x1 != null) { mark.x1 = centre(mark.x1, columns); mark.y1 = centre(mark.y1, rows); }
  }
  props.value = [...marks(), mark];
  say.textContent = mark.x1 == null
    ? `Point (${short(mark.x)}, ${short(mark.y)}) in image ${mark.image + 1}.`
    : `Region from (${short(mark.x)}, ${short(mark.y)}) to (${short(mark.x1)}, ${short(mark.y1)}) in image ${mark.image + 1}.`;
  draw();
  trigger("mark", {mark: mark, count: props.value.length});
}

function place(event, figure) {
  const frame = figure.querySelector("img").getBoundingClientRect();
  return [clamp((event.clientX - frame.left) / frame.width), clamp((event.clientY - frame.top) / frame.height)];
}

function listen(figure, image) {
  figure.addEventListener("pointerdown", event => {
    const [x, y] = place(event, figure);
    drag = {image, x, y, x1: null, y1: null};
    figure.setPointerCapture(event.pointerId);
    event.preventDefault();
    figure.focus({preventScroll: true});
  });
  figure.addEventListener("pointermove", event => {
    if (!drag || drag.image !== image) return;
    const [x, y] = place(event, figure);
    if (drag.x1 != null || Math.hypot(x - drag.x, y - drag.y) > 0.03) { drag.x1 = x; drag.y1 = y; draw(); }
  });
  figure.addEventListener("pointerup", () => { const mark = drag; drag = null; if (mark && mark.image === image) add(mark); });
  figure.addEventListener("pointercancel", () => { drag = null; draw(); });
  figure.addEventListener("keydown", event => {
    const step = event.shiftKey ? 0.1 : 0.01;
    const moves = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]};
    if (!cursor || cursor.image !== image) cursor = {image, x: 0.5, y: 0.5};
    if (moves[event.key]) {
      cursor.x = clamp(cursor.x + moves[event.key][0]);
      cursor.y = clamp(cursor.y + moves[event.key][1]);
      say.textContent = `(${short(cursor.x)}, ${short(cursor.y)})`;
    } else if (event.key === "Enter" || event.key === " ") {
      add({image, x: cursor.x, y: cursor.y, x1: null, y1: null});
    } else if (event.key === "r" || event.key === "R") {
      if (corner && corner.image === image) {
        add({image, x: corner.x, y: corner.y, x1: cursor.x, y1: cursor.y});
        corner = null;
      } else {
        corner = {...cursor};
        say.textContent = "One corner is set. Move to the other one and press R again.";
      }
    } else return;
    event.preventDefault();
    draw();
  });
  figure.addEventListener("focus", draw);
  figure.addEventListener("blur", draw);
}

function show() {
  strip.replaceChildren();
  for (const [image, picture] of (props.pictures || []).entries()) {
    const figure = document.createElement("figure");
    if (!props.readonly) {
      figure.tabIndex = 0;
      figure.setAttribute("role", "application");
      figure.setAttribute("aria-label", `${props.name}, ${picture.alt}. ${props.help}`);
      listen(figure, image);
    }
    const img = document.createElement("img");
    img.alt = picture.alt;
    img.draggable = false;
    img.src = picture.src;
    img.addEventListener("load", draw);
    figure.append(img, document.createElementNS(NS, "svg"));
    strip.append(figure);
  }
  say.textContent = (props.pictures || []).length ? props.help : "";
  draw();
}

watch("pictures", show);
watch(["value", "spoken"], draw);
new ResizeObserver(draw).observe(board);
show();
