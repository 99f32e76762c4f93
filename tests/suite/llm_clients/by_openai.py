"""OpenAI's SDK."""

import openai

from checks import (
    ASKS,
    GATEWAY,
    PICTURE,
    PROVIDERS,
    SAYS,
    SCHEMA,
    TOOL,
    VECTORS,
    Reading,
    check,
    look,
    over,
    raises,
    same,
    thinker,
)

client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="fb-app", max_retries=0, timeout=20)


@over(PROVIDERS)
def openai_chat(provider):
    raw = client.chat.completions.with_raw_response.create(model=f"{provider}/m", messages=ASKS, max_tokens=20)
    answer = raw.parse()
    choice = answer.choices[0]
    same((choice.message.content, choice.message.role, choice.finish_reason), (SAYS, "assistant", "stop"))
    same((answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens), (11, 5, 16), "usage")
    same(answer.model, f"{provider}/m", "the model's name")
    same(raw.headers["x-forebay-model"], f"{provider}/m")
    same(raw.headers["x-forebay-attempts"], "1")
    assert raw.headers["x-request-id"] and "listed" in raw.headers["x-forebay-route"], raw.headers
    for member in ("refusal", "annotations"):
        assert member in choice.message.model_fields_set, f"{member} is missing"
    assert "logprobs" in choice.model_fields_set


# Servers that say the least that one can.
@over(["openai", "azure", "mistral", "sagemaker", "huggingface", "groq", "vllm", "compatible"])
def openai_of_a_lean_server(provider):
    answer = client.chat.completions.create(model=f"{provider}/lean", messages=ASKS)
    choice = answer.choices[0]
    same((choice.message.content, choice.message.role, choice.finish_reason, choice.index), (SAYS, "assistant", "stop", 0))
    assert answer.id and answer.created and answer.object == "chat.completion", answer
    assert {"refusal", "annotations"} <= choice.message.model_fields_set and "logprobs" in choice.model_fields_set, choice
    chunks = list(client.chat.completions.create(model=f"{provider}/lean", messages=ASKS, stream=True))
    same(chunks[0].choices[0].delta.role, "assistant", "the first role")


@over(PROVIDERS)
def openai_stream(provider):
    for include_usage in (False, True):
        options = {"stream_options": {"include_usage": True}} if include_usage else {}
        chunks = list(client.chat.completions.create(model=f"{provider}/m", messages=ASKS, stream=True, **options))
        same(len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}), 1, "heads of chunks")
        same(chunks[0].choices[0].delta.role, "assistant", "the first role")
        said = [chunk.choices[0] for chunk in chunks if chunk.choices]
        same("".join(choice.delta.content or "" for choice in said), SAYS)
        same([choice.finish_reason for choice in said if choice.finish_reason], ["stop"])
        used = [(chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in chunks if chunk.usage]
        if provider == "mistral":  # It tells in its last chunk, and that passes as it is.
            same(used, [(11, 5)], "the usage")
        elif include_usage:
            same((chunks[-1].choices, used), ([], [(11, 5)]), "the usage")
        else:
            same(used, [], "the usage that nobody wanted")
            assert all(chunk.choices for chunk in chunks)


@over(PROVIDERS)
def openai_tools(provider):
    model = f"{provider}/able"
    answer = client.chat.completions.create(model=model, messages=ASKS, tools=[TOOL])
    choice = answer.choices[0]
    same(choice.finish_reason, "tool_calls")
    call = choice.message.tool_calls[0]
    same((call.type, call.function.name, Reading.model_validate_json(call.function.arguments).n), ("function", "look", 1))
    with client.chat.completions.stream(model=model, messages=ASKS, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_completion().choices[0]
    same(streamed.finish_reason, "tool_calls")
    same(Reading.model_validate_json(streamed.message.tool_calls[0].function.arguments).n, 1)
    assert "tool_calls.function.arguments.done" in kinds, kinds
    assert streamed.message.tool_calls[0].id, "a call has an id"
    result = {"role": "tool", "tool_call_id": call.id, "content": "80 bar"}
    turns = [*ASKS, choice.message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(model=model, messages=turns, tools=[TOOL])
    same(answer.choices[0].message.content, SAYS, "what is said of a result")


@over(PROVIDERS)
def openai_pictures(provider):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    ]
    answer = client.chat.completions.create(model=f"{provider}/m", messages=[{"role": "user", "content": parts}])
    same(answer.choices[0].message.content, SAYS)


@over(PROVIDERS)
def openai_structured(provider):
    answer = client.chat.completions.parse(model=f"{provider}/able", messages=ASKS, response_format=Reading)
    same(answer.choices[0].message.parsed, Reading(n=1))
    with client.chat.completions.stream(model=f"{provider}/able", messages=ASKS, response_format=Reading) as stream:
        same(stream.get_final_completion().choices[0].message.parsed, Reading(n=1))


@over(PROVIDERS)
def openai_reasoning(provider):
    answer = client.chat.completions.create(model=thinker(provider), messages=ASKS, reasoning_effort="low")
    same(answer.choices[0].message.reasoning_content, "Let me see.", "what it thought")
    same(answer.choices[0].message.content, SAYS)


@over(VECTORS)
def openai_embeddings(provider):
    # The SDK asks for base64 by itself.
    answer = client.embeddings.create(model=f"{provider}/m", input=["a", "b"])
    same([row.embedding for row in answer.data], [[0.25] * 4] * 2)
    same([row.index for row in answer.data], [0, 1])
    answer = client.embeddings.create(model=f"{provider}/m", input="a", encoding_format="float")
    same(answer.data[0].embedding, [0.25] * 4)


@over(PROVIDERS)
def openai_responses(provider):
    model = f"{provider}/able"
    answer = client.responses.create(model=model, input="How is the press?", instructions="Be short.")
    same((answer.output_text, answer.status, answer.object), (SAYS, "completed", "response"))
    same((answer.usage.input_tokens, answer.usage.output_tokens), (11, 5), "usage")
    with client.responses.stream(model=model, input="How is the press?") as stream:
        events = list(stream)
        same(stream.get_final_response().output_text, SAYS)
    same([event.sequence_number for event in events], sorted({event.sequence_number for event in events}), "numbers")
    same((events[0].type, events[-1].type), ("response.created", "response.completed"))
    tool = {"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}
    answer = client.responses.create(model=model, input=ASKS, tools=[tool])
    call = next(item for item in answer.output if item.type == "function_call")
    same((call.name, Reading.model_validate_json(call.arguments).n), ("look", 1))
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "80 bar"}
    turns = [*ASKS, *[item.model_dump(exclude_none=True) for item in answer.output], result]
    same(client.responses.create(model=model, input=turns, tools=[tool]).output_text, SAYS, "what is said of a result")
    with client.responses.stream(model=model, input=ASKS, tools=[tool]) as stream:
        calls = [item for item in stream.get_final_response().output if item.type == "function_call"]
        same([call.arguments for call in calls], ['{"n":1}'])
    same(client.responses.parse(model=model, input=ASKS, text_format=Reading).output_parsed, Reading(n=1))
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}", "detail": "auto"}
    turn = {"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, picture]}
    same(client.responses.create(model=model, input=[turn]).output_text, SAYS)


@over([name for name in PROVIDERS if name in ("openai", "vllm", "compatible", "ollama")])
def openai_completions(provider):
    answer = client.completions.create(model=f"{provider}/m", prompt="The press", max_tokens=5)
    same((answer.choices[0].text, answer.usage.completion_tokens), (SAYS, 5))
    stream = client.completions.create(model=f"{provider}/m", prompt="The press", stream=True)
    same("".join(chunk.choices[0].text for chunk in stream), SAYS)


@over([name for name in PROVIDERS if name in ("openai", "mistral", "compatible")])
def openai_moderations(provider):
    answer = client.moderations.create(model=f"{provider}/m", input=["a", "b"])
    same([result.flagged for result in answer.results], [False, False])


@check
def openai_models():
    names = [model.id for model in client.models.list()]
    assert "named" in names, names
    same((client.models.retrieve("named").id, client.models.retrieve("named").object), ("named", "model"))
    same(client.models.retrieve("openai/m").id, "openai/m", "a model that a pattern stands for")
    raises(openai.NotFoundError, lambda: client.models.retrieve("nobody"))


@over(PROVIDERS)
def openai_errors(provider):
    def ask(model=f"{provider}/m", key="fb-app", **more):
        return client.with_options(api_key=key).chat.completions.create(model=model, messages=ASKS, **more)

    error = raises(openai.AuthenticationError, lambda: ask(key="fb-wrong"), status_code=401, code="invalid_api_key")
    same(error.type, "invalid_request_error")
    raises(openai.PermissionDeniedError, lambda: ask(key="fb-narrow"), status_code=403)
    raises(openai.NotFoundError, lambda: ask(model="nobody"), status_code=404, code="model_not_found")
    raises(openai.BadRequestError, lambda: ask(extra_body={"stream": "maybe"}), status_code=400)
    error = raises(openai.RateLimitError, lambda: ask(model=f"{provider}/status-429-7"), status_code=429)
    same(error.response.headers["retry-after"], "7", "retry-after")
    raises(openai.InternalServerError, lambda: ask(model=f"{provider}/status-503"), status_code=503)
    raises(openai.InternalServerError, lambda: ask(model=f"{provider}/status-401"), status_code=502)
    raises(openai.NotFoundError, lambda: ask(model=f"{provider}/status-404"), status_code=404)
    raises(openai.BadRequestError, lambda: ask(model=f"{provider}/status-400"), status_code=400)
    # In the middle of a stream.
    raises(openai.APIError, lambda: list(ask(model=f"{provider}/error-3", stream=True)))
    raises(openai.APIError, lambda: list(ask(model=f"{provider}/half-3", stream=True)))
    if provider != "ollama":
        raises(openai.APIError, lambda: list(ask(model=f"{provider}/short-3", stream=True)))


@check
def openai_key_without_requests_left():
    ask = lambda: client.with_options(api_key="fb-slow").chat.completions.create(model="openai/m", messages=ASKS)
    ask()
    error = raises(openai.RateLimitError, ask, status_code=429)
    assert 1 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers
    same(error.response.headers["x-ratelimit-limit-requests"], "1")
    same(error.response.headers["x-ratelimit-remaining-requests"], "0")


@check
def openai_retries():
    # The gateway's own second try, which no SDK notices.
    raw = client.chat.completions.with_raw_response.create(model="again/flaky-1-a", messages=ASKS)
    same((raw.retries_taken, raw.headers["x-forebay-attempts"]), (0, "2"))
    # And the SDK's, where a route does not try again.
    patient = client.with_options(max_retries=3)
    raw = patient.chat.completions.with_raw_response.create(model="once/flaky-2-b", messages=ASKS)
    same((raw.retries_taken, raw.headers["x-forebay-attempts"]), (2, "1"))
    same(raw.parse().choices[0].message.content, SAYS)


@check
def openai_bodies_that_are_too_large():
    # Larger than what sockets hold: the client is still sending when it is refused, and must hear why.
    huge = [{"role": "user", "content": "a" * (33 << 20)}]
    large = [{"role": "user", "content": "a" * (8 << 20)}]
    raises(openai.APIStatusError, lambda: client.chat.completions.create(model="openai/m", messages=huge), status_code=413)
    stranger = client.with_options(api_key="fb-wrong")
    raises(openai.AuthenticationError, lambda: stranger.chat.completions.create(model="openai/m", messages=large))


@check
def openai_mistyped_names_harm_nobody_else():
    for _ in range(30):
        raises(openai.NotFoundError, lambda: client.chat.completions.create(model="groq/status-404-0", messages=ASKS))
    same(client.chat.completions.create(model="groq/m", messages=ASKS).choices[0].message.content, SAYS)
