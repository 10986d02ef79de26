// Asking the server; a refusal becomes an Error with the server's one message.

export async function ask(path, method = "GET", body = undefined) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Error("The server does not answer. Start it again with nnbackend demo.");
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
