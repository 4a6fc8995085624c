// What the two peers in JavaScript share: the notes in MongoDB, and the REST calls on them.
import { MongoClient } from "mongodb";

const fits = (text) => typeof text === "string" && text.length >= 3 && text.length <= 50;
const asPublic = ({ _id, ...rest }) => ({ id: _id, ...rest });
const missing = [404, '{"detail":"Note not found"}'];

/** Makes a hundred notes; what it returns answers a request with [status, JSON], and publishes what is written. */
export async function rest(database, publish) {
  const notes = (await new MongoClient(process.env.MONGO_URL).connect()).db(database).collection("notes");
  const note = { title: "hello", description: "world", content: "", version: 1 };
  await notes.deleteMany({});
  await notes.insertMany(Array.from({ length: 100 }, (_, at) => ({ _id: at + 1, ...note })));
  return async (method, path, body) => {
    const _id = Number(path.split("/")[2]);
    if (method === "GET" && !_id) return [200, JSON.stringify((await notes.find().limit(100).toArray()).map(asPublic))];
    if (method === "GET") {
      const found = await notes.findOne({ _id });
      return found ? [200, JSON.stringify(asPublic(found))] : missing;
    }
    const { title, description, content = "" } = JSON.parse(await body());
    if (!fits(title) || !fits(description)) return [422, '{"detail":"invalid"}'];
    const change = { $set: { title, description, content }, $inc: { version: 1 } };
    const saved = await notes.findOneAndUpdate({ _id }, change, { returnDocument: "after" });
    if (!saved) return missing;
    const text = JSON.stringify(asPublic(saved));
    await publish(text);
    return [200, text];
  };
}
