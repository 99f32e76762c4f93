"""OpenAI's and Anthropic's SDKs over a language model of the box that has learned nothing.

    local.py http://GATEWAY

What it says is nonsense; that it has the form of pydantic's models is what is checked, for several seeds and temperatures.
"""

import sys
from enum import Enum
from typing import Literal, Optional

import anthropic
import openai
from pydantic import BaseModel, ConfigDict, Field

GATEWAY = sys.argv[1]
ASKS = [{"role": "user", "content": "Is the pump hot?"}]
client = openai.OpenAI(base_url=f"{GATEWAY}/v1", api_key="fb-app", max_retries=0, timeout=60)
claude = anthropic.Anthropic(base_url=GATEWAY, api_key="fb-app", max_retries=0, timeout=60)


class Kind(str, Enum):
    pump = "pump"
    valve = "valve"


class Part(BaseModel):
    # Else it may have any others, and who talks nonsense does not end.
    model_config = ConfigDict(extra="forbid")

    kind: Kind
    level: int = Field(ge=0, le=100)


class Report(BaseModel):
    model_config = ConfigDict(extra="forbid")

    main: Part
    code: str = Field(pattern=r"^[A-Z]{2}[0-9]{2}$")
    others: list[Part] = Field(max_length=2)
    note: Optional[Literal["hot", "cold"]]
    sure: bool


def of(call):
    return call.function.name, call.function.parsed_arguments


for seed, temperature in [(1, 0), (2, 0.7), (3, 1.0), (4, 1.5)]:
    how = {"model": "talker", "seed": seed, "temperature": temperature}
    answer = client.chat.completions.parse(messages=ASKS, response_format=Report, max_tokens=300, **how)
    assert answer.choices[0].finish_reason == "stop", answer
    assert isinstance(answer.choices[0].message.parsed, Report), answer
    with client.chat.completions.stream(messages=ASKS, response_format=Report, max_tokens=300, **how) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert streamed == answer.choices[0].message.parsed, "the same seed says the same"

    tools = [openai.pydantic_function_tool(Part), openai.pydantic_function_tool(Report)]
    for choice, names in [("required", ("Part", "Report")), ({"type": "function", "function": {"name": "Part"}}, ("Part",))]:
        answer = client.chat.completions.parse(messages=ASKS, tools=tools, tool_choice=choice, max_tokens=300, **how)
        assert answer.choices[0].finish_reason == "tool_calls", answer
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = of(call)
        assert name in names and isinstance(arguments, (Part, Report)), call

    answer = client.chat.completions.parse(messages=ASKS, tools=tools, response_format=Report, max_tokens=300, **how)
    message = answer.choices[0].message
    if answer.choices[0].finish_reason == "tool_calls":
        assert isinstance(of(message.tool_calls[0])[1], (Part, Report)), answer
    else:
        assert answer.choices[0].finish_reason == "stop" and isinstance(message.parsed, Report), answer


# Where there is no seed, the best token is taken always.
answer = client.responses.parse(model="talker", input=ASKS, text_format=Report, temperature=0, max_output_tokens=300)
assert isinstance(answer.output_parsed, Report), answer
answer = claude.messages.create(
    model="talker",
    max_tokens=300,
    messages=ASKS,
    tools=[{"name": "part", "input_schema": Part.model_json_schema()}],
    tool_choice={"type": "tool", "name": "part"},
    extra_body={"temperature": 0},
)
assert answer.stop_reason == "tool_use", answer
Part.model_validate(answer.content[0].input)
