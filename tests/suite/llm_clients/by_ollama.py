"""Ollama's SDK."""

import ollama

from checks import ASKS, GATEWAY, PNG, PROVIDERS, SAYS, VECTORS, Reading, check, look, over, raises, same, thinker

llama = ollama.Client(host=GATEWAY, headers={"authorization": "Bearer fb-app"}, timeout=20)


@over(PROVIDERS)
def ollama_chat(provider):
    answer = llama.chat(model=f"{provider}/m", messages=ASKS)
    same((answer.message.content, answer.message.role, answer.done, answer.done_reason), (SAYS, "assistant", True, "stop"))
    same((answer.prompt_eval_count, answer.eval_count, answer.model), (11, 5, f"{provider}/m"))
    parts = list(llama.chat(model=f"{provider}/m", messages=ASKS, stream=True))
    same("".join(part.message.content or "" for part in parts), SAYS)
    same([part.done for part in parts], [False] * (len(parts) - 1) + [True])
    same(parts[-1].eval_count, 5)


@over(PROVIDERS)
def ollama_tools_pictures_and_schemas(provider):
    model = f"{provider}/able"
    answer = llama.chat(model=model, messages=ASKS, tools=[look])
    call = answer.message.tool_calls[0]
    same((call.function.name, call.function.arguments), ("look", {"n": 1}))
    turns = [*ASKS, answer.message, {"role": "tool", "tool_name": "look", "content": "80 bar"}]
    same(llama.chat(model=model, messages=turns, tools=[look]).message.content, SAYS, "what is said of a result")
    parts = llama.chat(model=model, messages=ASKS, tools=[look], stream=True)
    calls = [call.function.arguments for part in parts for call in part.message.tool_calls or []]
    same(calls, [{"n": 1}])
    shown = [{"role": "user", "content": "What is this?", "images": [PNG]}]
    same(llama.chat(model=f"{provider}/m", messages=shown).message.content, SAYS)
    answer = llama.chat(model=model, messages=ASKS, format=Reading.model_json_schema())
    same(Reading.model_validate_json(answer.message.content), Reading(n=1))
    answer = llama.chat(model=thinker(provider), messages=ASKS, think="low")
    same((answer.message.thinking, answer.message.content), ("Let me see.", SAYS))


@over(PROVIDERS)
def ollama_generate(provider):
    same(llama.generate(model=f"{provider}/m", prompt="How is it?", system="Be short.").response, SAYS)
    parts = llama.generate(model=f"{provider}/m", prompt="How is it?", stream=True)
    same("".join(part.response for part in parts), SAYS)


@over(VECTORS)
def ollama_vectors(provider):
    same(llama.embed(model=f"{provider}/m", input=["a", "b"]).embeddings, [[0.25] * 4] * 2)
    same(llama.embeddings(model=f"{provider}/m", prompt="a").embedding, [0.25] * 4)


@over(PROVIDERS)
def ollama_errors(provider):
    def ask(model=f"{provider}/m", key="fb-app", **more):
        client = ollama.Client(host=GATEWAY, headers={"authorization": f"Bearer {key}"})
        return client.chat(model=model, messages=ASKS, **more)

    raises(ollama.ResponseError, lambda: ask(key="fb-wrong"), status_code=401)
    raises(ollama.ResponseError, lambda: ask(key="fb-narrow"), status_code=403)
    raises(ollama.ResponseError, lambda: ask("nobody"), status_code=404)
    raises(ollama.ResponseError, lambda: ask(f"{provider}/status-429-11"), status_code=429)
    raises(ollama.ResponseError, lambda: ask(f"{provider}/status-503"), status_code=503)
    raises(ollama.ResponseError, lambda: list(ask(f"{provider}/error-3", stream=True)))


@check
def ollama_models():
    assert "named" in [model.model for model in llama.list().models]
    same(llama.show("named").capabilities, ["completion"])
    raises(ollama.ResponseError, lambda: llama.show("nobody"), status_code=404)
