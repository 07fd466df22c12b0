// Ask the service, show its answer token by token, and follow /health and /metrics.
"use strict";

const POLL_SECONDS = 2;
const WINDOW_POLLS = 30; // a minute
const ROUTES = ["/predict", "/predict/batch", "/invocations"];

const $ = (id) => document.getElementById(id);

function create(tag, className, text, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// The service

class RequestError extends Error {
  constructor(status, detail) {
    super(Array.isArray(detail) ? detail.map((entry) => entry.msg).join("; ") : detail);
    this.status = status;
  }
}

async function request(path, body) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value) headers["X-API-Key"] = $("key").value;
  const options = body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers };
  const response = await fetch(path, options).catch(() => {
    throw new RequestError(0, "the service does not answer");
  });
  const text = await response.text();
  if (path === "metrics" && response.ok) return text;
  let content = { detail: text };
  try {
    content = JSON.parse(text);
  } catch {} // a proxy's own page
  if (!response.ok && path !== "health") throw new RequestError(response.status, content.detail);
  return content;
}

// Asking

let asked = 0; // a later question replaces an earlier one
let explained = null;

async function ask(equation) {
  const number = ++asked;
  showError("");
  try {
    const prediction = await request("predict", { equation });
    const explanation = await request("explain", { equation });
    if (number !== asked) return;
    history.replaceState(null, "", `#${equation}`);
    $("latency").textContent =
      `Version ${prediction.model_version} answered in ${prediction.latency_ms.toFixed(2)} ms; ` +
      "below is a slow replay.";
    explained = explanation;
    write();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    if (number === asked) showError(error.message, error.status);
    return;
  }
  if (!$("compare").hidden) compare(equation, number);
}

function showError(message, status = 0) {
  $("error").textContent = message;
  $("equation").toggleAttribute("aria-invalid", false);
  if (status === 422) {
    $("equation").setAttribute("aria-invalid", "true");
    const place = Number(message.match(/ at position (\d+)/)?.[1]);
    $("equation").focus();
    if (place) $("equation").setSelectionRange(place - 1, place);
  }
  if (status === 401) {
    $("key-field").hidden = false;
    $("key").focus();
  }
}

function showVerdict(id, { equation, predicted_answer, exact_answer, tokens }) {
  const isRight = predicted_answer === exact_answer && tokens.at(-1).token === "END";
  $(id).className = `badge ${isRight ? "right" : "wrong"}`;
  $(id).textContent = `${isRight ? "✓ right" : "✗ wrong"}: exact arithmetic says ${exact_answer}`;
  return equation + predicted_answer;
}

// Writing the tokens

let timer = 0;
let tiles = [];

function showPercent(p) {
  if (p > 0.9999) return ">99.99 %";
  if (p < 1e-6) return "<0.0001 %";
  return `${p < 0.01 ? Number((100 * p).toPrecision(1)) : (100 * p).toFixed(2)} %`;
}

function showTiles(parent, { prompt, tokens, scratchpad_length }, makeTile) {
  const groups = [
    ["Question", prompt.map((token) => create("span", "tile", token))],
    ["Steps", tokens.slice(0, scratchpad_length).map(makeTile)],
    ["Answer", tokens.slice(scratchpad_length).map((t, i) => makeTile(t, scratchpad_length + i))],
  ];
  parent.replaceChildren();
  for (const [name, nodes] of groups) {
    const group = create("div", name === "Question" ? "group prompt" : "group", "");
    const row = create("div", "tiles", "", { role: "group", "aria-label": name });
    row.append(...nodes);
    group.append(create("h3", "", name), row);
    parent.append(group);
  }
  return groups.flatMap(([, nodes]) => nodes);
}

function write() {
  clearTimeout(timer);
  for (const id of ["result", "detail"]) $(id).hidden = false;
  const { tokens } = explained;
  tiles = showTiles($("sequence"), explained, (token, index) => {
    const percent = showPercent(token.probability);
    const tile = create("button", "tile waiting", token.token, { type: "button", tabindex: "-1" });
    tile.append(create("small", "", percent.replace("99.99 ", "99.9 ")));
    tile.setAttribute("aria-label", `${token.token}, ${token.name}, ${percent}`);
    tile.addEventListener("click", () => {
      finish();
      select(index);
    });
    return tile;
  });
  $("answer").textContent = `${explained.equation}…`;
  $("verdict").textContent = "";
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) finish();
  else writeNext(0, Math.min(160, 4000 / tokens.length));
}

function writeNext(index, delay) {
  if (index === explained.tokens.length) {
    finish();
    return;
  }
  tiles[explained.prompt.length + index].classList.remove("waiting");
  select(index);
  timer = setTimeout(() => writeNext(index + 1, delay), delay);
}

function finish() {
  clearTimeout(timer);
  for (const tile of tiles) tile.classList.remove("waiting");
  $("answer").textContent = showVerdict("verdict", explained);
  if (!document.querySelector("[aria-pressed=true].tile")) select(explained.tokens.length - 1);
}

function select(index) {
  const { prompt, tokens } = explained;
  const token = tokens[index];
  tiles.slice(prompt.length).forEach((tile, i) => {
    tile.setAttribute("aria-pressed", String(i === index));
    tile.tabIndex = i === index ? 0 : -1;
  });
  const heads = token.attention.flat();
  tiles.forEach((tile, position) => {
    const look = Math.max(0, ...heads.map((weights) => weights[position] ?? 0));
    tile.style.setProperty("--look", look);
  });
  $("token-heading").textContent = `${token.token} · ${token.name}`;
  $("explanation").textContent = token.explanation;
  $("probabilities").replaceChildren(
    ...[token, ...token.runners_up].map((candidate) => {
      const item = create("li", "", candidate.token);
      const bar = create("span", "bar", showPercent(candidate.probability));
      const width = Math.max(0, 1 + Math.log10(candidate.probability + 1e-9) / 9);
      bar.style.setProperty("--width", width);
      item.append(bar);
      return item;
    }),
  );
  showHeat(token.attention, [...prompt, ...tokens.map((t) => t.token)]);
}

function showHeat(attention, characters) {
  const columns = attention[0][0].length;
  $("heat").style.setProperty("--columns", columns);
  const top = create("div", "heads", "", { "aria-hidden": "true" });
  const labels = characters.slice(0, columns).map((c) => create("b", "", c === "END" ? "∎" : c));
  top.append(create("span", "", ""), ...labels);
  $("heat").replaceChildren(top);
  attention.forEach((heads, layer) => {
    $("heat").append(create("h4", "", `layer ${layer + 1}`));
    heads.forEach((weights, head) => {
      const most = weights.indexOf(Math.max(...weights));
      const percent = `${Math.round(100 * weights[most])} %`;
      const row = create("div", "heads", "", {
        role: "img",
        "aria-label": `layer ${layer + 1}, head ${head + 1}: ${percent} on token ${most + 1}, ` +
          characters[most],
      });
      row.append(create("span", "", `head ${head + 1}`));
      weights.forEach((weight, position) => {
        const percent = `${Math.round(100 * weight)} % on ${characters[position]}`;
        const cell = create("i", "", "", { title: percent });
        cell.style.setProperty("--weight", weight);
        row.append(cell);
      });
      row.append(create("span", "", `${characters[most]} ${percent}`));
      $("heat").append(row);
    });
  });
}

$("sequence").addEventListener("keydown", (event) => {
  const buttons = tiles.slice(explained.prompt.length);
  const last = buttons.length - 1;
  const index = buttons.indexOf(event.target);
  const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: last }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  finish();
  select(Math.min(Math.max(next, 0), last));
  buttons[Math.min(Math.max(next, 0), last)].focus();
});

// The second version

async function compare(equation, number) {
  try {
    const other = await request("compare", { equation });
    if (number !== asked) return;
    $("compare-answer").textContent = showVerdict("compare-verdict", other);
    showTiles($("compare-sequence"), other, (token, index) => {
      const isSame = token.token === explained.tokens[index]?.token;
      const tile = create("span", isSame ? "tile" : "tile differs", token.token);
      tile.append(create("small", "", showPercent(token.probability)));
      return tile;
    });
    $("compare-note").textContent = `Version ${other.model_version}; other tokens are framed.`;
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    $("compare-note").textContent = error.message;
  }
}

// The strip

const snapshots = [];

function takeSnapshot(metrics) {
  const buckets = new Map();
  const lines = /^arithmetic_request_seconds_bucket\{le="(.+)",route="(.+)"\} (\S+)$/gm;
  for (const [, le, route, value] of metrics.matchAll(lines)) {
    if (!ROUTES.includes(route) && !route.endsWith("/infer")) continue;
    const limit = le === "+Inf" ? Infinity : Number(le);
    buckets.set(limit, (buckets.get(limit) ?? 0) + Number(value));
  }
  return { time: performance.now() / 1000, buckets, count: buckets.get(Infinity) ?? 0 };
}

function quantile(share, before, now) {
  const rank = share * (now.count - before.count);
  let lower = 0;
  let below = 0;
  for (const limit of [...now.buckets.keys()].sort((a, b) => a - b)) {
    const until = now.buckets.get(limit) - (before.buckets.get(limit) ?? 0);
    if (until >= rank) {
      const within = limit === Infinity ? 0 : (limit - lower) * ((rank - below) / (until - below));
      return lower + within;
    }
    [lower, below] = [limit, until];
  }
  return lower;
}

function showList(id, entries) {
  $(id).replaceChildren(
    ...entries.map(([term, value, note = "", title = ""]) => {
      const pair = create("div", "", "");
      const content = create("dd", "", value, title ? { title } : {});
      if (note) content.append(create("small", "", note));
      pair.append(create("dt", "", term), content);
      return pair;
    }),
  );
}

function showLive(health) {
  const [before, now] = [snapshots[0], snapshots.at(-1)];
  const count = now.count - before.count;
  const seconds = now.time - before.time;
  const milliseconds = (share) =>
    count ? `${(1000 * quantile(share, before, now)).toFixed(1)} ms` : "–";
  const rates = snapshots.slice(1).map((snapshot, i) => {
    const { count, time } = snapshots[i];
    return (snapshot.count - count) / (snapshot.time - time);
  });
  const highest = Math.max(1, ...rates);
  const points = rates.map((rate, i) => {
    const x = 60 - 2 * (rates.length - 1 - i);
    return `${x},${15 - (14 * rate) / highest}`;
  });
  $("rates").toggleAttribute("hidden", points.length < 2);
  document.querySelector("#rates polyline").setAttribute("points", points.join(" "));
  const { checked = 0, wrong = 0 } = health.accuracy ?? {};
  const drift = Object.entries(health.drift ?? {}).sort((a, b) => b[1] - a[1])[0];
  const stability = (psi) => (psi < 0.1 ? "stable" : psi < 0.25 ? "shifting" : "shifted");
  showList("live", [
    ["Requests per second", seconds ? (count / seconds).toFixed(1) : "–", seconds ? `over the last ${Math.round(seconds)} s` : ""],
    ["Latency, p50", milliseconds(0.5)],
    ["Latency, p99", milliseconds(0.99)],
    ["Wrong answers", `${wrong} of ${checked} checked`, "by exact arithmetic"],
    drift
      ? ["Input drift (PSI)", drift[1].toFixed(3), `${stability(drift[1])}, ${drift[0]}`]
      : ["Input drift (PSI)", "–", "after 500 questions"],
  ]);
}

function showVersion(health) {
  if (!health.model_loaded) {
    showList("version", [["Status", health.status, health.reason ?? ""]]);
    return;
  }
  showList("version", [
    ["Name", health.model_name],
    ["Version", health.model_version],
    ["Digest", health.model_digest.slice(0, 12), "", health.model_digest],
    ["Address", health.model_uri],
    ["Answers", `${health.operations.join(" ")} from 0 to ${health.max_operand}`],
  ]);
  if (health.reason) $("version").append(create("p", "note", health.reason));
}

function showExamples({ operations = [], max_operand }) {
  if ($("examples").childElementCount || !operations.length) return;
  const power = 10 ** (String(max_operand).length - 1);
  const examples = [
    ["+", `${Math.min(951, max_operand)}+${Math.min(11, max_operand)}=`, "sum"],
    ["+", `${max_operand}+1=`, "carry cascade"],
    ["-", `${power}-${power - 1}=`, "borrow"],
    ["-", "7-12=", "negative"],
    ["*", `${max_operand}*${max_operand}=`, "product"],
    ["/", `${max_operand}/7=`, "quotient and remainder"],
  ];
  for (const [operation, equation, name] of examples) {
    if (!operations.includes(operation)) continue;
    const button = create("button", "", "", { type: "button" });
    button.append(create("code", "", equation), " ", create("span", "", name));
    button.addEventListener("click", () => {
      $("equation").value = equation;
      ask(equation);
    });
    $("examples").append(button);
  }
  if ($("equation").value) ask($("equation").value);
  else $("examples").firstChild.click();
}

async function poll() {
  if (!document.hidden) {
    try {
      const health = await request("health");
      $("compare").hidden = !health.compare_url;
      $("compare-heading").textContent = `Compared with ${health.compare_url}`;
      showVersion(health);
      showExamples(health);
      snapshots.push(takeSnapshot(await request("metrics")));
      if (snapshots.length > WINDOW_POLLS + 1) snapshots.shift();
      showLive(health);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      showList("live", [["Status", error.message]]);
    }
  }
  setTimeout(poll, 1000 * POLL_SECONDS);
}

// The page

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String(theme === "dark"));
}

const isDark = matchMedia("(prefers-color-scheme: dark)");
setTheme(localStorage.getItem("theme") ?? (isDark.matches ? "dark" : "light"));
isDark.addEventListener("change", () => {
  if (!localStorage.getItem("theme")) setTheme(isDark.matches ? "dark" : "light");
});
$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", theme);
  setTheme(theme);
});
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask($("equation").value.trim());
});
$("replay").addEventListener("click", write);
if (location.hash) $("equation").value = location.hash.slice(1);
poll();
