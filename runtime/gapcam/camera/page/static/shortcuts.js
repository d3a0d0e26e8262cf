// Shortcuts of one key, and the dialog that lists them and turns them off.

const dialog = document.getElementById("shortcuts");
const OFF = "gapcam.shortcuts";

/** @param commands [[key, what it does, () => ...]]; digits 1 to 9 are one row, with the key "1–9" */
export function connectShortcuts(commands) {
  const on = document.getElementById("keys-on");
  try {
    on.checked = localStorage.getItem(OFF) !== "off";
  } catch {
    on.checked = true;
  }
  on.addEventListener("change", () => {
    try {
      localStorage.setItem(OFF, on.checked ? "on" : "off");
    } catch { /* it holds until the page is left */ }
  });
  const list = document.getElementById("keys");
  for (const [key, what] of commands) {
    const term = document.createElement("dt");
    const cap = document.createElement("kbd");
    const meaning = document.createElement("dd");
    cap.textContent = key;
    meaning.textContent = what;
    term.append(cap);
    list.append(term, meaning);
  }
  document.getElementById("help").addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    if (!on.checked || dialog.open || event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    const digit = /^[1-9]$/.test(event.key);
    const command = commands.find(([key]) => key === (digit ? "1–9" : event.key));
    if (!command) return;
    event.preventDefault();
    command[2](digit ? Number(event.key) : undefined);
  });
}

/** Whether a key means a letter here. Lists jump to the letter that is pressed. */
function typing(target) {
  return target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement
    || (target instanceof HTMLInputElement && !["checkbox", "radio", "range"].includes(target.type));
}
