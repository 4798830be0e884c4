"use strict";
// Draws every chart from the specification inside its element; draws again where the colour scheme changes.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function look() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const text = { labelColor: colour("--soft"), titleColor: colour("--soft"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: 400 };
  return {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: null },
    axis: { ...text, gridColor: colour("--line"), domainColor: colour("--line"), tickColor: colour("--line") },
    legend: text,
  };
}

async function draw() {
  for (const place of document.querySelectorAll(".chart")) {
    place.specification ??= JSON.parse(place.querySelector("script").textContent);
    const options = { actions: false, renderer: "canvas", config: look(), tooltip: { theme: dark.matches ? "dark" : "light" } };
    await vegaEmbed(place, structuredClone(place.specification), options);
  }
  document.documentElement.dataset.drawn = dark.matches ? "dark" : "light";
}

draw();
dark.addEventListener("change", draw);
