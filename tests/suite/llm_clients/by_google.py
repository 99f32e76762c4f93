"""Google's SDK."""

import json

from google import genai
from google.genai import errors as google_errors
from google.genai import types
from google.genai import _interactions as interaction_errors

from checks import GATEWAY, PICTURE, PNG, PROVIDERS, SAYS, SCHEMA, VECTORS, Reading, check, look, over, raises, same, thinker


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


def interact(provider, model, **more):
    return gemini.interactions.create(model=f"{provider}/{model}", **{"input": "How is the press?", **more})


@over(PROVIDERS)
def google_interactions(provider):
    settings = {"max_output_tokens": 20, "temperature": 0.5}
    answer = interact(provider, "m", system_instruction="Be short.", generation_config=settings)
    same((answer.output_text, answer.status, answer.model), (SAYS, "completed", f"{provider}/m"))
    same((answer.usage.total_input_tokens, answer.usage.total_output_tokens), (11, 5), "usage")
    events = list(interact(provider, "m", stream=True))
    same("".join(event.delta.text for event in events if event.event_type == "step.delta"), SAYS)
    kinds = [event.event_type for event in events if event.event_type != "step.delta"]
    same(kinds, ["interaction.created", "step.start", "step.stop", "interaction.completed"])
    first, last = events[0].interaction, events[-1].interaction
    same((first.status, last.status, first.id), ("in_progress", "completed", last.id))
    same((last.usage.total_output_tokens, last.model), (5, f"{provider}/m"))


@over(PROVIDERS)
def google_interactions_with_tools(provider):
    tools = [{"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA}]
    answer = interact(provider, "able", tools=tools)
    call = answer.steps[-1]
    same((answer.status, call.type, call.name, call.arguments), ("requires_action", "function_call", "look", {"n": 1}))
    # All that it said goes back with what the tool said.
    asked = {"type": "user_input", "content": [{"type": "text", "text": "How is the press?"}]}
    result = {"type": "function_result", "call_id": call.id, "name": call.name, "result": look(**call.arguments)}
    said = [step.model_dump(exclude_none=True) for step in answer.steps]
    answer = interact(provider, "able", tools=tools, input=[asked, *said, result])
    same((answer.output_text, answer.status), (SAYS, "completed"), "what is said of a result")
    events = list(interact(provider, "able", tools=tools, stream=True))
    started = [event.step for event in events if event.event_type == "step.start"]
    pieces = [event.delta for event in events if event.event_type == "step.delta"]
    arguments = "".join(piece.arguments for piece in pieces if piece.type == "arguments_delta")
    same(([step.name for step in started if step.type == "function_call"], json.loads(arguments)), (["look"], {"n": 1}))
    same(events[-1].interaction.status, "requires_action")


@over(PROVIDERS)
def google_interactions_with_pictures_schemas_and_thoughts(provider):
    shown = [{"type": "image", "mime_type": "image/png", "data": PICTURE}, {"type": "text", "text": "What is this?"}]
    same(interact(provider, "m", input=shown).output_text, SAYS)
    form = {"type": "text", "mime_type": "application/json", "schema": SCHEMA}
    same(Reading.model_validate_json(interact(provider, "able", response_format=form).output_text), Reading(n=1))
    model = thinker(provider).split("/", 1)[1]
    answer = interact(provider, model, generation_config={"thinking_level": "low", "thinking_summaries": "auto"})
    thoughts = [step.summary[0].text for step in answer.steps if step.type == "thought"]
    same((thoughts, answer.output_text), (["Let me see."], SAYS))


@over(PROVIDERS)
def google_interactions_errors_are_typed(provider):
    def ask(model=f"{provider}/m", key="fb-app", **more):
        # It would wait and try again.
        client = google(key, retry_options=types.HttpRetryOptions(attempts=1))
        return client.interactions.create(model=model, input="How is the press?", **more)

    error = raises(interaction_errors.AuthenticationError, lambda: ask(key="fb-wrong"), status_code=401)
    same(error.body["error"]["code"], "unauthenticated")
    raises(interaction_errors.PermissionDeniedError, lambda: ask(key="fb-narrow"), status_code=403)
    raises(interaction_errors.NotFoundError, lambda: ask("nobody"), status_code=404)
    error = raises(interaction_errors.BadRequestError, lambda: ask(previous_interaction_id="v1_x"), status_code=400)
    assert "previous_interaction_id" in error.body["error"]["message"], error.body
    raises(interaction_errors.RateLimitError, lambda: ask(f"{provider}/status-429-12"), status_code=429)
    raises(interaction_errors.InternalServerError, lambda: ask(f"{provider}/status-503"), status_code=503)
    for broken in ("error-4", "half-4"):
        # The SDK hands an error in the middle of a stream over as what it is, an event: the last one.
        events = list(interact(provider, broken, stream=True))
        kinds = [event.event_type for event in events]
        same((kinds[-1], "interaction.completed" in kinds), ("error", False), broken)
        assert events[-1].error.code and events[-1].error.message, events[-1]


@check
def google_interactions_are_not_kept():
    answer = gemini.interactions.create(model="named", input="How is it?")
    raises(interaction_errors.NotFoundError, lambda: gemini.interactions.get(answer.id))
    raises(interaction_errors.NotFoundError, lambda: gemini.interactions.delete(answer.id))
    raises(interaction_errors.NotFoundError, lambda: gemini.interactions.cancel(answer.id))


@check
def google_retries():
    options = types.HttpRetryOptions(attempts=3, initial_delay=0.1, max_delay=0.2)
    patient = google(retry_options=options)
    answer = patient.models.generate_content(model="once/flaky-2-d", contents="How is it?")
    same(answer.text, SAYS)
