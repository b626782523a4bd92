"""OpenAI's Python client and LangChain speak with a model through the server of JETTY_API_URL.

JETTY_API_TOKEN is a token of the collection `team`. The model is the tests' own: its name says what
it does.
"""

import base64
import concurrent.futures
import json
import os
import sys
import time
import urllib.request

import openai
from openai import OpenAI

URL, TOKEN = os.environ["JETTY_API_URL"], os.environ["JETTY_API_TOKEN"]
SAID = "Grüß Gott, Welt 🌍!"
ASK = [{"role": "user", "content": "Say something."}]


def client(**settings):
    return OpenAI(**{"base_url": f"{URL}/v1", "api_key": TOKEN, "max_retries": 0, **settings})


def trajectory(task, answer):
    """The record of a chat. It is written after the answer's last byte."""
    path = f"{URL}/api/v1/trajectory/team/{task}/{answer.headers['x-jetty-trajectory-id']}"
    request = urllib.request.Request(path, headers={"Authorization": f"Bearer {TOKEN}"})
    for _ in range(200):
        try:
            return json.load(urllib.request.urlopen(request))
        except urllib.error.HTTPError as error:
            assert error.code == 404, error
            time.sleep(0.05)
    sys.exit(f"{path} was not written")


def raised(kind, status, call, **of):
    try:
        call()
    except openai.APIError as error:
        assert type(error) is kind, repr(error)
        assert getattr(error, "status_code", None) == status, repr(error)
        assert {key: getattr(error, key) for key in of} == of, repr(error)
        return error
    sys.exit(f"{kind} was not raised")


ai = client()

# In one piece, and its record.
answer = ai.chat.completions.with_raw_response.create(
    model="gpt-say", messages=ASK, temperature=0.5, extra_body={"jetty": {"task": "summarizer"}})
completion = answer.parse()
assert completion.choices[0].message.content == SAID, completion
assert completion.usage.total_tokens == 26 and completion.id == "chatcmpl-made-up"
told = trajectory("summarizer", answer)
step = told["steps"]["completion"]
assert (told["status"], step["outputs"]["text"]) == ("completed", SAID), told
assert step["inputs"] == {"model": "gpt-say", "messages": ASK, "parameters": {"temperature": 0.5}}, step
assert step["outputs"]["usage"]["prompt_tokens"] == 20, step
assert step["outputs"]["usage"]["cached_input_tokens"] == 8, step
assert step["outputs"]["upstream_id"] == "chatcmpl-made-up", step
assert step["outputs"]["upstream_request_id"] == "req-made-up", step
assert answer.headers["x-upstream-request-id"] == "req-made-up"
assert answer.headers["openai-processing-ms"] == "12" and "set-cookie" not in answer.headers

# Piece by piece, under both names of the path.
for base in (f"{URL}/v1", URL):
    bare = client(base_url=base)
    stream = bare.chat.completions.create(
        model="gpt-say", messages=ASK, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == SAID and chunks[-1].usage.prompt_tokens == 20, chunks
    told = trajectory("_chat", stream.response)
    outputs = told["steps"]["completion"]["outputs"]
    assert (outputs["text"], outputs["finish_reason"], outputs["is_stream"]) == (SAID, "stop", True), outputs
    assert outputs["usage"]["completion_tokens"] == 6 and outputs["first_byte_ms"] <= outputs["latency_ms"]

# Tools.
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
call = ai.chat.completions.create(model="gpt-tools", messages=ASK, tools=TOOLS).choices[0]
assert (call.finish_reason, call.message.tool_calls[0].function.name) == ("tool_calls", "look"), call
stream = ai.chat.completions.create(model="gpt-tools", messages=ASK, tools=TOOLS, stream=True)
arguments = "".join(
    part.function.arguments or "" for c in stream for part in c.choices[0].delta.tool_calls or [])
assert json.loads(arguments) == {"at": "the sky"}, arguments
outputs = trajectory("_chat", stream.response)["steps"]["completion"]["outputs"]
assert outputs["tool_calls"] == [{"id": "call-1", "name": "look", "arguments": '{"at": "the sky"}'}], outputs

# A picture reaches the model whole and is not kept whole.
picture = base64.b64encode(bytes(range(256)) * 4096).decode()
look = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, {
    "type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]}]
answer = ai.chat.completions.with_raw_response.create(model="gpt-say", messages=look)
url = trajectory("_chat", answer)["steps"]["completion"]["inputs"]["messages"][0]["content"][1]["image_url"]["url"]
assert url.startswith(f"data:image/png;base64,[{len(picture)} bytes of base64, sha256 "), url[:200]

# What the model's service refuses is what the client raises.
for status, kind in (
    (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError), (409, openai.ConflictError), (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError), (500, openai.InternalServerError), (529, openai.InternalServerError),
):
    for stream in (False, True):
        error = raised(kind, status, lambda: ai.chat.completions.create(
            model=f"gpt-fail-{status}", messages=ASK, stream=stream), code=f"made_up_{status}")
        assert error.response.headers["retry-after"] == "7", error.response.headers
        assert "sk-made-up" not in str(error) and "[redacted]" in error.message, error
        told = trajectory("_chat", error.response)
        assert (told["status"], told["failure"]["code"]) == ("failed", "upstream_error"), told
        assert "sk-made-up" not in json.dumps(told)
raised(openai.InternalServerError, 502, lambda: ai.chat.completions.create(model="gpt-redirect", messages=ASK),
       code="upstream_error")
raised(openai.BadRequestError, 400, lambda: ai.chat.completions.create(
    model="x", messages=ASK, extra_body={"jetty": {"model_provider": "bedrock"}}))
raised(openai.PermissionDeniedError, 403, lambda: ai.chat.completions.create(
    model="gpt-say", messages=ASK, extra_body={"jetty": {"collection": "other-team"}}))
raised(openai.AuthenticationError, 401, lambda: client(api_key="mlc_" + "0" * 32).models.list())

# A stream that breaks off is not a whole one, and a client that does not wait leaves.
raised(openai.APIConnectionError, None, lambda: list(
    ai.chat.completions.create(model="gpt-break", messages=ASK, stream=True)))
raised(openai.APITimeoutError, None, lambda: client(timeout=0.5).chat.completions.create(
    model="gpt-hang", messages=ASK))


# Many at once.
def one(number):
    stream = ai.chat.completions.create(model="gpt-say", messages=ASK, stream=True, user=str(number))
    return "".join(c.choices[0].delta.content or "" for c in stream)


with concurrent.futures.ThreadPoolExecutor(16) as pool:
    assert set(pool.map(one, range(64))) == {SAID}

# What can be asked for.
names = {model.id: model.owned_by for model in ai.models.list()}
assert names == {"claude-code": "runbookd"}, names
assert ai.models.retrieve("claude-code").id == "claude-code"
raised(openai.NotFoundError, 404, lambda: ai.models.retrieve("made/up"))

# LangChain, which has its own ways with the same client.
from langchain_openai import ChatOpenAI  # noqa: E402 - it is slow to load

chain = ChatOpenAI(model="gpt-say", base_url=f"{URL}/v1", api_key=TOKEN, max_retries=0)
message = chain.invoke("Say something.")
assert message.content == SAID and message.usage_metadata["input_tokens"] == 20, message
assert "".join(piece.content for piece in chain.stream("Say something.")) == SAID
called = ChatOpenAI(model="gpt-tools", base_url=f"{URL}/v1", api_key=TOKEN).bind_tools(TOOLS).invoke("Look.")
assert called.tool_calls[0]["args"] == {"at": "the sky"}, called
