// What is shown now, and what clicks and keys change of it.
const data = JSON.parse(document.getElementById("data").textContent);
const state = {
  picture: 0, detection: 0, layer: data.first.layer, head: data.first.head, hidden: new Set(),
  map: true, points: true, steps: false, origin: true, direct: false, asking: false, asked: null, hovered: null,
};
const byId = (id) => document.getElementById(id);
const picture = () => data.pictures[state.picture];
const detection = () => picture().detections[state.hovered ?? state.detection];

function drawMap() {
  const { levels, detections, encoder } = picture(), canvas = byId("heat");
  if (state.asking && encoder) {
    canvas.hidden = !state.asked;
    if (!state.asked) return;
    const grid = new Float32Array(encoder.rows * encoder.columns), { rows, largest } = shares(encoder.weights);
    const r = Math.min(encoder.rows - 1, Math.floor(state.asked[1] / picture().height * encoder.rows));
    const c = Math.min(encoder.columns - 1, Math.floor(state.asked[0] / picture().width * encoder.columns));
    const row = r * encoder.width + c;
    addRow(grid, encoder, rows, row * encoder.height * encoder.width, largest[row] / 255);
    return paint([grid], [encoder]);
  }
  canvas.hidden = !state.map || !detections.length;
  if (!canvas.hidden) paint(cellsOf(detection()), levels);
}

function drawAll() { drawMap(); drawMarks(); drawPanels(); remember(); }
function change(part) { Object.assign(state, part); drawAll(); }
function select(i) { change({ detection: i, hovered: null, asking: false }); }
function hover(i) {
  if (state.asking || i === state.hovered) return;
  state.hovered = i === state.detection ? null : i;
  drawMap(); drawMarks();
}
function toggleLevel(i) { if (!state.hidden.delete(i)) state.hidden.add(i); drawAll(); }

function show(i) {
  Object.assign(state, { picture: i, detection: 0, hovered: null, asking: false, asked: null });
  const image = byId("image"), { width, height, name, detections } = picture();
  image.src = picture().image; image.alt = `${name}: ${detections.map((each) => each.name).join(", ") || "nothing found"}`;
  image.width = width; image.height = height;
  byId("stage").style.maxWidth = `min(100%, calc(82vh * ${width / height}))`;
  byId("stage").classList.remove("asking");
  drawPictures(); drawAll();
}

function remember() {
  const part = (letter, value) => (value === null ? "" : letter + (value + 1));
  history.replaceState(null, "", `#p${state.picture + 1}d${state.detection + 1}${part("l", state.layer)}${part("h", state.head)}`);
}

function recall() {
  const said = /^#p(\d+)(?:d(\d+))?(?:l(\d+))?(?:h(\d+))?$/.exec(location.hash);
  if (!said || said[1] < 1 || said[1] > data.pictures.length) return show(0);
  show(said[1] - 1);
  const within = (text, count) => (text && text >= 1 && text <= count ? text - 1 : null);
  const { detections, layers, heads } = picture();
  change({ detection: within(said[2], detections.length) ?? 0, layer: within(said[3], layers), head: within(said[4], heads) });
}

function ask(event) {
  if (!state.asking) return;
  const frame = byId("stage").getBoundingClientRect(), { width, height } = picture();
  const inside = (value) => Math.min(Math.max(value, 0), 0.999999);
  state.asked = [inside((event.clientX - frame.left) / frame.width) * width, inside((event.clientY - frame.top) / frame.height) * height];
  drawMap(); drawMarks();
}

function around(value, step, count) { return count === 0 ? null : (value === null ? (step > 0 ? 0 : count - 1) : value + step < 0 || value + step >= count ? null : value + step); }

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { detections, layers, heads } = picture(), count = detections.length;
  const acts = {
    ArrowDown: () => count && select((state.detection + 1) % count),
    ArrowUp: () => count && select((state.detection + count - 1) % count),
    ArrowRight: () => change({ layer: around(state.layer, 1, layers) }),
    ArrowLeft: () => change({ layer: around(state.layer, -1, layers) }),
    "]": () => change({ head: around(state.head, 1, heads) }),
    "[": () => change({ head: around(state.head, -1, heads) }),
    m: () => change({ map: !state.map }),
    p: () => change({ points: !state.points }),
    b: () => change({ steps: !state.steps }),
    n: () => show((state.picture + 1) % data.pictures.length),
    Escape: () => toggleAsking(false),
  };
  if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
}

function toggleAsking(asking) {
  const middle = [picture().width / 2, picture().height / 2];
  byId("stage").classList.toggle("asking", asking);
  change({ asking, asked: asking ? middle : null });
}

const total = data.pictures.reduce((sum, each) => sum + each.detections.length, 0);
byId("title").textContent = document.title;
byId("lead").textContent = `${data.pictures.length} picture${data.pictures.length === 1 ? "" : "s"}, ${data.pictures[0].asked ? "asked about a place" : `${total} detection${total === 1 ? "" : "s"}`}. Choose a box to see where its query looked, layer by layer and head by head.`;
byId("tried").textContent = data.faithfulness || "";
byId("tried-part").hidden = !data.faithfulness;
byId("stage").addEventListener("pointermove", ask);
byId("stage").addEventListener("click", ask);
byId("encoder").addEventListener("click", () => toggleAsking(!state.asking));
document.addEventListener("keydown", key);
addEventListener("resize", () => drawMarks());
addEventListener("hashchange", recall);
recall();
