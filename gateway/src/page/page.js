"use strict";
// Draws the figures of /api/v1/usage. Whatever callers chose themselves (names) becomes text, never markup.

const WINDOWS = [["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"]];
const SUBJECTS = [["tools", "by tool"], ["namespaces", "by namespace"]];
const TOOLS = {
  bazel_http: "Bazel", ccache: "ccache", gradle: "Gradle", maven: "Maven", nx: "Nx", turborepo: "Turborepo", webdav: "sccache",
  actions_cache: "GitHub Actions", builder: "Builder", polykit: "Polykit", metro: "Metro", zim_objects: "ZIM", moon: "moon",
};
const KINDS = {
  blob: "Blobs", action_result: "Action results", ccache: "ccache", gradle: "Gradle", maven: "Maven", nx: "Nx", turborepo: "Turborepo",
  webdav: "sccache", actions_cache: "GitHub Actions", actions_block: "GitHub Actions, unfinished", builder: "Builder", polykit: "Polykit",
  metro: "Metro",
};
const MOST_COLOURS = 8;
const VARIABLE = "ZIMCACHE_TOKEN";
const REFRESH_MILLIS = 30000;

const view = { window: "7d", subject: "tools", tool: 0, data: null };
const byId = (id) => document.getElementById(id);

// Nodes

function node(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "text") made.textContent = value;
    else if (key === "colour") made.style.background = value;
    else if (key === "width") made.style.width = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Numbers

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat("en");
const count = (number) => (number < 10000 ? exact : compact).format(number);

function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  return `${size >= 100 || unit === 0 ? Math.round(size) : Number(size.toFixed(1))} ${units[unit]}`;
}

const percent = (share) => share === null ? "–" : `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;

function age(seconds) {
  const [days, hours, minutes] = [seconds / 86400, seconds / 3600, seconds / 60].map(Math.floor);
  if (days > 1) return `${days} days`;
  if (hours > 1) return `${hours} hours`;
  if (minutes < 1) return "less than a minute";
  return minutes === 1 ? "1 minute" : `${minutes} minutes`;
}

function when(seconds, step) {
  const time = new Date(seconds * 1000);
  const hour = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const day = { day: "numeric", month: "short" };
  return time.toLocaleString("en", step >= 43200 ? day : { ...day, ...hour });
}

const label = (names, name) => Object.hasOwn(names, name) ? names[name] : name;
const colour = (nth) => `var(--c${Math.min(nth, MOST_COLOURS)})`;

// A tool has the same colour wherever it is drawn.
const coloured = new Map();
function colourOf(name) {
  if (!coloured.has(name)) coloured.set(name, colour(coloured.size));
  return coloured.get(name);
}

function big(id, text) {
  const [number, unit] = text.split(" ");
  byId(id).replaceChildren(number, ...(unit ? [node("small", { text: ` ${unit}` })] : []));
}

// Steps without anything are left out of an answer.
function filled(data, courses, of) {
  const first = data.from - data.from % data.step_seconds;
  const length = Math.floor((data.until - first) / data.step_seconds) + 1;
  const values = new Array(length).fill(0);
  for (const course of courses) {
    for (const step of course.steps) {
      const at = (step[0] - first) / data.step_seconds;
      if (at >= 0 && at < length) values[at] += of(step);
    }
  }
  return { first, values };
}

// Charts: columns that stand on one another, and a line of shares above them.

function topOf(most, round) {
  if (most <= 0) return 1;
  const base = round === bytes ? Math.pow(1024, Math.floor(Math.log(most) / Math.log(1024))) : 1;
  const scaled = most / base;
  const power = Math.pow(10, Math.floor(Math.log10(scaled)));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8, 10].find((own) => own * power >= scaled);
  const top = step * power * base;
  return round === bytes ? top : Math.max(top, 2);
}

function chart(id, data, first, layers, format, shares) {
  const place = byId(id);
  const [width, height] = [place.clientWidth, place.clientHeight];
  const sums = layers[0] ? layers[0].values.map((_, at) => layers.reduce((sum, own) => sum + own.values[at], 0)) : [];
  const most = Math.max(0, ...sums);
  if (most === 0) {
    place.replaceChildren(node("p", { class: "empty", text: "Nothing in this time. Figures appear as soon as a tool asks." }));
    return;
  }
  const box = { left: 58, right: width - (shares ? 40 : 6), top: 8, bottom: height - 22 };
  const top = topOf(most, format);
  const x = (at) => box.left + (box.right - box.left) * at / sums.length;
  const y = (value) => box.bottom - (box.bottom - box.top) * value / top;
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": byId(id).dataset.label || "" });
  for (const part of [0, 0.5, 1]) {
    const at = y(top * part);
    svg.append(drawn("line", { class: part ? "grid" : "base", x1: box.left, x2: box.right, y1: at, y2: at }));
    svg.append(drawn("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, format(top * part)));
    if (shares) svg.append(drawn("text", { x: box.right + 8, y: at + 4 }, `${100 * part} %`));
  }
  const ticks = Math.max(2, Math.floor((box.right - box.left) / 130));
  for (let tick = 0; tick < ticks; tick += 1) {
    const at = Math.floor(sums.length * (tick + 0.5) / ticks);
    const time = when(first + at * data.step_seconds, data.step_seconds);
    svg.append(drawn("text", { x: x(at + 0.5), y: height - 4, "text-anchor": "middle" }, time));
  }
  const gap = Math.min(2, (x(1) - x(0)) / 4);
  const floor = sums.map(() => 0);
  for (const layer of layers) {
    let path = "";
    layer.values.forEach((value, at) => {
      if (value === 0) return;
      const [low, high] = [y(floor[at]), y(floor[at] + value)];
      path += `M${x(at) + gap / 2} ${low}V${high}H${x(at + 1) - gap / 2}V${low}Z`;
      floor[at] += value;
    });
    if (path) svg.append(drawn("path", { d: path, fill: layer.colour }));
  }
  if (shares) svg.append(drawn("path", { class: "rate", d: line(shares, (at) => x(at + 0.5), (share) => y(top * share)) }));
  const rule = drawn("line", { class: "rule", y1: box.top, y2: box.bottom, visibility: "hidden" });
  svg.append(rule);
  place.replaceChildren(svg);
  hover(svg, rule, (clientX) => {
    const inside = (clientX - svg.getBoundingClientRect().left - box.left) / (box.right - box.left);
    const at = Math.floor(inside * sums.length);
    if (at < 0 || at >= sums.length) return null;
    const rows = layers.filter((layer) => layer.values[at] > 0).map((layer) => [layer.name, format(layer.values[at])]);
    if (shares && shares[at] !== null) rows.push(["hit rate", percent(shares[at])]);
    return { x: x(at + 0.5), time: when(first + at * data.step_seconds, Math.min(data.step_seconds, 3600)), rows };
  });
}

// A line through the known shares; it breaks where nothing was asked for a while.
function line(shares, x, y) {
  let [path, missing] = ["", 9];
  shares.forEach((share, at) => {
    if (share === null) { missing += 1; return; }
    path += `${missing > 8 ? "M" : "L"}${x(at)} ${y(share)}`;
    missing = 0;
  });
  return path;
}

function hover(svg, rule, lookUp) {
  const tip = byId("tip");
  svg.addEventListener("pointermove", (event) => {
    const found = lookUp(event.clientX);
    tip.hidden = !found;
    rule.setAttribute("visibility", found ? "visible" : "hidden");
    if (!found) return;
    rule.setAttribute("x1", found.x);
    rule.setAttribute("x2", found.x);
    const rows = found.rows.length ? found.rows : [["nothing", ""]];
    const lines = rows.map(([name, value]) => node("span", {}, node("span", { text: name }), node("span", { text: value })));
    tip.replaceChildren(node("b", { text: found.time }), ...lines);
    const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 14)}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; rule.setAttribute("visibility", "hidden"); });
}

function legend(id, rows) {
  const row = ([name, own, shape]) => node("li", {}, node("i", { colour: own, class: shape || "" }), node("span", { text: name }));
  byId(id).replaceChildren(...rows.map(row));
}

// Sections

function drawGlance(data) {
  const { total } = data;
  const lookups = total.hits + total.misses;
  big("hit-rate", percent(total.hit_rate));
  byId("lookups").textContent = `${exact.format(total.hits)} of ${exact.format(lookups)} look-ups`;
  big("saved", bytes(total.served_bytes));
  byId("taken").textContent = `${bytes(total.stored_bytes)} taken in`;
  big("held", bytes(data.live_bytes));
  const share = data.live_bytes / Math.max(1, data.capacity_bytes);
  byId("capacity").replaceChildren(node("i", { width: `${100 * share}%`, colour: share > 0.95 ? "var(--warn)" : "var(--accent)" }));
  const squeezed = data.stored_bytes > 0 && data.raw_bytes > 1.02 * data.stored_bytes;
  const ratio = squeezed ? `, compressed ${(data.raw_bytes / data.stored_bytes).toFixed(1)}×` : "";
  byId("held-note").textContent = `${percent(share)} of ${bytes(data.capacity_bytes)} · ${exact.format(data.blobs)} blobs, `
    + `${exact.format(data.entries)} entries${ratio}`;
  const state = byId("state");
  state.className = `state ${data.read_only ? "bad" : "good"}`;
  state.textContent = data.read_only ? "read-only: the store takes no writes" : `up for ${age(data.uptime_seconds)}`;
  byId("version").textContent = `ZimCache ${data.version}`;
}

// The share of hits around each step: a few look-ups of a quiet hour must not shake the line.
function sharesOf(hits, misses) {
  const around = (values, at) => values.slice(Math.max(0, at - 2), at + 3).reduce((sum, own) => sum + own, 0);
  return hits.map((own, at) => {
    const [found, missed] = [around(hits, at), around(misses, at)];
    return own + misses[at] > 0 ? found / (found + missed) : null;
  });
}

function drawLookups(data) {
  const hits = filled(data, data.tools, (step) => step[1]);
  const misses = filled(data, data.tools, (step) => step[2]);
  const shares = sharesOf(hits.values, misses.values);
  const layers = [
    { name: "hits", colour: "var(--accent)", values: hits.values },
    { name: "misses", colour: "var(--faint)", values: misses.values },
  ];
  chart("lookups-chart", data, hits.first, layers, (own) => compact.format(own), shares);
  legend("lookups-legend", [["hits", "var(--accent)"], ["misses", "var(--faint)"], ["hit rate", "var(--ink)", "line"]]);
}

function drawSaved(data) {
  const names = view.subject === "tools" ? TOOLS : {};
  const used = data[view.subject].filter((course) => course.served_bytes > 0);
  used.sort((a, b) => b.served_bytes - a.served_bytes);
  if (view.subject === "tools") used.forEach((course) => colourOf(label(names, course.name)));
  const groups = used.slice(0, MOST_COLOURS).map((course) => [label(names, course.name), [course]]);
  if (used.length > MOST_COLOURS) groups.push(["all others", used.slice(MOST_COLOURS)]);
  const layers = groups.map(([name, courses], nth) => (
    { name, colour: view.subject === "tools" ? colourOf(name) : colour(nth), values: filled(data, courses, (step) => step[3]).values }
  ));
  chart("saved-chart", data, filled(data, [], () => 0).first, layers, bytes);
  legend("saved-legend", layers.map((layer) => [layer.name, layer.colour]));
}

function table(id, heads, rows, none) {
  if (rows.length === 0) {
    byId(id).replaceChildren(node("p", { class: "note", text: none }));
    return;
  }
  const head = node("tr", {}, ...heads.map((text) => node("th", { text, scope: "col" })));
  const body = rows.map((cells) => node("tr", {}, ...cells.map((cell) => cell instanceof Node ? node("td", {}, cell) : node("td", { text: cell }))));
  byId(id).replaceChildren(node("table", {}, node("thead", {}, head), node("tbody", {}, ...body)));
}

function rate(course) {
  const meter = node("span", { class: "meter" }, node("i", { width: `${100 * (course.hit_rate || 0)}%` }));
  return node("span", { class: "rate-cell" }, meter, node("span", { text: percent(course.hit_rate) }));
}

function named(text) {
  return node("span", { title: text, text });
}

function drawTables(data) {
  const row = (names) => (course) => [
    named(label(names, course.name)), rate(course), count(course.hits), count(course.misses), bytes(course.served_bytes),
  ];
  const heads = ["hit rate", "hits", "misses", "saved"];
  table("tools", ["tool", ...heads], data.tools.map(row(TOOLS)), "No tool has asked for anything in this time.");
  const held = new Map();
  for (const own of data.held) held.set(own.namespace, (held.get(own.namespace) || 0) + own.bytes);
  const known = new Set(data.namespaces.map((course) => course.name));
  const quiet = [...held.keys()].filter((name) => !known.has(name));
  const idle = quiet.map((name) => ({ name, hits: 0, misses: 0, hit_rate: null, served_bytes: 0 }));
  const rows = [...data.namespaces, ...idle].slice(0, 50).map((course) => (
    [...row({})(course), held.has(course.name) ? bytes(held.get(course.name)) : "–"]
  ));
  table("namespaces", ["namespace", ...heads, "held"], rows, "There is no namespace yet.");
}

function drawKinds(data) {
  const kinds = new Map();
  for (const own of data.held) {
    const sum = kinds.get(own.kind) || { count: 0, bytes: 0 };
    kinds.set(own.kind, { count: sum.count + own.count, bytes: sum.bytes + own.bytes });
  }
  const sorted = [...kinds].sort(([, a], [, b]) => b.bytes - a.bytes);
  const all = sorted.reduce((sum, [, own]) => sum + own.bytes, 0);
  byId("kinds").replaceChildren(...sorted.map(([kind, own]) => (
    node("i", { width: `${100 * own.bytes / Math.max(1, all)}%`, colour: colourOf(label(KINDS, kind)) }))));
  byId("kinds-legend").replaceChildren(...sorted.map(([kind, own]) => node("li", {},
    node("i", { colour: colourOf(label(KINDS, kind)) }), node("span", { text: label(KINDS, kind) }), node("b", { text: bytes(own.bytes) }),
    node("small", { text: own.count === 1 ? "1 value" : `${count(own.count)} values` }))));
  if (sorted.length === 0) byId("kinds-legend").replaceChildren(node("li", { class: "note", text: "Nothing yet: set up a tool below." }));
}

function draw() {
  if (!view.data) return;
  for (const section of [drawGlance, drawLookups, drawSaved, drawTables, drawKinds]) section(view.data);
  document.body.dataset.drawn = view.window;
}

// Setting up a tool: [name, where it goes, lines]. `at` is this server with the namespace in its path.

// `zim setup` writes the same and knows more about each tool.

const SETUPS = [
  ["Bazel", "bazel", ".bazelrc", (s) => [`build --remote_cache=${s.at}`, ...s.lines('build --remote_header="Authorization=Bearer YOUR-TOKEN"')]],
  ["Gradle", "gradle", "settings.gradle, with org.gradle.caching=true in gradle.properties", (s) => [
    "buildCache {", "    remote(HttpBuildCache) {", `        url = '${s.at}/cache/'`, "        push = true",
    ...(s.secure ? [] : ["        allowInsecureProtocol = true"]),
    ...s.lines(`        credentials { username = 'zim'; password = System.getenv('${VARIABLE}') }`), "    }", "}"]],
  ["Maven", "maven", ".mvn/maven-build-cache-config.xml, with maven-build-cache-extension in .mvn/extensions.xml", (s) => [
    '<cache xmlns="http://maven.apache.org/BUILD-CACHE-CONFIG/1.2.0">', "  <configuration>",
    `    <remote enabled="true" saveToRemote="true" id="zim"><url>${s.at}/maven</url></remote>`, "  </configuration>", "</cache>",
    ...s.lines("<!-- in ~/.m2/settings.xml, among the servers:", `<server><id>zim</id><username>zim</username><password>\${env.${VARIABLE}}</password></server>`, "-->")]],
  ["Nx", "nx", "environment", (s) => [
    `export NX_SELF_HOSTED_REMOTE_CACHE_SERVER=${s.at}`, ...s.lines(`export NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN=$${VARIABLE}`)]],
  ["Turborepo", "turborepo", "environment", (s) => [
    `export TURBO_API=${s.origin}`, `export TURBO_TEAM=${s.namespace || "default"}`, `export TURBO_TOKEN=${s.has ? `$${VARIABLE}` : "none"}`]],
  ["moon", "moon", ".moon/workspace.yml", (s) => [
    "remote:", "  api: http", `  host: '${s.origin}'`, "  cache:", `    instanceName: '${s.namespace}'`, ...s.lines("  auth:", `    token: ${VARIABLE}`)]],
  ["sccache", "sccache", "environment", (s) => [
    `export SCCACHE_WEBDAV_ENDPOINT=${s.at}/webdav`, ...s.lines(`export SCCACHE_WEBDAV_TOKEN=$${VARIABLE}`), "export RUSTC_WRAPPER=sccache"]],
  ["ccache", "ccache", "ccache.conf", (s) => [`remote_storage = ${s.at}/ccache${s.has ? "|bearer-token=YOUR-TOKEN" : ""}`]],
  ["GitHub Actions", "github-actions", "environment of the runner", (s) => [
    "export ACTIONS_CACHE_SERVICE_V2=on", `export ACTIONS_RESULTS_URL=${s.at}/`, `export ACTIONS_RUNTIME_TOKEN=${s.has ? `$${VARIABLE}` : "none"}`]],
  ["Builder", "builder", "environment", (s) => [
    `export BUILDER_REMOTE_CACHE_URL=${s.at}`, ...s.lines(`export BUILDER_REMOTE_CACHE_TOKEN=$${VARIABLE}`)]],
  ["Polykit", "polykit", "shell", (s) => [`polykit build --remote-cache-url ${s.at}`]],
  ["Metro", "metro", "metro.config.js", (s) => [
    "const { HttpStore } = require('metro-cache');", "module.exports.cacheStores = [new HttpStore({", `  endpoint: '${s.at}/api/v1/artifacts',`,
    ...s.lines(`  headers: { Authorization: \`Bearer \${process.env.${VARIABLE}}\` },`), "})];"]],
  ["zim", "zim", "shell", (s) => [
    `zim config set cache.remote ${s.origin}`, ...(s.namespace ? [`zim config set cache.namespace ${s.namespace}`] : []),
    ...s.lines(`zim login --token $${VARIABLE}`), "zim cache put build/output.tar"]],
  ["curl", "", "shell", (s) => [
    "hash=$(sha256sum file | cut -d' ' -f1)", `curl ${s.header}-T file ${s.at}/api/v1/objects/$hash`,
    `curl ${s.header}-o copy ${s.at}/api/v1/objects/$hash`]],
];

function drawSetup() {
  const namespace = byId("namespace").value.trim();
  const has = byId("with-token").checked;
  const prefix = namespace ? `/ns/${encodeURIComponent(namespace)}` : "";
  const server = {
    origin: location.origin, at: location.origin + prefix, namespace, has, secure: location.protocol === "https:",
    lines: (...all) => has ? all : [], header: has ? `-H "Authorization: Bearer $${VARIABLE}" ` : "",
  };
  const [, tool, where, lines] = SETUPS[view.tool];
  const inNamespace = namespace ? ` --namespace ${namespace}` : "";
  byId("snippet-where").textContent = where;
  byId("snippet-zim").textContent = tool ? `zim setup ${tool} --url ${location.origin}${inNamespace}` : "";
  byId("zim-note").hidden = !tool;
  byId("snippet").textContent = lines(server).join("\n");
  byId("setup-tools").replaceChildren(...SETUPS.map(([name], nth) => {
    const button = node("button", { type: "button", role: "tab", "aria-selected": String(nth === view.tool), text: name });
    button.addEventListener("click", () => { view.tool = nth; drawSetup(); });
    return button;
  }));
}

async function copy() {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(byId("snippet").textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers give pages without TLS no clipboard; what is marked can be copied by hand.
    getSelection().selectAllChildren(byId("snippet"));
    button.textContent = document.execCommand("copy") ? "Copied" : "Marked";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

// Choices and asking

function choice(id, all, member, changed) {
  const buttons = all.map(([value, text]) => {
    const button = node("button", { type: "button", "aria-pressed": String(view[member] === value), text });
    button.addEventListener("click", () => {
      view[member] = value;
      for (const own of buttons) own.setAttribute("aria-pressed", String(own === button));
      changed();
    });
    return button;
  });
  byId(id).replaceChildren(...buttons);
}

async function ask() {
  const asked = view.window;
  try {
    const answer = await fetch(`/api/v1/usage?window=${asked}`, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.status === 401 ? "sign in to see the figures" : `the server answered ${answer.status}`);
    const data = await answer.json();
    if (asked !== view.window) return;
    view.data = data;
    draw();
  } catch (error) {
    byId("state").className = "state bad";
    byId("state").textContent = error instanceof TypeError ? "the server does not answer" : error.message;
  }
}

byId("lookups-chart").dataset.label = "Hits and misses over time";
byId("saved-chart").dataset.label = "Bytes saved over time";
choice("window", WINDOWS, "window", ask);
choice("subject", SUBJECTS, "subject", draw);
byId("namespace").addEventListener("input", drawSetup);
byId("with-token").addEventListener("change", drawSetup);
byId("copy").addEventListener("click", copy);
addEventListener("resize", draw);
setInterval(() => { if (!document.hidden) ask(); }, REFRESH_MILLIS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
drawSetup();
ask();
