/** Renders Markdown in a worker, with a time limit. */

import type { Job, Result } from "./previewWorker";

/** Milliseconds for a text. */
const LIMIT = 2_000;
/** Milliseconds for loading the worker. */
const LOADING_LIMIT = 15_000;

/** What a renderer needs of a worker. */
export type WorkerLike = Pick<Worker, "postMessage" | "terminate" | "onmessage" | "onerror">;

interface Waiting {
  text: string;
  done: (html: string | null) => void;
}

/**
 * Renders one text at a time, and of those that wait only the last one.
 *
 * A worker that does not answer in time is terminated, and the next text gets another one.
 */
export class Renderer {
  #worker: WorkerLike | null = null;
  #loaded = false;
  #number = 0;
  #current: Waiting | null = null;
  #next: Waiting | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly start: () => WorkerLike) {}

  /** Returns the HTML of a text, which is not safe yet; null if it takes too long, or a later text came before it. */
  render(text: string): Promise<string | null> {
    return new Promise((done) => {
      this.#next?.done(null);
      this.#next = { text, done };
      if (!this.#current) this.#work();
    });
  }

  #work(): void {
    const next = this.#next;
    this.#next = null;
    this.#current = next;
    if (!next) return;
    const worker = this.#started();
    if (!worker) {
      this.#finish(null);
      return;
    }
    const number = ++this.#number;
    worker.onmessage = ({ data }: MessageEvent<Result>) => {
      if (!this.#loaded) {
        this.#loaded = true; // the time for the text begins
        this.#wait(LIMIT);
      }
      if (data.number === number) this.#finish(data.html);
    };
    worker.onerror = () => this.#giveUp();
    this.#wait(this.#loaded ? LIMIT : LOADING_LIMIT);
    worker.postMessage({ number, text: next.text } satisfies Job);
  }

  #started(): WorkerLike | null {
    try {
      this.#worker ??= this.start();
    } catch (error) {
      console.warn("The preview cannot be rendered", error);
    }
    return this.#worker;
  }

  #wait(milliseconds: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#giveUp(), milliseconds);
  }

  #giveUp(): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#loaded = false;
    this.#finish(null);
  }

  #finish(html: string | null): void {
    clearTimeout(this.#timer);
    const done = this.#current?.done;
    this.#current = null;
    done?.(html);
    if (!this.#current) this.#work();
  }
}
