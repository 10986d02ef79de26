// Sends requests to the server; an error response is thrown as an Error with the server's message.

export async function ask(path, method = "GET", body = undefined) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The server is not responding. Restart it with nnbackend demo.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const place = document.getElementById("trouble");

export function trouble(message) {
  place.textContent = message;
  place.hidden = !message;
}
