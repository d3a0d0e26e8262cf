// Light or dark, before the first paint: as the system has it, or as was chosen here.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("gapcam.theme");
  } catch { /* no storage: the system's */ }
  const apply = () => {
    root.dataset.theme = chosen ?? (dark.matches ? "dark" : "light");
    dispatchEvent(new Event("gapcam-theme"));
  };
  dark.addEventListener("change", apply);
  window.toggleTheme = () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    // The same as the system's: follow the system again.
    if ((chosen === "dark") === dark.matches) chosen = null;
    try {
      if (chosen) localStorage.setItem("gapcam.theme", chosen);
      else localStorage.removeItem("gapcam.theme");
    } catch { /* it holds until the page is left */ }
    apply();
    return root.dataset.theme;
  };
  apply();
})();
