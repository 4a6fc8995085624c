/** Random, also where the page is not in a secure context and `crypto.randomUUID` is not there. */
export function unique(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
