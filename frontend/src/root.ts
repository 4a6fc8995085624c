/** The path prefix that a proxy mounts the server below, such as `/team`. All addresses and stored names go through here. */

/** Without a trailing slash; empty where the server has its origin to itself. */
export const root: string = globalThis.document?.querySelector<HTMLMetaElement>('meta[name="root"]')?.content ?? "";

/** Returns the address of a path of the server. */
export const addressOf = (path: string): string => root + path;

/** Returns the path of the server that an address of this origin has; one outside the prefix is returned as it is. */
export function pathOf(address: string, prefix = root): string {
  if (address === prefix) return "/";
  return address.startsWith(`${prefix}/`) ? address.slice(prefix.length) : address;
}

/** Returns the path with query that a `Link` header leads to. It has the prefix already, or is relative to `from`. */
export function linked(link: string, from: string, prefix = root): string {
  const { pathname, search } = new URL(link, from);
  return pathOf(pathname, prefix) + search;
}

/** Returns a name for stored data, channels and locks: servers below other prefixes of this origin have other names. */
export const scoped = (name: string): string => (root ? `${root}:${name}` : name);

/** The origin and the prefix, with which WebSockets and links to share begin. */
export const base = (): string => location.origin + root;
