/** Whether the server answers this page. */

import { signal } from "@preact/signals";

export const reachable = signal(true);
/** The server does not want this page back. */
export const refused = signal(false);
/** The server asked not to be written to that often. */
export const slowed = signal(false);
