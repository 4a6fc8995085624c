// Stock Yjs clients, controlled over standard input: one JSON command per line, and one JSON response per line.
import * as readline from "node:readline";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.argv[2]}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const Y = await load("yjs");
const { WebsocketProvider } = await load("y-websocket");

const clients = [];

const commands = {
  connect({ urls, note, options = { maxBackoffTime: 200 }, map = false }) {
    for (const url of urls) {
      const doc = new Y.Doc();
      if (map) doc.getMap("elsewhere").set("key", "value");
      const provider = new WebsocketProvider(url, String(note), doc, { disableBc: true, ...options });
      const text = doc.getText("content");
      const client = { doc, provider, text, closes: [], times: [] };
      provider.on("connection-close", (event) => {
        client.closes.push(event?.code ?? 0);
        client.times.push(Date.now());
      });
      provider.awareness.setLocalState({ user: { name: `client ${clients.length}` } });
      clients.push(client);
    }
  },
  // Insert a word between two words, delete a character of it, and sometimes format it.
  write({ client, word, place }) {
    const { doc, text } = clients[client];
    const whole = text.toString();
    const borders = [0];
    for (let at = whole.indexOf(";"); at >= 0; at = whole.indexOf(";", at + 1)) borders.push(at + 1);
    const at = borders[Math.floor(place * borders.length)];
    doc.transact(() => {
      text.insert(at, `🦜x${word};`);
      text.delete(at + 2, 1);
    });
    if (place > 0.9) text.format(at, 2, { bold: true });
  },
  leave({ client }) {
    clients[client].provider.disconnect();
  },
  return({ client }) {
    clients[client].provider.connect();
  },
  states() {
    return clients.map(({ text, provider, closes, times }) => ({
      text: text.toString(),
      synced: provider.synced,
      here: provider.awareness.getStates().size,
      closes,
      times,
      unsuccessful: provider.wsUnsuccessfulReconnects,
    }));
  },
  // Apply updates in this order, and return the text and whether updates are pending.
  apply({ updates }) {
    const doc = new Y.Doc();
    for (const update of updates) Y.applyUpdate(doc, Buffer.from(update, "base64"));
    return { text: doc.getText("content").toString(), waits: Boolean(doc.store.pendingStructs || doc.store.pendingDs) };
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { command, ...more } = JSON.parse(line);
  console.log(JSON.stringify((await commands[command](more)) ?? null));
}
process.exit(0);
