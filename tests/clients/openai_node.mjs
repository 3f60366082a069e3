// What openai-node makes of the gateway, as JSON on stdout. Run by test_openai_node.py.
import OpenAI from "openai";

const { embed, texts, chat } = JSON.parse(process.argv[2]);
const client = new OpenAI({ apiKey: "none", maxRetries: 0, timeout: 120_000 }); // OPENAI_BASE_URL says where

const vectors = await client.embeddings.create({ model: embed, input: texts });
const whole = await client.chat.completions.create(chat);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const refused = await client.embeddings.create({ model: "nope", input: "a" }).catch((error) => error);

console.log(
  JSON.stringify({
    vectors: vectors.data.map((item) => item.embedding),
    whole: whole.choices[0].message.content,
    streamed,
    refused: { name: refused.constructor.name, code: refused.code, type: refused.type },
  }),
);
