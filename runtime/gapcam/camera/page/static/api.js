// Asks the server for JSON. Whoever is not signed in goes to the page where one does.

/** The server did not answer, or not with what was asked for. */
export class ApiError extends Error {}

let leaving = false;

/** Goes to the page where one signs in, once however many ask for it: a second going would cut the first one off. */
export function toSignIn() {
  if (!leaving) location.replace("login" + location.hash);
  leaving = true;
  return new Promise(() => {}); // this page ends here
}

/**
 * @param {string} path relative to the page, so that it also works behind a proxy's prefix
 * @param {{signal?: AbortSignal}} [options]
 */
export async function getJson(path, { signal } = {}) {
  const limit = AbortSignal.timeout(5000);
  let answer;
  try {
    answer = await fetch(path, { signal: signal ? AbortSignal.any([signal, limit]) : limit, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The camera's server does not answer.");
  }
  if (answer.status === 401) await toSignIn();
  if (!answer.ok) throw new ApiError(`The camera's server answered ${path.split("?")[0]} with ${answer.status}.`);
  return answer.json();
}
