"""The official Python SDKs of OpenAI, Anthropic, Google, Mistral and Ollama, each over providers of every dialect.

    python.py http://GATEWAY openai,anthropic,...

The gateway has the keys fb-app, fb-narrow (one model), fb-slow (one request a minute) and a route `NAME/*` for every
provider. Models do what their name says; one that is called `able` does what it is asked for (tests/suite/mock_provider).
Prints what failed and ends with 1.
"""

import by_anthropic  # noqa: F401
import by_google  # noqa: F401
import by_mistral  # noqa: F401
import by_ollama  # noqa: F401
import by_openai  # noqa: F401
import checks

if __name__ == "__main__":
    checks.run()
