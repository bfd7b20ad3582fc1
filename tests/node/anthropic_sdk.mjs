// The ways to hold a conversation with Anthropic's SDK, against one server: its tool runner, a thread, and plain requests.
//
//     node --input-type=module - '{"url": "http://127.0.0.1:8080", "other": "http://127.0.0.1:8081"}' < anthropic_sdk.mjs
//
// Run it from the folder that has node_modules. It prints one JSON object: what each case came to, and the `thread` and
// the number of messages of each of its requests. A case that loses its thread goes on at the other server, which knows
// nothing. The first word of a case's prompt is its name; by that a scripted model knows what to answer.

import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { z } from 'zod';

const { url, other } = JSON.parse(process.argv.at(-1));
const common = { model: 'claude-haiku-4-5', max_tokens: 64, system: 'Be brief.' };

// A client, and what it has sent. From the request with the number `lostFrom` on, the other server gets everything.
function clientOf({ lostFrom = Infinity } = {}) {
  const sent = [];
  const fetchOf = (address, init) => {
    const { thread, messages, system } = JSON.parse(init.body);
    sent.push([thread?.type ?? null, messages.length, system !== undefined]);
    return fetch(sent.length < lostFrom ? address : String(address).replace(url, other), init);
  };
  return { client: new Anthropic({ baseURL: url, apiKey: 'k', maxRetries: 0, fetch: fetchOf }), sent };
}

const textOf = message => message.content.map(block => block.text ?? '').join('');

// A whole session of the tool runner, which uses threads by default, towards any server.
async function runTools(name, { stream, lostFrom }) {
  const { client, sent } = clientOf({ lostFrom });
  const runs = [];
  const weather = betaZodTool({
    name: 'weather',
    description: 'Tells the temperature in a city.',
    inputSchema: z.object({ city: z.string() }),
    run: ({ city }) => {
      runs.push(city);
      return `${city}: 7 degrees`;
    },
  });
  const runner = client.beta.messages.toolRunner({
    ...common,
    stream,
    tools: [weather],
    messages: [{ role: 'user', content: `${name}: How warm is it in Oslo, and then in Rome?` }],
  });
  for await (const message of runner) if (stream) await message.done();
  return { text: textOf(await runner.done()), runs, sent };
}

const cases = {
  runner: () => runTools('runner', { stream: false }),
  streamed: () => runTools('streamed', { stream: true }),
  lost: () => runTools('lost', { stream: true, lostFrom: 3 }),

  async thread() {
    const { client, sent } = clientOf();
    const thread = client.beta.messages.thread(common);
    const texts = [];
    for (const content of ['thread: My name is Ada.', 'What is my name?'])
      texts.push(textOf(await thread.send({ role: 'user', content })));
    texts.push(textOf(await thread.fork().send({ role: 'user', content: 'And backwards?' })));
    return { texts, sent };
  },

  async plain() {
    const { client, sent } = clientOf();
    const messages = [{ role: 'user', content: 'plain: My name is Ada.' }];
    const first = await client.messages.create({ ...common, messages });
    messages.push({ role: 'assistant', content: first.content }, { role: 'user', content: 'What is my name?' });
    const stream = client.messages.stream({ ...common, messages });
    let pieces = '';
    stream.on('text', piece => (pieces += piece));
    const second = await stream.finalMessage();
    return { texts: [textOf(first), pieces], whole: textOf(second) === pieces, sent };
  },

  // No answer, only what it is refused with.
  async unknown() {
    const { client } = clientOf();
    const messages = [{ role: 'user', content: 'unknown: Hello.' }];
    const thread = { type: 'continue', previous_message_id: 'msg_unknown' };
    const failed = await client.beta.messages.create({ ...common, messages, thread }).catch(error => error);
    return { name: failed.constructor.name, code: failed.error?.error?.details?.error_code, named: !!failed.requestID };
  },
};

const results = {};
for (const [name, run] of Object.entries(cases)) {
  try {
    results[name] = await run();
  } catch (error) {
    results[name] = { failed: `${error.name}: ${error.message}` };
  }
}
console.log(JSON.stringify(results));
