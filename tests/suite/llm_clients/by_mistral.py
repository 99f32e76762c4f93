"""Mistral's SDK."""

from mistralai.client import Mistral
from mistralai.client import errors as mistral_errors
from mistralai.client.utils import BackoffStrategy, RetryConfig

from checks import ASKS, GATEWAY, PROVIDERS, SAYS, TOOL, Reading, check, look, over, raises, same

mistral = Mistral(api_key="fb-app", server_url=GATEWAY, timeout_ms=20_000)


@over(PROVIDERS)
def mistral_chat(provider):
    answer = mistral.chat.complete(model=f"{provider}/m", messages=ASKS, max_tokens=20)
    same((answer.choices[0].message.content, answer.choices[0].finish_reason), (SAYS, "stop"))
    same((answer.usage.prompt_tokens, answer.usage.completion_tokens), (11, 5), "usage")
    events = [event.data for event in mistral.chat.stream(model=f"{provider}/m", messages=ASKS)]
    same("".join(event.choices[0].delta.content or "" for event in events if event.choices), SAYS)
    answer = mistral.chat.complete(model=f"{provider}/able", messages=ASKS, tools=[TOOL])
    call = answer.choices[0].message.tool_calls[0]
    same((call.function.name, Reading.model_validate_json(call.function.arguments).n), ("look", 1))
    result = {"role": "tool", "tool_call_id": call.id, "name": "look", "content": "80 bar"}
    turns = [*ASKS, answer.choices[0].message.model_dump(exclude_none=True), result]
    answer = mistral.chat.complete(model=f"{provider}/able", messages=turns, tools=[TOOL])
    same(answer.choices[0].message.content, SAYS, "what is said of a result")
    parsed = mistral.chat.parse(model=f"{provider}/able", messages=ASKS, response_format=Reading)
    same(parsed.choices[0].message.parsed, Reading(n=1))


# Its SDK wants an `id`, which only Mistral gives.
@over(["mistral"])
def mistral_vectors(provider):
    answer = mistral.embeddings.create(model=f"{provider}/m", inputs=["a", "b"])
    same([row.embedding for row in answer.data], [[0.25] * 4] * 2)


@check
def mistral_models_and_moderations():
    assert "named" in [model.id for model in mistral.models.list().data]
    answer = mistral.classifiers.moderate(model="mistral/m", inputs=["a"])
    same(answer.results[0].categories, {"violence": False})


@over(PROVIDERS)
def mistral_errors_of_all_kinds(provider):
    by = lambda key: Mistral(api_key=key, server_url=GATEWAY)
    ask = lambda model, client=mistral: client.chat.complete(model=f"{provider}/{model}", messages=ASKS)
    raises(mistral_errors.SDKError, lambda: ask("m", by("fb-wrong")), status_code=401)
    raises(mistral_errors.SDKError, lambda: ask("m", by("fb-narrow")), status_code=403)
    raises(mistral_errors.SDKError, lambda: mistral.chat.complete(model="nobody", messages=ASKS), status_code=404)
    error = raises(mistral_errors.SDKError, lambda: ask("status-429-10"), status_code=429)
    same(error.headers["retry-after"], "10")
    raises(mistral_errors.SDKError, lambda: ask("status-503"), status_code=503)


@check
def mistral_retries():
    backoff = BackoffStrategy(initial_interval=10, max_interval=20, exponent=1.0, max_elapsed_time=10_000)
    patient = RetryConfig("backoff", backoff, retry_connection_errors=False)
    answer = mistral.chat.complete(model="once/flaky-2-j", messages=ASKS, retries=patient)
    same(answer.choices[0].message.content, SAYS)
