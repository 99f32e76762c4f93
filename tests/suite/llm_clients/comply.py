"""llm-comply, whole, in every lane of a dialect that the gateway speaks, over providers of every dialect.

    comply.py http://GATEWAY openai,anthropic,...

Warnings count as failures. Prints what failed and ends with 1; what is excused has its reason here.
"""

import sys

from llm_comply import cli
from llm_comply.config import ComplianceConfig
from llm_comply.runner import TestRunner
from llm_comply.schema import SpecLoader
from llm_comply.tests import get_tests

from importlib import resources

GATEWAY, PROVIDERS = sys.argv[1], sys.argv[2].split(",")
LANES = {
    "open-responses": ("/v1", "Authorization", True),
    "openai-chat": ("/v1", "Authorization", True),
    "anthropic": ("/v1", "x-api-key", False),
    "google-genai": ("", "x-goog-api-key", False),
    "google-interactions": ("", "x-goog-api-key", False),
}
# (test, provider or `*`, a part of what is said): why it is no failure of the gateway.
EXCUSED = {
    # POST /v1/responses/compact is OpenAI's own; 404 is right, and the tool only advises.
    ("compact-response", "*", ""),
    # Claude's API wants `max_tokens`; the gateway fills in what it assumes, which the tool allows and advises against.
    ("anth-error-handling", "*", "successful response instead of an error"),
    # Bytes pass from Google to Google's callers; not all of its models give ids.
    ("google-tool-calling", "gemini", "no id field"),
    ("google-tool-calling", "vertex", "no id field"),
    # Neither Ollama nor Bedrock tells how many tokens were thoughts.
    ("google-thinking", "ollama", "thoughtsTokenCount"),
    ("google-thinking", "bedrock", "thoughtsTokenCount"),
    ("chat-reasoning-summary", "bedrock", "reasoning_tokens is 0"),
    # Ollama cannot be made to call a tool. Who demands it is told so.
    ("google-tool-calling", "ollama", ""),
}


def excused(test, provider, said):
    return any(
        test == name and whose in ("*", provider) and part in said for name, whose, part in EXCUSED
    )


def main():
    ran, failed = 0, 0
    for lane, (path, header, is_bearer) in LANES.items():
        spec = cli._SPEC_FILES[lane]
        loader = SpecLoader(str(resources.files("llm_comply") / "specs" / spec) if spec else None)
        for provider in PROVIDERS:
            config = ComplianceConfig(
                base_url=GATEWAY + path,
                api_key="fb-app",
                model=f"gpt-5-claude-sonnet-4-{provider}",
                auth_header=header,
                use_bearer_prefix=is_bearer,
                extra_headers={"anthropic-version": "2023-06-01"} if lane == "anthropic" else {},
                timeout=20.0,
            )
            for result in TestRunner(config, get_tests(lane), loader).run_all().results:
                ran += 1
                said = [*result.errors, *result.warnings]
                if result.status.value != "passed" and not said:
                    said = [result.status.value]
                said = [line for line in said if not excused(result.id, provider, line)]
                failed += bool(said)
                for line in dict.fromkeys(said):
                    print(f"{lane} over {provider}: {result.id}: {line[:300]}")
    print(f"{ran} tests of llm-comply, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
