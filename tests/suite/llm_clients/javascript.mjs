// The official JavaScript SDKs of OpenAI, Anthropic, Google, Mistral and Ollama, and the AI SDK with its providers, each over
// providers of every dialect. What python.py says of keys, routes and models holds here, too.
//
//   node javascript.mjs http://GATEWAY openai,anthropic,... FOLDER_WITH_NODE_MODULES
//
// Prints what failed and ends with 1.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [gateway, list, folder] = process.argv.slice(2);
const providers = list.split(",");
const require = createRequire(pathToFileURL(join(folder, "package.json")));
const load = (name) => import(pathToFileURL(require.resolve(name)));

const { default: OpenAI } = await load("openai");
const { zodResponseFormat, zodTextFormat } = await load("openai/helpers/zod");
const { default: Anthropic } = await load("@anthropic-ai/sdk");
const { GoogleGenAI, ApiError } = await load("@google/genai");
const { Mistral } = await load("@mistralai/mistralai");
const { MistralError } = await load("@mistralai/mistralai/models/errors");
const { Ollama } = await load("ollama");
const { generateText, streamText, embedMany, tool, stepCountIs, Output, APICallError } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createAnthropic } = await load("@ai-sdk/anthropic");
const { createGoogleGenerativeAI } = await load("@ai-sdk/google");
const { createMistral } = await load("@ai-sdk/mistral");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { z } = await load("zod");

globalThis.AI_SDK_LOG_WARNINGS = false;
const says = "The press runs within its";
const asks = [{ role: "user", content: "How is the press?" }];
const schema = { type: "object", properties: { n: { type: "integer" } }, required: ["n"] };
const Reading = z.object({ n: z.number() });
const picture =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const thinker = (provider) => `${provider}/${provider === "bedrock" ? "anthropic.claude-sonnet-4-able" : "gpt-5-able"}`;
const vectors = providers.filter((name) =>
  ["openai", "azure", "gemini", "mistral", "ollama", "vllm", "compatible"].includes(name),
);

const checks = [];
const over = (names, name, run) => names.forEach((provider) => checks.push([`${name} over ${provider}`, () => run(provider)]));
const check = (name, run) => checks.push([name, run]);
const all = async (stream) => {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
};
const raises = async (kind, wanted, call) => {
  let seen;
  try {
    seen = await call();
  } catch (error) {
    assert(error instanceof kind, `${error?.constructor?.name} is no ${kind.name}: ${error}`);
    for (const [name, value] of Object.entries(wanted)) assert.deepEqual(error[name], value, name);
    return error;
  }
  assert.fail(`nothing was raised, where ${kind.name} belongs: ${JSON.stringify(seen)}`);
};

/** A `fetch` that counts its requests. */
const counted = () => {
  const counting = (...request) => ((counting.requests += 1), fetch(...request));
  counting.requests = 0;
  return counting;
};

// --- OpenAI

const openai = (key = "fb-app", more = {}) =>
  new OpenAI({ baseURL: `${gateway}/v1`, apiKey: key, maxRetries: 0, timeout: 20_000, ...more });
const client = openai();
const look = { type: "function", function: { name: "look", parameters: schema } };

over(providers, "openai chat", async (provider) => {
  const model = `${provider}/m`;
  const answer = await client.chat.completions.create({ model, messages: asks });
  assert.equal(answer.choices[0].message.content, says);
  assert.equal(answer.usage.total_tokens, 16);
  const stream = client.chat.completions.stream({ model, messages: asks, stream_options: { include_usage: true } });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, says);
  assert.equal(final.usage.completion_tokens, 5);
});

over(providers, "openai tools, pictures and schemas", async (provider) => {
  const model = `${provider}/able`;
  let called;
  const runner = client.chat.completions.runTools({
    model,
    messages: asks,
    tools: [{ type: "function", function: { ...look.function, parse: JSON.parse, function: ({ n }) => ((called = n), "80 bar") } }],
  });
  assert.equal(await runner.finalContent(), says);
  assert.equal(called, 1);
  const streamed = client.chat.completions.stream({ model, messages: asks, tools: [look] });
  assert.equal((await streamed.finalMessage()).tool_calls[0].function.arguments, '{"n":1}');
  const content = [
    { type: "text", text: "What is this?" },
    { type: "image_url", image_url: { url: `data:image/png;base64,${picture}` } },
  ];
  const shown = await client.chat.completions.create({ model, messages: [{ role: "user", content }] });
  assert.equal(shown.choices[0].message.content, says);
  const parsed = await client.chat.completions.parse({
    model,
    messages: asks,
    response_format: zodResponseFormat(Reading, "reading"),
  });
  assert.deepEqual(parsed.choices[0].message.parsed, { n: 1 });
});

over(providers, "openai responses", async (provider) => {
  const model = `${provider}/able`;
  assert.equal((await client.responses.create({ model, input: "How is it?" })).output_text, says);
  const tools = [{ type: "function", name: "look", parameters: schema, strict: false }];
  const final = await client.responses.stream({ model, input: asks, tools }).finalResponse();
  assert.deepEqual(final.output.filter((item) => item.type === "function_call").map((item) => item.arguments), ['{"n":1}']);
  const parsed = await client.responses.parse({ model, input: asks, text: { format: zodTextFormat(Reading, "reading") } });
  assert.deepEqual(parsed.output_parsed, { n: 1 });
});

over(vectors, "openai vectors", async (provider) => {
  const answer = await client.embeddings.create({ model: `${provider}/m`, input: ["a", "b"] });
  assert.deepEqual(answer.data.map((row) => row.embedding), [Array(4).fill(0.25), Array(4).fill(0.25)]);
});

check("openai models", async () => {
  const names = (await all(client.models.list())).map((model) => model.id);
  assert(names.includes("named"), names);
  assert.equal((await client.models.retrieve("openai/m")).id, "openai/m");
});

over(providers, "openai errors", async (provider) => {
  const ask = (model, more = {}, who = client) => who.chat.completions.create({ model, messages: asks, ...more });
  await raises(OpenAI.AuthenticationError, { status: 401, code: "invalid_api_key" }, () => ask(`${provider}/m`, {}, openai("fb-wrong")));
  await raises(OpenAI.PermissionDeniedError, { status: 403 }, () => ask(`${provider}/m`, {}, openai("fb-narrow")));
  await raises(OpenAI.NotFoundError, { status: 404, code: "model_not_found" }, () => ask("nobody"));
  const limited = await raises(OpenAI.RateLimitError, { status: 429 }, () => ask(`${provider}/status-429-12`));
  assert.equal(limited.headers.get("retry-after"), "12");
  await raises(OpenAI.InternalServerError, { status: 503 }, () => ask(`${provider}/status-503`));
  await raises(OpenAI.APIError, {}, async () => all(await ask(`${provider}/error-3`, { stream: true })));
  await raises(OpenAI.APIError, {}, async () => all(await ask(`${provider}/half-3`, { stream: true })));
});

check("openai retries", async () => {
  const counting = counted();
  const patient = openai("fb-app", { maxRetries: 3, fetch: counting });
  const answer = await patient.chat.completions.create({ model: "once/flaky-2-e", messages: asks });
  assert.equal(answer.choices[0].message.content, says);
  assert.equal(counting.requests, 3);
});

// --- Anthropic

const anthropic = (key = "fb-app", more = {}) =>
  new Anthropic({ baseURL: gateway, apiKey: key, maxRetries: 0, timeout: 20_000, ...more });
const claude = anthropic();

over(providers, "anthropic messages", async (provider) => {
  const asked = { model: `${provider}/m`, max_tokens: 20, messages: asks };
  const answer = await claude.messages.create(asked);
  assert.equal(answer.content[0].text, says);
  const streamed = await claude.messages.stream(asked).finalMessage();
  assert.equal(streamed.content[0].text, says);
  assert.deepEqual([streamed.stop_reason, streamed.usage.output_tokens], ["end_turn", 5]);
  const count = await claude.messages.countTokens({ model: asked.model, messages: asks });
  assert(count.input_tokens >= 1 && count.input_tokens <= 30);
});

over(providers, "anthropic tools, pictures and thinking", async (provider) => {
  const tools = [{ name: "look", input_schema: schema }];
  const asked = { model: `${provider}/able`, max_tokens: 20, messages: asks, tools };
  const answer = await claude.messages.stream(asked).finalMessage();
  assert.equal(answer.stop_reason, "tool_use");
  const call = answer.content.find((block) => block.type === "tool_use");
  assert.deepEqual([call.name, call.input], ["look", { n: 1 }]);
  const result = { type: "tool_result", tool_use_id: call.id, content: "80 bar" };
  const turns = [...asks, { role: "assistant", content: answer.content }, { role: "user", content: [result] }];
  assert.equal((await claude.messages.create({ ...asked, messages: turns })).content[0].text, says);
  const source = { type: "base64", media_type: "image/png", data: picture };
  const shown = [{ role: "user", content: [{ type: "image", source }, { type: "text", text: "What is this?" }] }];
  assert.equal((await claude.messages.create({ ...asked, messages: shown, tools: [] })).content[0].text, says);
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const thought = await claude.messages.stream({ model: thinker(provider), max_tokens: 2048, messages: asks, thinking }).finalMessage();
  assert.deepEqual(thought.content.map((block) => block.thinking ?? block.text), ["Let me see.", says]);
});

over(providers, "anthropic errors", async (provider) => {
  const ask = (model, more = {}, who = claude) => who.messages.create({ model, max_tokens: 9, messages: asks, ...more });
  await raises(Anthropic.AuthenticationError, { status: 401 }, () => ask(`${provider}/m`, {}, anthropic("fb-wrong")));
  await raises(Anthropic.PermissionDeniedError, { status: 403 }, () => ask(`${provider}/m`, {}, anthropic("fb-narrow")));
  await raises(Anthropic.NotFoundError, { status: 404 }, () => ask("nobody"));
  const limited = await raises(Anthropic.RateLimitError, { status: 429 }, () => ask(`${provider}/status-429-13`));
  assert.equal(limited.headers.get("retry-after"), "13");
  await raises(Anthropic.InternalServerError, { status: 529, type: "overloaded_error" }, () => ask(`${provider}/status-503`));
  await raises(Anthropic.APIError, {}, async () => all(await ask(`${provider}/error-3`, { stream: true })));
  await raises(Anthropic.APIError, {}, async () => all(await ask(`${provider}/half-3`, { stream: true })));
});

check("anthropic retries", async () => {
  const counting = counted();
  const patient = anthropic("fb-app", { maxRetries: 3, fetch: counting });
  const answer = await patient.messages.create({ model: "once/flaky-2-g", max_tokens: 9, messages: asks });
  assert.equal(answer.content[0].text, says);
  assert.equal(counting.requests, 3);
});

// --- Google

const google = (key = "fb-app", more = {}) =>
  new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: gateway, timeout: 20_000, ...more } });
const gemini = google();

over(providers, "google content", async (provider) => {
  const model = `${provider}/m`;
  const answer = await gemini.models.generateContent({ model, contents: "How is it?", config: { systemInstruction: "Be short." } });
  assert.equal(answer.text, says);
  assert.equal(answer.usageMetadata.candidatesTokenCount, 5);
  const parts = await all(await gemini.models.generateContentStream({ model, contents: "How is it?" }));
  assert.equal(parts.map((part) => part.text ?? "").join(""), says);
  const config = { tools: [{ functionDeclarations: [{ name: "look", parametersJsonSchema: schema }] }] };
  const called = await gemini.models.generateContent({ model: `${provider}/able`, contents: "How is it?", config });
  assert.deepEqual(called.functionCalls.map((call) => [call.name, call.args]), [["look", { n: 1 }]]);
  const chat = gemini.chats.create({ model: `${provider}/able`, config });
  const first = await chat.sendMessage({ message: "How is it?" });
  const call = first.functionCalls[0];
  const response = { functionResponse: { id: call.id, name: call.name, response: { output: "80 bar" } } };
  assert.equal((await chat.sendMessage({ message: [response] })).text, says);
  const shown = { inlineData: { mimeType: "image/png", data: picture } };
  assert.equal((await gemini.models.generateContent({ model, contents: ["What is this?", shown] })).text, says);
  const json = { responseMimeType: "application/json", responseJsonSchema: schema };
  const parsed = await gemini.models.generateContent({ model: `${provider}/able`, contents: "How is it?", config: json });
  assert.deepEqual(JSON.parse(parsed.text), { n: 1 });
  const count = await gemini.models.countTokens({ model, contents: "How is it?" });
  assert(count.totalTokens >= 1);
});

over(vectors, "google vectors", async (provider) => {
  const answer = await gemini.models.embedContent({ model: `${provider}/m`, contents: ["a", "b"] });
  assert.deepEqual(answer.embeddings.map((row) => row.values), [Array(4).fill(0.25), Array(4).fill(0.25)]);
});

over(providers, "google errors", async (provider) => {
  const ask = (model, who = gemini) => who.models.generateContent({ model, contents: "How is it?" });
  await raises(ApiError, { status: 401 }, () => ask(`${provider}/m`, google("fb-wrong")));
  await raises(ApiError, { status: 403 }, () => ask(`${provider}/m`, google("fb-narrow")));
  await raises(ApiError, { status: 404 }, () => ask("nobody"));
  await raises(ApiError, { status: 429 }, () => ask(`${provider}/status-429-14`));
  await raises(ApiError, { status: 503 }, () => ask(`${provider}/status-503`));
  const streamed = async (model) => all(await gemini.models.generateContentStream({ model, contents: "How is it?" }));
  await raises(Error, {}, () => streamed(`${provider}/error-3`));
  await raises(Error, {}, () => streamed(`${provider}/half-3`));
});

check("google retries", async () => {
  const patient = google("fb-app", { retryOptions: { attempts: 3, initialDelay: 0.01, jitter: 0 } });
  const ask = (who) => who.models.generateContent({ model: "once/flaky-2-h", contents: "How is it?" });
  await raises(ApiError, { status: 503 }, () => ask(gemini));
  assert.equal((await ask(patient)).text, says);
});

over(providers, "google interactions", async (provider) => {
  const ask = (model, more = {}) => gemini.interactions.create({ model: `${provider}/${model}`, input: "How is it?", ...more });
  const answer = await ask("m", { system_instruction: "Be short." });
  assert.deepEqual([answer.output_text, answer.status, answer.usage.total_output_tokens], [says, "completed", 5]);
  const events = await all(await ask("m", { stream: true }));
  assert.equal(events.map((event) => event.delta?.text ?? "").join(""), says);
  assert.equal(events.at(-1).interaction.status, "completed");
  const tools = [{ type: "function", name: "look", description: "Looks.", parameters: schema }];
  const called = await ask("able", { tools });
  const call = called.steps.at(-1);
  assert.deepEqual([called.status, call.name, call.arguments], ["requires_action", "look", { n: 1 }]);
  const result = { type: "function_result", call_id: call.id, name: call.name, result: { pressure: "80 bar" } };
  const input = [{ type: "user_input", content: [{ type: "text", text: "How is it?" }] }, ...called.steps, result];
  assert.equal((await ask("able", { tools, input })).output_text, says);
  const cut = await all(await ask("error-4", { stream: true }));
  assert.equal(cut.at(-1).event_type, "error");
  const nobody = gemini.interactions.create({ model: "nobody", input: "How is it?" });
  await assert.rejects(nobody, (error) => error.status === 404 && error.constructor.name === "NotFoundError");
});

check("google models", async () => {
  const names = (await all(await gemini.models.list())).map((model) => model.name);
  assert(names.includes("models/named"), names);
});

// --- Mistral

const mistralBy = (key = "fb-app", more = {}) => new Mistral({ apiKey: key, serverURL: gateway, timeoutMs: 20_000, ...more });
const mistral = mistralBy();

over(providers, "mistral chat", async (provider) => {
  const answer = await mistral.chat.complete({ model: `${provider}/m`, messages: asks });
  assert.equal(answer.choices[0].message.content, says);
  const events = await all(await mistral.chat.stream({ model: `${provider}/m`, messages: asks }));
  assert.equal(events.map((event) => event.data.choices[0]?.delta.content ?? "").join(""), says);
  const called = await mistral.chat.complete({ model: `${provider}/able`, messages: asks, tools: [look] });
  assert.equal(called.choices[0].message.toolCalls[0].function.name, "look");
});

over(providers, "mistral errors", async (provider) => {
  const ask = (model, who = mistral) => who.chat.complete({ model, messages: asks });
  await raises(MistralError, { statusCode: 401 }, () => ask(`${provider}/m`, mistralBy("fb-wrong")));
  await raises(MistralError, { statusCode: 403 }, () => ask(`${provider}/m`, mistralBy("fb-narrow")));
  await raises(MistralError, { statusCode: 404 }, () => ask("nobody"));
  const limited = await raises(MistralError, { statusCode: 429 }, () => ask(`${provider}/status-429-15`));
  assert.equal(limited.headers.get("retry-after"), "15");
  await raises(MistralError, { statusCode: 503 }, () => ask(`${provider}/status-503`));
});

check("mistral retries", async () => {
  const backoff = { initialInterval: 10, maxInterval: 20, exponent: 1, maxElapsedTime: 10_000 };
  const patient = mistralBy("fb-app", { retryConfig: { strategy: "backoff", backoff, retryConnectionErrors: false } });
  const answer = await patient.chat.complete({ model: "once/flaky-2-i", messages: asks });
  assert.equal(answer.choices[0].message.content, says);
});

// --- Ollama

const ollamaBy = (key = "fb-app") => new Ollama({ host: gateway, headers: { authorization: `Bearer ${key}` } });
const ollama = ollamaBy();

over(providers, "ollama chat", async (provider) => {
  const model = `${provider}/m`;
  assert.equal((await ollama.chat({ model, messages: asks })).message.content, says);
  const parts = await all(await ollama.chat({ model, messages: asks, stream: true }));
  assert.equal(parts.map((part) => part.message.content).join(""), says);
  assert.equal(parts.at(-1).eval_count, 5);
  const called = await ollama.chat({ model: `${provider}/able`, messages: asks, tools: [look] });
  assert.deepEqual(called.message.tool_calls[0].function.arguments, { n: 1 });
  const parsed = await ollama.chat({ model: `${provider}/able`, messages: asks, format: schema });
  assert.deepEqual(JSON.parse(parsed.message.content), { n: 1 });
  assert.equal((await ollama.generate({ model, prompt: "How is it?" })).response, says);
});

check("ollama lists", async () => {
  assert((await ollama.list()).models.some((model) => model.model === "named"));
});

// Its client retries nothing.
over(providers, "ollama errors", async (provider) => {
  const ask = (model, who = ollama) => who.chat({ model, messages: asks });
  await raises(Error, { status_code: 401 }, () => ask(`${provider}/m`, ollamaBy("fb-wrong")));
  await raises(Error, { status_code: 403 }, () => ask(`${provider}/m`, ollamaBy("fb-narrow")));
  await raises(Error, { status_code: 404 }, () => ask("nobody"));
  await raises(Error, { status_code: 429 }, () => ask(`${provider}/status-429-7`));
  await raises(Error, { status_code: 503 }, () => ask(`${provider}/status-503`));
  const streamed = async (model) => all(await ollama.chat({ model, messages: asks, stream: true }));
  await raises(Error, {}, () => streamed(`${provider}/error-3`));
  await raises(Error, {}, () => streamed(`${provider}/half-3`));
});

// --- The AI SDK

const viaOpenai = createOpenAI({ baseURL: `${gateway}/v1`, apiKey: "fb-app" });
const viaCompatible = createOpenAICompatible({
  name: "forebay",
  baseURL: `${gateway}/v1`,
  apiKey: "fb-app",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const viaGoogle = createGoogleGenerativeAI({ baseURL: `${gateway}/v1beta`, apiKey: "fb-app" });
const doors = {
  responses: (model) => viaOpenai(model),
  chat: (model) => viaOpenai.chat(model),
  compatible: (model) => viaCompatible(model),
  anthropic: createAnthropic({ baseURL: `${gateway}/v1`, apiKey: "fb-app" }),
  // A name with a slash is a path to it.
  google: (model) => viaGoogle(`models/${model}`),
  mistral: createMistral({ baseURL: `${gateway}/v1`, apiKey: "fb-app" }),
};

for (const [door, of] of Object.entries(doors)) {
  over(providers, `ai by ${door}`, async (provider) => {
    const model = of(`${provider}/m`);
    const answer = await generateText({ model, prompt: "How is it?", maxRetries: 0 });
    assert.deepEqual([answer.text, answer.finishReason], [says, "stop"]);
    assert.deepEqual([answer.usage.inputTokens, answer.usage.outputTokens], [11, 5]);
    const streamed = streamText({ model, prompt: "How is it?", maxRetries: 0 });
    assert.equal((await all(streamed.textStream)).join(""), says);
    // Mistral's clients do not ask for the usage of a stream, and OpenAI's dialect has it only for who asks.
    if (door !== "mistral") assert.equal((await streamed.usage).outputTokens, 5);
    let called;
    const tools = { look: tool({ description: "Looks.", inputSchema: Reading, execute: ({ n }) => ((called = n), "80 bar") }) };
    const able = of(`${provider}/able`);
    const acted = await generateText({ model: able, prompt: "How is it?", tools, stopWhen: stepCountIs(2), maxRetries: 0 });
    assert.deepEqual([called, acted.text, acted.steps.length], [1, says, 2]);
    const acting = streamText({ model: able, prompt: "How is it?", tools, stopWhen: stepCountIs(2), maxRetries: 0 });
    assert.equal((await all(acting.textStream)).join(""), says);
    const parsed = await generateText({ model: able, prompt: "How is it?", output: Output.object({ schema: Reading }), maxRetries: 0 });
    assert.deepEqual(parsed.output, { n: 1 });
  });
}

over(vectors, "ai vectors", async (provider) => {
  const { embeddings } = await embedMany({ model: viaOpenai.embeddingModel(`${provider}/m`), values: ["a", "b"] });
  assert.deepEqual(embeddings, [Array(4).fill(0.25), Array(4).fill(0.25)]);
});

for (const [at, [door, of]] of Object.entries(doors).entries()) {
  // A provider that asks for a pause gets it, from whoever asks next as well: each door has its own.
  const provider = providers[at];
  check(`ai errors and retries by ${door}`, async () => {
    const ask = (model, maxRetries) => generateText({ model: of(model), prompt: "How is it?", maxRetries });
    await raises(APICallError, { statusCode: 404, isRetryable: false }, () => ask("nobody", 0));
    const limited = await raises(APICallError, { statusCode: 429, isRetryable: true }, () => ask(`${provider}/status-429-9`, 0));
    assert.equal(limited.responseHeaders["retry-after"], "9");
    await raises(APICallError, { statusCode: 503, isRetryable: true }, () => ask(`${provider}/status-500`, 0));
    assert.equal((await ask(`once/flaky-1-ai-${door}`, 1)).text, says);
  });
}

let failed = 0;
for (const [name, run] of checks) {
  try {
    await run();
  } catch (error) {
    failed += 1;
    const place = String(error?.stack).match(/javascript\.mjs:(\d+)/)?.[1];
    console.log(`${name}, line ${place}: ${String(error?.message ?? error).replaceAll("\n", " ").slice(0, 600)}`);
  }
}
console.log(`${checks.length} checks, ${failed} failed`);
process.exit(failed ? 1 : 0);
