/** The path prefix of the server, as in `../root.ts`: a module of both would be one more request of the page. */
export const prefix = document.querySelector<HTMLMetaElement>('meta[name="root"]')?.content ?? "";
