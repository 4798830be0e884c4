// The search page. What is shown follows from the address alone, so that it can be shared, reloaded and gone back from:
// ?q=TEXT | ?like=NUMBER:START-END | ?highlights=1, and said=0..1, video=NUMBER, play=NUMBER:START-END.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { hits: [], playing: null, offset: 0, scores: null, pending: null, shown: null };

const clock = (seconds) => {
  const s = Math.floor(seconds), two = (n) => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
};
const stretch = (hit) => `${hit.video}:${hit.start}-${hit.end}`;
const parameters = () => new URLSearchParams(location.search);

async function ask(path, options) {
  const response = await fetch(path, options);
  const content = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(content.error || `the server answered ${response.status}`);
  return content;
}

// ------------------------------------------------------------------------------------------------------------ address

function go(changes, replace) {
  const wanted = parameters();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") wanted.delete(name); else wanted.set(name, value);
  }
  const address = `${location.pathname}?${wanted}`;
  if (replace) history.replaceState(null, "", address); else history.pushState(null, "", address);
  show();
}

function searchNow() {
  const text = $("query").value.trim();
  if (text) go({ q: text, said: $("said").value, video: $("video").value, like: null, highlights: null, play: null });
}

async function show() {
  const wanted = parameters();
  $("query").value = wanted.get("q") || "";
  if (wanted.has("said")) $("said").value = wanted.get("said");
  $("video").value = wanted.get("video") || "";
  const request = requestFor(wanted);
  if (request !== state.shown) {
    state.shown = request;
    await load(request);
  }
  const play = (wanted.get("play") || "").match(/^(\d+):([\d.]+)-([\d.]+)$/);
  if (!play) return stop();
  const [video, start, end] = play.slice(1).map(Number);
  const hit = state.hits.find((h) => h.video === video && h.start === start && h.end === end);
  if (hit) playHit(hit); else stop();
}

function requestFor(wanted) {
  const like = (wanted.get("like") || "").match(/^(\d+):([\d.]+)-([\d.]+)$/);
  if (like) return `/api/similar?${new URLSearchParams({ video: like[1], start: like[2], end: like[3] })}`;
  if (wanted.has("highlights")) return "/api/highlights";
  if (!wanted.get("q")) return null;
  const asked = new URLSearchParams({ q: wanted.get("q"), said: wanted.get("said") || $("said").value });
  if (wanted.get("video")) asked.set("video", wanted.get("video"));
  return `/api/search?${asked}`;
}

async function load(request) {
  if (state.pending) state.pending.abort();
  if (request === null) return draw({ hits: [], confident: true }, true);
  state.pending = new AbortController();
  tell("Searching…");
  try {
    draw(await ask(request, { signal: state.pending.signal }), false);
  } catch (error) {
    if (error.name === "AbortError") return;
    state.shown = null;
    draw({ hits: [], confident: true }, true);
    tell(error.message, true);
  }
}

// --------------------------------------------------------------------------------------------------------------- hits

function tell(text, unsure) {
  $("message").textContent = text;
  $("message").classList.toggle("unsure", Boolean(unsure));
}

function draw(answer, quiet) {
  state.hits = answer.hits;
  $("hits").replaceChildren(...answer.hits.map(card));
  $("anyway").hidden = true;
  $("hits").hidden = false;
  if (quiet) return;
  if (!answer.hits.length) return tell("Nothing was found.", true);
  if (answer.confident) return tell(answer.hits.length === 1 ? "1 moment" : `${answer.hits.length} moments, best first`);
  tell(`Nothing is confidently like that: the best scores ${answer.best.toPrecision(3)}, from ${answer.threshold.toPrecision(3)} `
    + "on it would stand out from this library.", true);
  $("hits").hidden = true;
  $("anyway").hidden = false;
}

function card(hit) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "hit";
  button.dataset.stretch = stretch(hit);
  const picture = document.createElement("img");
  picture.src = hit.picture;
  picture.alt = "";
  picture.loading = "lazy";
  const line = (name, text) => {
    const span = document.createElement("span");
    span.className = name;
    span.textContent = text;  // never as HTML: names and words come from strangers
    return span;
  };
  button.append(picture, line("when", `${clock(hit.start)}–${clock(hit.end)}`), line("name", hit.id), line("spoken", hit.spoken));
  button.setAttribute("aria-label", `${hit.id}, ${clock(hit.start)} to ${clock(hit.end)}. ${hit.spoken}`);
  button.addEventListener("click", () => go({ play: stretch(hit) }));
  const item = document.createElement("li");
  item.append(button);
  return item;
}

// ------------------------------------------------------------------------------------------------------------- player

function playHit(hit) {
  const same = state.playing && stretch(state.playing) === stretch(hit);
  state.playing = hit;
  for (const button of document.querySelectorAll(".hit")) {
    if (button.dataset.stretch === stretch(hit)) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
  }
  $("player").hidden = false;
  document.querySelector("main").classList.add("playing");
  $("title").textContent = hit.id;
  $("time").textContent = `${clock(hit.start)}–${clock(hit.end)} of ${clock(hit.seconds)}`;
  $("spoken").textContent = hit.spoken;
  if (same) return;
  $("kept").textContent = "";
  jump(hit.start, hit.end);
  loadScores(hit);
  $("player").scrollIntoView({ block: "nearest" });
}

function jump(second, end) {
  const hit = state.playing, screen = $("screen");
  $("trouble").hidden = true;
  if (hit.playable) {
    state.offset = 0;
    const source = `/video/${hit.video}`;
    if (screen.getAttribute("src") !== source) {
      screen.src = source;
      screen.addEventListener("loadedmetadata", () => { screen.currentTime = second; }, { once: true });
    } else {
      screen.currentTime = second;
    }
  } else {  // a format that browsers do not play: this stretch is converted
    state.offset = second;
    screen.src = `/clip/${hit.video}?start=${second}&end=${Math.max(end || 0, Math.min(second + 30, hit.seconds))}`;
  }
  screen.play().catch(() => {});  // a browser may want a click first
}

async function trouble() {
  const source = $("screen").getAttribute("src");
  if (!source || !state.playing) return;
  let text = "This browser cannot play the file.";
  try {
    const response = await fetch(source, { headers: { range: "bytes=0-0" } });
    if (!response.ok) text = (await response.json()).error;
    else if (state.playing.playable) {
      state.playing.playable = false;
      return jump(state.playing.start, state.playing.end);
    }
  } catch (error) { text = "The server does not answer."; }
  $("trouble").textContent = text;
  $("trouble").hidden = false;
}

function stop() {
  state.playing = null;
  state.scores = null;
  $("screen").pause();
  $("screen").removeAttribute("src");
  $("screen").load();
  $("player").hidden = true;
  document.querySelector("main").classList.remove("playing");
  for (const button of document.querySelectorAll('.hit[aria-current="true"]')) button.removeAttribute("aria-current");
}

// -------------------------------------------------------------------------------------------------------------- strip

async function loadScores(hit) {
  state.scores = null;
  drawStrip();
  const text = parameters().get("q");
  if (!text) return;
  try {
    const scores = await ask(`/api/scores?${new URLSearchParams({ q: text, video: hit.video })}`);
    if (state.playing === hit) state.scores = scores;
  } catch (error) { return; }  // the strip then shows the moment only
  drawStrip();
}

function drawStrip() {
  const strip = $("strip"), hit = state.playing;
  if (!hit) return;
  const scale = window.devicePixelRatio || 1, width = strip.clientWidth, height = strip.clientHeight;
  strip.width = width * scale;
  strip.height = height * scale;
  const pen = strip.getContext("2d"), colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  pen.scale(scale, scale);
  const x = (second) => second / hit.seconds * width;
  if (state.scores && state.scores.scores.length) {
    const values = state.scores.scores, step = state.scores.step;
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    values.forEach((value, i) => {
      const tall = high > low ? 4 + (height - 12) * (value - low) / (high - low) : 4, second = i * step;
      pen.fillStyle = colour(second >= hit.start && second < hit.end ? "--moment" : "--bar");
      pen.fillRect(x(second), height - 4 - tall, Math.max(1, x(step) - 0.5), tall);
    });
  }
  pen.fillStyle = colour("--moment");
  pen.fillRect(x(hit.start), height - 4, Math.max(2, x(hit.end - hit.start)), 4);
  pen.fillStyle = colour("--text");
  pen.fillRect(x(now()) - 1, 0, 2, height);
  strip.setAttribute("aria-valuemin", "0");
  strip.setAttribute("aria-valuemax", String(hit.seconds));
  strip.setAttribute("aria-valuenow", String(Math.round(now())));
  strip.setAttribute("aria-valuetext", clock(now()));
}

const now = () => state.offset + $("screen").currentTime;

// ------------------------------------------------------------------------------------------------------------- labels

async function judge(right) {
  const hit = state.playing, text = parameters().get("q");
  if (!hit || !text) { $("kept").textContent = "Only hits of a sentence can be judged."; return; }
  try {
    const label = { query: text, video: hit.video, start: hit.start, end: hit.end, right };
    await ask("/api/label", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(label) });
    $("kept").textContent = right ? "Kept as right." : "Kept as wrong.";
  } catch (error) { $("kept").textContent = error.message; }
}

// ----------------------------------------------------------------------------------------------------------- keyboard

function moveFocus(key) {
  const cards = [...document.querySelectorAll(".hit")];
  if (!cards.length || $("hits").hidden) return false;
  const at = cards.indexOf(document.activeElement);
  const columns = cards.filter((c) => c.getBoundingClientRect().top === cards[0].getBoundingClientRect().top).length || 1;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  if (at < 0) { cards[0].focus(); return true; }
  if (key === "ArrowUp" && at + by < 0) { $("query").focus(); return true; }
  (cards[at + by] || cards[at]).focus();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target instanceof HTMLElement ? event.target.closest("input, select, video, canvas") : null;
  if (event.key === "/" && !(field && field.id === "query")) { $("query").focus(); $("query").select(); event.preventDefault(); }
  else if (event.key === "Escape") {
    if (state.playing) { const old = stretch(state.playing); go({ play: null }); const back = [...document.querySelectorAll(".hit")].find((c) => c.dataset.stretch === old); if (back) back.focus(); }
    else $("query").blur();
    event.preventDefault();
  } else if (event.key.startsWith("Arrow")) {
    const inText = field && field.id === "query";
    if ((!field || (inText && event.key === "ArrowDown")) && moveFocus(event.key)) event.preventDefault();
  }
});

$("strip").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
  if (by && state.playing) { jump(Math.min(Math.max(0, now() + by), state.playing.seconds - 1)); event.preventDefault(); }
});
$("strip").addEventListener("click", (event) => {
  const box = $("strip").getBoundingClientRect();
  if (state.playing) jump(Math.floor((event.clientX - box.left) / box.width * state.playing.seconds));
});
$("form").addEventListener("submit", (event) => { event.preventDefault(); searchNow(); });
$("said").addEventListener("change", searchNow);
$("video").addEventListener("change", searchNow);
$("highlights").addEventListener("click", () => go({ highlights: 1, q: null, like: null, play: null }));
$("anyway").addEventListener("click", () => { $("hits").hidden = false; $("anyway").hidden = true; });
$("like").addEventListener("click", () => go({ like: stretch(state.playing), q: null, highlights: null, play: null }));
$("right").addEventListener("click", () => judge(true));
$("wrong").addEventListener("click", () => judge(false));
$("close").addEventListener("click", () => go({ play: null }));
$("screen").addEventListener("timeupdate", drawStrip);
$("screen").addEventListener("error", trouble);
window.addEventListener("resize", drawStrip);
window.addEventListener("popstate", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawStrip);
show();
