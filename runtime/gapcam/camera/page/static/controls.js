// The controls of the look: switches, sliders, colours. They write to the view, and show what it holds.
import { drawColors } from "./colormaps.js";
import { percent } from "./picture.js";

const SWITCHES = ["map", "boxes"];
const SLIDERS = ["alpha", "threshold"];

const element = (id) => document.getElementById(id);

/** @param {import("./view.js").View} view */
export function connectControls(view, colormaps) {
  const colormap = element("colormap");
  colormap.replaceChildren(...colormaps.map((name) => new Option(title(name), name)));
  colormap.addEventListener("change", () => view.set({ colormap: colormap.value }));
  for (const name of SWITCHES) element(name).addEventListener("change", (event) => view.set({ [name]: event.target.checked }));
  for (const name of SLIDERS) element(name).addEventListener("input", (event) => view.set({ [name]: Number(event.target.value) }));
  element("reset").addEventListener("click", () => view.reset());

  const show = () => {
    for (const name of SWITCHES) element(name).checked = view.values[name];
    for (const name of SLIDERS) {
      const slider = element(name);
      if (Number(slider.value) !== view.values[name]) slider.value = view.values[name];
      const text = percent(view.values[name]);
      element(`${name}-value`).textContent = text;
      slider.setAttribute("aria-valuetext", text);
    }
    colormap.value = view.values.colormap;
    element("scale").hidden = !drawColors(element("colors"), view.values.colormap);
  };
  view.addEventListener("change", show);
  show();
}

/** "twilight_shifted" -> "Twilight shifted" */
function title(name) {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}
