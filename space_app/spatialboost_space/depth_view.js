// Depth maps in colours, the second over the first from the slider on, and metres under the pointer.
const view = element.querySelector(".depth-view");

function make(tag, kind, parent) {
  const node = document.createElement(tag);
  if (kind) node.className = kind;
  parent.append(node);
  return node;
}

function numbers(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Uint16Array(bytes.buffer);
}

function paint(canvas, grid, value) {
  canvas.width = value.width;
  canvas.height = value.height;
  const picture = canvas.getContext("2d").createImageData(value.width, value.height);
  for (let i = 0; i < grid.length; i++) {
    const share = (grid[i] / 1000 - value.low_m) / (value.high_m - value.low_m);
    const [red, green, blue] = props.colours[Math.round(255 * Math.min(1, Math.max(0, share)))];
    picture.data.set([red, green, blue, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function show() {
  view.replaceChildren();
  const value = props.value;
  if (!value) {
    make("p", "empty", view).textContent = "The depth maps will be here.";
    return;
  }
  const maps = value.maps.map(map => ({name: map.name, grid: numbers(map.millimetres)}));
  const frame = make("div", "frame", view);
  frame.style.aspectRatio = value.aspect;
  view.style.setProperty("--widest", `min(720px, ${60 * value.aspect}vh)`);  // all of it on one screen
  frame.tabIndex = 0;
  frame.setAttribute("role", "application");
  frame.setAttribute("aria-label", "Depth map. Move with the arrow keys to read the depth in metres.");
  const canvases = maps.map(map => { const canvas = make("canvas", "", frame); paint(canvas, map.grid, value); return canvas; });
  const pin = make("div", "pin", frame);
  pin.hidden = true;
  if (maps.length > 1) {
    const line = make("div", "line", frame);
    const names = make("div", "names", view);
    make("span", "", names).textContent = "left of the line: " + maps[0].name;
    make("span", "", names).textContent = "right of it: " + maps[1].name;
    const slider = make("input", "slider", view);
    slider.type = "range";
    slider.min = 0;
    slider.max = 100;
    slider.value = 50;
    slider.setAttribute("aria-label", `Where ${maps[0].name} ends and ${maps[1].name} begins, in percent of the width`);
    const divide = () => {
      canvases[1].style.clipPath = `inset(0 0 0 ${slider.value}%)`;
      line.style.left = slider.value + "%";
    };
    slider.addEventListener("input", divide);
    divide();
  }
  const reading = make("p", "reading", view);
  reading.setAttribute("role", "status");
  reading.textContent = "Point at the map, tap it, or use the arrow keys.";
  const bar = make("div", "bar", view);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `Colours from ${value.low_m.toFixed(2)} m to ${value.high_m.toFixed(2)} m`);
  bar.style.background = `linear-gradient(to right, ${props.colours.filter((_, i) => i % 15 === 0).map(c => `rgb(${c})`).join(",")})`;
  const ticks = make("div", "ticks", view);
  for (const share of [0, 0.25, 0.5, 0.75, 1])
    make("span", "", ticks).textContent = (value.low_m + share * (value.high_m - value.low_m)).toFixed(2) + " m";

  let pinned = null;
  const read = (x, y) => {
    const column = Math.min(value.width - 1, Math.floor(x * value.width));
    const row = Math.min(value.height - 1, Math.floor(y * value.height));
    const metres = maps.map(map => `${map.name} ${(map.grid[row * value.width + column] / 1000).toFixed(3)} m`);
    reading.textContent = `(${x.toFixed(3)}, ${y.toFixed(3)}): ${metres.join(", ")}`;
  };
  const place = event => {
    const box = frame.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]
      .map(part => Math.min(0.999, Math.max(0, part)));
  };
  const fix = (x, y) => {
    pinned = [x, y];
    pin.hidden = false;
    pin.style.left = 100 * x + "%";
    pin.style.top = 100 * y + "%";
    read(x, y);
  };
  frame.addEventListener("pointermove", event => read(...place(event)));
  frame.addEventListener("pointerleave", () => { if (pinned) read(...pinned); });
  frame.addEventListener("click", event => fix(...place(event)));
  frame.addEventListener("keydown", event => {
    const step = event.shiftKey ? 0.1 : 0.01;
    const move = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
    if (!move) return;
    event.preventDefault();
    const [x, y] = pinned || [0.5, 0.5];
    fix(Math.min(0.999, Math.max(0, x + move[0])), Math.min(0.999, Math.max(0, y + move[1])));
  });
}

watch("value", show);
show();
