import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Renderer, type WorkerLike } from "../src/preview";
import type { Job } from "../src/previewWorker";

class FakeWorker implements WorkerLike {
  static all: FakeWorker[] = [];
  jobs: Job[] = [];
  ended = false;
  onmessage: WorkerLike["onmessage"] = null;
  onerror: WorkerLike["onerror"] = null;

  constructor() {
    FakeWorker.all.push(this);
  }

  postMessage(job: Job): void {
    this.jobs.push(job);
  }

  terminate(): void {
    this.ended = true;
  }

  answer(html: string | null, number = this.jobs.at(-1)?.number): void {
    this.onmessage?.call(this as never, { data: { number, html } } as MessageEvent);
  }
}

const worker = (index = 0): FakeWorker => FakeWorker.all[index] as FakeWorker;

beforeEach(() => {
  vi.useFakeTimers();
  FakeWorker.all = [];
});
afterEach(() => vi.useRealTimers());

describe("a renderer", () => {
  it("renders one text at a time, and then the last one that waits", async () => {
    const renderer = new Renderer(() => new FakeWorker());
    const [first, second, third] = ["a", "b", "c"].map((text) => renderer.render(text));
    expect(worker().jobs.map(({ text }) => text)).toEqual(["a"]);
    worker().answer("<p>a</p>");
    expect(await first).toBe("<p>a</p>");
    expect(await second).toBeNull();
    expect(worker().jobs.map(({ text }) => text)).toEqual(["a", "c"]);
    worker().answer("<p>c</p>");
    expect(await third).toBe("<p>c</p>");
    expect(FakeWorker.all).toHaveLength(1);
  });

  it("ends a worker that takes too long, and starts another one for the next text", async () => {
    const renderer = new Renderer(() => new FakeWorker());
    const loaded = renderer.render("a");
    worker().answer("");
    expect(await loaded).toBe("");
    const slow = renderer.render("slow");
    vi.advanceTimersByTime(2_000);
    expect(await slow).toBeNull();
    expect(worker().ended).toBe(true);
    const next = renderer.render("next");
    worker(1).answer("<p>next</p>");
    expect(await next).toBe("<p>next</p>");
  });

  it("waits longer for a worker that is being loaded", async () => {
    const renderer = new Renderer(() => new FakeWorker());
    const first = renderer.render("a");
    vi.advanceTimersByTime(10_000);
    worker().answer(null, 0);
    vi.advanceTimersByTime(1_000);
    worker().answer("<p>a</p>");
    expect(await first).toBe("<p>a</p>");
    const slow = renderer.render("slow");
    vi.advanceTimersByTime(2_000);
    expect(await slow).toBeNull();
    const again = renderer.render("again");
    vi.advanceTimersByTime(10_000);
    worker(1).answer(null, 0);
    vi.advanceTimersByTime(2_000);
    expect(await again).toBeNull();
  });

  it("takes no late answer for that of another text", async () => {
    const renderer = new Renderer(() => new FakeWorker());
    const first = renderer.render("a");
    worker().answer("<p>a</p>");
    await first;
    const second = renderer.render("b");
    worker().answer("<p>a</p>", 1);
    worker().answer("<p>b</p>");
    expect(await second).toBe("<p>b</p>");
  });

  it("answers when a worker fails, or cannot be started", async () => {
    const renderer = new Renderer(() => new FakeWorker());
    const failed = renderer.render("a");
    worker().onerror?.call(worker() as never, new Event("error") as ErrorEvent);
    expect(await failed).toBeNull();
    vi.spyOn(console, "warn").mockImplementation(() => {});
    const broken = new Renderer(() => {
      throw new Error("no workers here");
    });
    expect(await broken.render("a")).toBeNull();
  });
});
