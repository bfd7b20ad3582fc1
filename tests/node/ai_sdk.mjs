// The usual cases of the AI SDK against one server: text, tools, objects, images, reasoning, an abort and an error.
//
//     node --input-type=module - '{"url": "http://127.0.0.1:8080", "provider": "openai", "store": true}' < ai_sdk.mjs
//
// Run it from the folder that has node_modules. It prints one JSON object: what each case came to, and how often each
// case had its tool run. The first word of a case's prompt is its name; by that a scripted model knows what to answer.

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, isStepCount, streamText, tool } from 'ai';
import { z } from 'zod';

const { url, provider, store } = JSON.parse(process.argv.at(-1));

const providers = {
  openai: () => createOpenAI({ baseURL: `${url}/v1`, apiKey: 'k' }),
  chat: () => createOpenAI({ baseURL: `${url}/v1`, apiKey: 'k' }).chat,
  compatible: () =>
    createOpenAICompatible({ name: 'compatible', baseURL: `${url}/v1`, apiKey: 'k', supportsStructuredOutputs: true }),
  anthropic: () => createAnthropic({ baseURL: `${url}/v1`, apiKey: 'k' }),
};
const anthropic = provider === 'anthropic';
const models = providers[provider]();
const plain = models(anthropic ? 'claude-haiku-4-5' : 'gpt-4.1');
const thinking = models(anthropic ? 'claude-haiku-4-5' : 'gpt-5.2');
// Without `store`, the SDK keeps reasoning itself, and asks for it in the form that only its provider can read.
const openai = { ...(store === null ? {} : { store }), reasoningEffort: 'low', reasoningSummary: 'auto' };
const options = { openai: store === null ? {} : { store } };
const thinkingOptions = { openai, anthropic: { thinking: { type: 'enabled', budgetTokens: 2000 } } };

const PIXEL =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const weather = runs => ({
  weather: tool({
    description: 'Tells the temperature in a city.',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      runs.push(city);
      return `${city}: 7 degrees`;
    },
  }),
});
const common = { model: plain, instructions: 'Be brief.', maxRetries: 0, providerOptions: options };

const cases = {
  async generate() {
    const { text, finishReason, usage } = await generateText({ ...common, prompt: 'generate: Say hello.' });
    return { text, finishReason, counted: usage.outputTokens > 0 };
  },

  async stream() {
    const result = streamText({ ...common, prompt: 'stream: Say hello.' });
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    return { text: pieces.join(''), inPieces: pieces.length > 1, finishReason: await result.finishReason };
  },

  async tool() {
    const { weather: whole } = weather([]);
    const { execute, ...onlyDeclared } = whole;
    const result = await generateText({
      ...common,
      prompt: 'tool: How warm is it in Oslo?',
      tools: { weather: onlyDeclared },
    });
    const calls = result.toolCalls.map(({ toolName, input }) => ({ toolName, input }));
    return { calls, finishReason: result.finishReason };
  },

  async steps() {
    const runs = [];
    const result = await generateText({
      ...common,
      prompt: 'steps: How warm is it in Oslo, and then in Rome?',
      tools: weather(runs),
      stopWhen: isStepCount(5),
    });
    return { text: result.text, steps: result.steps.length, runs };
  },

  async parallel() {
    const runs = [];
    const result = streamText({
      ...common,
      prompt: 'parallel: How warm is it in Oslo and Rome?',
      tools: weather(runs),
      stopWhen: isStepCount(5),
    });
    await result.consumeStream();
    return { text: await result.text, steps: (await result.steps).length, runs: runs.sort() };
  },

  async object() {
    const schema = z.object({ city: z.string(), degrees: z.number() });
    const { output } = await generateText({
      ...common,
      prompt: 'object: How warm is it in Oslo?',
      output: Output.object({ schema }),
    });
    return { output };
  },

  async turns() {
    const messages = [{ role: 'user', content: 'turns: My name is Ada.' }];
    const texts = [];
    for (const next of ['What is my name?', 'And backwards?', null]) {
      const { text, response } = await generateText({ ...common, messages });
      texts.push(text);
      messages.push(...response.messages, ...(next ? [{ role: 'user', content: next }] : []));
    }
    return { texts };
  },

  // The id of the response before, and the whole history with it.
  async chained() {
    const messages = [{ role: 'user', content: 'chained: My name is Ada.' }];
    const texts = [];
    let previousResponseId;
    for (const next of ['What is my name?', 'And backwards?', null]) {
      const { text, response, finalStep } = await generateText({
        ...common,
        messages,
        providerOptions: { openai: { ...options.openai, previousResponseId } },
      });
      texts.push(text);
      previousResponseId = finalStep.providerMetadata.openai.responseId;
      messages.push(...response.messages, ...(next ? [{ role: 'user', content: next }] : []));
    }
    return { texts, byId: previousResponseId.startsWith('resp_') };
  },

  async image() {
    const content = [
      { type: 'text', text: 'image: What is it?' },
      { type: 'file', data: PIXEL, mediaType: 'image/png' },
    ];
    const { text } = await generateText({ ...common, messages: [{ role: 'user', content }] });
    return { text };
  },

  async reasoning() {
    const runs = [];
    const messages = [{ role: 'user', content: 'reasoning: How warm is it in Oslo?' }];
    const texts = [];
    let thought = '';
    for (const next of ['Is that cold?', null]) {
      const result = streamText({
        ...common,
        model: thinking,
        messages,
        tools: weather(runs),
        stopWhen: isStepCount(5),
        providerOptions: thinkingOptions,
      });
      await result.consumeStream();
      const steps = await result.steps;
      texts.push(steps.at(-1).text);
      thought += steps.map(step => step.reasoningText ?? '').join('');
      messages.push(...(await result.responseMessages), ...(next ? [{ role: 'user', content: next }] : []));
    }
    return { texts, thought, runs };
  },

  async abort() {
    const controller = new AbortController();
    const result = streamText({ ...common, prompt: 'abort: Count.', abortSignal: controller.signal });
    let text = '';
    let aborted = false;
    for await (const part of result.stream) {
      if (part.type === 'text-delta') {
        text += part.text;
        controller.abort();
      }
      aborted ||= part.type === 'abort';
    }
    return { begun: text.length > 0, aborted };
  },

  async error() {
    const failed = await generateText({ ...common, prompt: 'error: Fail.' }).catch(error => error);
    return { statusCode: failed.statusCode, told: /Not with me/.test(failed.message), retryable: failed.isRetryable };
  },
};

if (provider !== 'openai' || store === false) delete cases.chained;

const results = {};
for (const [name, run] of Object.entries(cases)) {
  try {
    results[name] = await run();
  } catch (error) {
    results[name] = { failed: `${error.name}: ${error.message}`, body: error.responseBody };
  }
}
console.log(JSON.stringify(results));
