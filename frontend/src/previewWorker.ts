/** Turns Markdown into HTML in a worker: there are texts that take any amount of time, and the page must not wait. */

import { htmlOf } from "./previewHtml";

/** A text to turn into HTML. */
export interface Job {
  number: number;
  text: string;
}

/** The HTML of a text, which is not safe yet; null if there is none. */
export interface Result {
  number: number;
  html: string | null;
}

/** The number of no job: says that the worker is loaded. */
const LOADED: Result = { number: 0, html: null };

postMessage(LOADED);
addEventListener("message", ({ data }: MessageEvent<Job>) => {
  const result: Result = { number: data.number, html: htmlOf(data.text) };
  postMessage(result);
});
