// The same on Node: ws, and a loop over its clients.
// Use: PORT=… MONGO_URL=… REDIS_URL=… node ws_app.mjs
import { createServer } from "node:http";
import { text as whole } from "node:stream/consumers";
import { createClient } from "redis";
import { WebSocketServer } from "ws";
import { rest } from "./notes.mjs";

const CHANNEL = "ws";
const publishing = await createClient({ url: process.env.REDIS_URL }).connect();
const listening = await publishing.duplicate().connect();
const answer = await rest(CHANNEL, (text) => publishing.publish(CHANNEL, text));
const server = createServer(async (request, response) => {
  const [status, text] = await answer(request.method, request.url, () => whole(request));
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
});
const sockets = new WebSocketServer({ server, path: "/ws" });
sockets.on("connection", (socket) => socket.on("error", () => socket.terminate()));
await listening.subscribe(CHANNEL, (message) => {
  for (const socket of sockets.clients) socket.send(message);
});
server.listen({ port: Number(process.env.PORT), host: "127.0.0.1", backlog: 2048 });
