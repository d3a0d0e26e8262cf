// Signing in says what went wrong without leaving the page. Without this script the form works as forms do.
const form = document.getElementById("login");
const token = document.getElementById("token");
const problem = document.getElementById("problem");
const button = form.querySelector("button");

const PROBLEMS = {
  401: "This is not the token.",
  403: "This is not the token.",
  429: "Too many attempts. Wait a minute, then try again.",
};

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  problem.textContent = "";
  let said;
  try {
    const body = new URLSearchParams({ token: token.value });
    const answer = await fetch(form.getAttribute("action"), { method: "POST", body });
    if (answer.ok) {
      location.replace("./" + location.hash);
      return;
    }
    said = PROBLEMS[answer.status] ?? `The camera answered with ${answer.status}.`;
  } catch {
    said = "The camera does not answer.";
  }
  problem.textContent = said;
  token.setAttribute("aria-invalid", "true");
  button.disabled = false;
  token.select();
});
