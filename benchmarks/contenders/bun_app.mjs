// The fast peer: Bun, whose WebSocket publish is native and batches by itself.
// Use: PORT=… MONGO_URL=… REDIS_URL=… bun bun_app.mjs
import { RedisClient } from "bun";
import { rest } from "./notes.mjs";

const CHANNEL = "bun";
const [listening, publishing] = [new RedisClient(process.env.REDIS_URL), new RedisClient(process.env.REDIS_URL)];
await Promise.all([listening.connect(), publishing.connect()]);
const answer = await rest(CHANNEL, (text) => publishing.send("PUBLISH", [CHANNEL, text]));
const server = Bun.serve({
  port: Number(process.env.PORT),
  hostname: "127.0.0.1",
  async fetch(request, server) {
    const { pathname } = new URL(request.url);
    if (pathname === "/ws") return server.upgrade(request) ? undefined : new Response("", { status: 400 });
    const [status, text] = await answer(request.method, pathname, () => request.text());
    return new Response(text, { status, headers: { "Content-Type": "application/json" } });
  },
  websocket: {
    open: (socket) => socket.subscribe("all"),
    message() {},
    perMessageDeflate: false,
  },
});
await listening.subscribe(CHANNEL, (message) => server.publish("all", message));
