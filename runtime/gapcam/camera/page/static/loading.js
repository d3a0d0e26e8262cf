// Where a part of the page was not delivered, says so, and loads the page again once the server delivers it.
"use strict";
(() => {
  let known = false;
  const say = (text) => {
    document.getElementById("connection").dataset.state = "lost";
    document.getElementById("connection-text").textContent = "Not loaded";
    document.getElementById("waiting").textContent = text;
  };
  const failed = () => performance.getEntriesByType("resource").find(({ responseStatus }) => responseStatus >= 400)?.name;

  async function again(address) {
    for (;;) {
      let wait = 5, why = "The camera's server does not answer.";
      try {
        const answer = await fetch(address, { cache: "no-store" });
        if (answer.ok) return location.reload();
        wait = Math.min(120, Math.max(1, Number(answer.headers.get("retry-after")) || 5));
        why = answer.status === 429 ? "The camera's server was asked too often." : `The camera's server answered with ${answer.status}.`;
      } catch { /* it does not answer */ }
      for (; wait > 0; wait--) {
        say(`${why} This page is loaded again in ${Math.ceil(wait)} s.`);
        await new Promise((later) => setTimeout(later, 1000));
      }
    }
  }

  // What is not delivered says so on its own element; a module also for those that it imports.
  addEventListener("error", ({ target }) => {
    if (known || !(target instanceof HTMLScriptElement || target instanceof HTMLLinkElement)) return;
    known = true;
    const start = () => {
      say("A part of this page did not come. It is loaded again.");
      setTimeout(() => again(failed() ?? target.src ?? target.href), 1000);
    };
    if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
    else start();
  }, true);
})();
