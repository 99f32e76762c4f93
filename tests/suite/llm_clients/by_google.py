"""Google's SDK."""

from google import genai
from google.genai import errors as google_errors
from google.genai import types

from checks import GATEWAY, PNG, PROVIDERS, SAYS, SCHEMA, VECTORS, Reading, check, look, over, raises, same, thinker


def google(key="fb-app", vertexai=False, **more):
    options = types.HttpOptions(base_url=GATEWAY, timeout=20_000, **more)
    return genai.Client(api_key=key, vertexai=vertexai, http_options=options)


gemini = google()


@over(PROVIDERS)
def google_content(provider):
    answer = gemini.models.generate_content(
        model=f"{provider}/m",
        contents="How is the press?",
        config=types.GenerateContentConfig(system_instruction="Be short.", max_output_tokens=20, temperature=0.5),
    )
    same((answer.text, answer.candidates[0].finish_reason), (SAYS, types.FinishReason.STOP))
    same((answer.usage_metadata.prompt_token_count, answer.usage_metadata.candidates_token_count), (11, 5), "usage")
    same(answer.model_version, f"{provider}/m")
    chunks = list(gemini.models.generate_content_stream(model=f"{provider}/m", contents="How is the press?"))
    same("".join(chunk.text or "" for chunk in chunks), SAYS)
    same(chunks[-1].candidates[0].finish_reason, types.FinishReason.STOP)
    same(chunks[-1].usage_metadata.candidates_token_count, 5)


@over(PROVIDERS)
def google_tools(provider):
    # The SDK calls the function by itself, and tells the model what came of it.
    config = types.GenerateContentConfig(tools=[look])
    answer = gemini.models.generate_content(model=f"{provider}/able", contents="How is the press?", config=config)
    same(answer.text, SAYS, "what is said of a result")
    history = answer.automatic_function_calling_history
    same([turn.role for turn in history], ["user", "model", "user"])
    same(history[1].parts[-1].function_call.args, {"n": 1})
    declared = types.FunctionDeclaration(name="look", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[declared])])
    chunks = gemini.models.generate_content_stream(model=f"{provider}/able", contents="How is the press?", config=config)
    calls = [call for chunk in chunks for call in chunk.function_calls or []]
    same([(call.name, call.args) for call in calls], [("look", {"n": 1})])


@over(PROVIDERS)
def google_pictures_schemas_and_thoughts(provider):
    contents = [types.Part.from_bytes(data=PNG, mime_type="image/png"), "What is this?"]
    same(gemini.models.generate_content(model=f"{provider}/m", contents=contents).text, SAYS)
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Reading)
    answer = gemini.models.generate_content(model=f"{provider}/able", contents="How is it?", config=config)
    same(answer.parsed, Reading(n=1))
    thinking = types.ThinkingConfig(include_thoughts=True, thinking_budget=1024)
    config = types.GenerateContentConfig(thinking_config=thinking)
    answer = gemini.models.generate_content(model=thinker(provider), contents="How is it?", config=config)
    thoughts = [part.text for part in answer.candidates[0].content.parts if part.thought]
    same((thoughts, answer.text), (["Let me see."], SAYS))


@over(PROVIDERS)
def google_chat_and_counting(provider):
    chat = gemini.chats.create(model=f"{provider}/m")
    same([chat.send_message(turn).text for turn in ("How is it?", "And now?")], [SAYS] * 2)
    count = gemini.models.count_tokens(model=f"{provider}/m", contents="How is the press?")
    assert 1 <= count.total_tokens <= 30, count


@over(VECTORS)
def google_vectors(provider):
    answer = gemini.models.embed_content(model=f"{provider}/m", contents=["a", "b"])
    same([row.values for row in answer.embeddings], [[0.25] * 4] * 2)


@check
def google_of_vertex():
    vertex = google(vertexai=True)
    same(vertex.models.generate_content(model="named", contents="How is it?").text, SAYS)
    # What stands before a slash is a publisher to it.
    same(vertex.models.generate_content(model="openai/m", contents="How is it?").text, SAYS)
    parts = vertex.models.generate_content_stream(model="anthropic/m", contents="How is it?")
    same("".join(part.text or "" for part in parts), SAYS)


@check
def google_models():
    names = [model.name for model in gemini.models.list()]
    assert "models/named" in names, names
    same(gemini.models.get(model="named").name, "models/named")


@over(PROVIDERS)
def google_errors_are_typed(provider):
    def ask(model=f"{provider}/m", key="fb-app"):
        # A client that nobody holds closes its connections.
        client = google(key)
        return client.models.generate_content(model=model, contents="How is the press?")

    raises(google_errors.ClientError, lambda: ask(key="fb-wrong"), code=401, status="UNAUTHENTICATED")
    raises(google_errors.ClientError, lambda: ask(key="fb-narrow"), code=403, status="PERMISSION_DENIED")
    raises(google_errors.ClientError, lambda: ask("nobody"), code=404, status="NOT_FOUND")
    error = raises(google_errors.ClientError, lambda: ask(f"{provider}/status-429-9"), code=429)
    same(error.status, "RESOURCE_EXHAUSTED")
    raises(google_errors.ServerError, lambda: ask(f"{provider}/status-503"), code=503, status="UNAVAILABLE")
    stream = lambda model: list(gemini.models.generate_content_stream(model=model, contents="How is it?"))
    raises(google_errors.APIError, lambda: stream(f"{provider}/error-3"))


@check
def google_retries():
    options = types.HttpRetryOptions(attempts=3, initial_delay=0.1, max_delay=0.2)
    patient = google(retry_options=options)
    answer = patient.models.generate_content(model="once/flaky-2-d", contents="How is it?")
    same(answer.text, SAYS)
