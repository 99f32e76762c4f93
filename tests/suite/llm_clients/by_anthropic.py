"""Anthropic's SDK."""

import anthropic

from checks import ASKS, GATEWAY, PICTURE, PROVIDERS, SAYS, SCHEMA, Reading, check, look, over, raises, same, thinker

claude = anthropic.Anthropic(base_url=GATEWAY, api_key="fb-app", max_retries=0, timeout=20)
CLAUDES_TOOL = {"name": "look", "description": "Looks.", "input_schema": SCHEMA}


@over(PROVIDERS)
def anthropic_messages(provider):
    raw = claude.messages.with_raw_response.create(
        model=f"{provider}/m", max_tokens=20, system="Be short.", messages=ASKS
    )
    answer = raw.parse()
    same((answer.content[0].text, answer.role, answer.type, answer.stop_reason), (SAYS, "assistant", "message", "end_turn"))
    usage = answer.usage
    same(usage.input_tokens + (usage.cache_read_input_tokens or 0), 11, "tokens of the prompt")
    same((usage.output_tokens, answer.model), (5, f"{provider}/m"))
    assert raw.headers["request-id"], raw.headers


@over(PROVIDERS)
def anthropic_stream(provider):
    with claude.messages.stream(model=f"{provider}/m", max_tokens=20, messages=ASKS) as stream:
        kinds = [event.type for event in stream]
        answer = stream.get_final_message()
    same(answer.content[0].text, SAYS)
    same((answer.stop_reason, answer.usage.output_tokens), ("end_turn", 5))
    bare = [kind for kind in kinds if kind not in ("text", "ping", "content_block_delta")]
    wanted = ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    same(bare, wanted, "the order of events")


@over(PROVIDERS)
def anthropic_tools(provider):
    model = f"{provider}/able"
    answer = claude.messages.create(model=model, max_tokens=20, messages=ASKS, tools=[CLAUDES_TOOL])
    same(answer.stop_reason, "tool_use")
    call = next(block for block in answer.content if block.type == "tool_use")
    same((call.name, call.input), ("look", {"n": 1}))
    with claude.messages.stream(model=model, max_tokens=20, messages=ASKS, tools=[CLAUDES_TOOL]) as stream:
        streamed = stream.get_final_message()
    same([block.input for block in streamed.content if block.type == "tool_use"], [{"n": 1}])
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "80 bar"}
    turns = [*ASKS, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    answer = claude.messages.create(model=model, max_tokens=20, messages=turns, tools=[CLAUDES_TOOL])
    same(answer.content[0].text, SAYS, "what is said of a result")


@over(PROVIDERS)
def anthropic_pictures_and_schemas(provider):
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    parts = [{"type": "text", "text": "What is this?"}, picture]
    answer = claude.messages.create(model=f"{provider}/m", max_tokens=20, messages=[{"role": "user", "content": parts}])
    same(answer.content[0].text, SAYS)
    answer = claude.messages.parse(model=f"{provider}/able", max_tokens=20, messages=ASKS, output_format=Reading)
    same(answer.parsed_output, Reading(n=1))


@over(PROVIDERS)
def anthropic_thinking(provider):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = {"model": thinker(provider), "max_tokens": 2048, "messages": ASKS, "thinking": thinking}
    with claude.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for answer in (claude.messages.create(**asked), streamed):
        same([block.type for block in answer.content], ["thinking", "text"])
        same((answer.content[0].thinking, answer.content[1].text), ("Let me see.", SAYS))


@over(PROVIDERS)
def anthropic_counting(provider):
    count = claude.messages.count_tokens(model=f"{provider}/m", messages=ASKS)
    assert 1 <= count.input_tokens <= 30, count


@check
def anthropic_models():
    names = [model.id for model in claude.models.list()]
    assert "named" in names, names
    same((claude.models.retrieve("named").id, claude.models.retrieve("named").type), ("named", "model"))


@over(PROVIDERS)
def anthropic_errors(provider):
    def ask(model=f"{provider}/m", key="fb-app", **more):
        return claude.with_options(api_key=key).messages.create(model=model, max_tokens=9, messages=ASKS, **more)

    def kind(error):
        return error.body["error"]["type"]

    same(kind(raises(anthropic.AuthenticationError, lambda: ask(key="fb-wrong"))), "authentication_error")
    same(kind(raises(anthropic.PermissionDeniedError, lambda: ask(key="fb-narrow"))), "permission_error")
    same(kind(raises(anthropic.NotFoundError, lambda: ask(model="nobody"))), "not_found_error")
    error = raises(anthropic.RateLimitError, lambda: ask(model=f"{provider}/status-429-8"), status_code=429)
    same((kind(error), error.response.headers["retry-after"]), ("rate_limit_error", "8"))
    raises(anthropic.InternalServerError, lambda: ask(model=f"{provider}/status-500"))
    raises(anthropic.InternalServerError, lambda: ask(model=f"{provider}/status-503"), status_code=529)
    raises(anthropic.APIStatusError, lambda: list(ask(model=f"{provider}/error-3", stream=True)))
    raises(anthropic.APIStatusError, lambda: list(ask(model=f"{provider}/half-3", stream=True)))


@check
def anthropic_retries():
    patient = claude.with_options(max_retries=3)
    raw = patient.messages.with_raw_response.create(model="once/flaky-2-c", max_tokens=9, messages=ASKS)
    same((raw.retries_taken, raw.parse().content[0].text), (2, SAYS))
