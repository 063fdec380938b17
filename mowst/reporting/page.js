const charts = JSON.parse(document.getElementById("charts").textContent);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Colours of the page, in light and in dark, and room for words on narrow screens.
function dressed(given) {
  const layout = structuredClone(given);
  const ink = style("--ink"), grid = style("--grid");
  for (const name of ["xaxis", "yaxis"]) {
    const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, automargin: true, fixedrange: true, ...layout[name] };
    if (axis.title) Object.assign(axis.title, { font: { size: 12 }, standoff: 8 });
    layout[name] = axis;
  }
  return {
    height: 360, margin: { l: 10, r: 20, t: 10, b: 10 }, dragmode: false,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { font: { size: 12 } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    ...layout,
  };
}

function draw() {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const chart = charts[Number(place.dataset.chart)];
    Plotly.react(place, structuredClone(chart.data), dressed(chart.layout), { displayModeBar: false, responsive: true });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.documentElement.dataset.drawn = "yes";
