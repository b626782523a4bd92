"""OpenAI's Python client carries runbooks out on the server of JETTY_API_URL.

JETTY_API_TOKEN is an admin's. The model is scripted: it says two things and looks at what it was
given; NAP lets it sleep between them.
"""

import concurrent.futures
import json
import os
import sys
import time
import urllib.error
import urllib.request

import openai
from openai import OpenAI

URL, ADMIN = os.environ["JETTY_API_URL"], os.environ["JETTY_API_TOKEN"]
SAID = "I look around.\nThen I write.\n\nAll done."
RUNBOOK = """---
agent: claude-code
model: claude-sonnet-4-6
model_provider: anthropic
memory: 1G
cpus: 1
secrets:
  MADE_UP_SECRET: {required: false}
---
# Greet

Greet {{name}} in {{language}}.
"""


def get(path, token, decode=json.load):
    request = urllib.request.Request(URL + path, headers={"Authorization": f"Bearer {token}"})
    return decode(urllib.request.urlopen(request))


def key_of(collection):
    body = json.dumps({"name": "story", "collection_name": collection}).encode()
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    for path, data in [("/api/v1/collections", json.dumps({"name": collection}).encode()),
                       ("/api/v1/api-keys", body)]:
        try:
            made = urllib.request.urlopen(urllib.request.Request(URL + path, data, headers))
        except urllib.error.HTTPError as error:
            assert path.endswith("collections"), error.read()
    return json.load(made)["api_key"]


TEAM, OTHER = key_of("team"), key_of("other-team")


def client(token=TEAM, base="/v1", **settings):
    return OpenAI(base_url=URL + base, api_key=token, **settings)


ai = client()


def ask(words="Execute the runbook.", runbook=RUNBOOK, on=ai, jetty=None, **more):
    system = [] if runbook is None else [{"role": "system", "content": runbook}]
    jetty = {"runbook": True, "task": "greet", **(jetty or {})}
    return on.chat.completions.create(
        model="claude-sonnet-4-6", messages=[*system, {"role": "user", "content": words}],
        extra_body={"jetty": jetty}, **more)


def trajectory(metadata, token=TEAM):
    run = metadata["storage_path"]
    return get(f"/api/v1/db/trajectory/{run}", token)


def n_runs(task="greet"):
    return get(f"/api/v1/db/trajectories/team/{task}?limit=1", TEAM)["total"]


def text(stream):
    parts = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    return "".join(parts)


def raised(kind, call, status=None, code=None, **of):
    try:
        call()
    except openai.APIError as error:
        assert type(error) is kind, repr(error)
        assert getattr(error, "status_code", None) == status, repr(error)
        assert code is None or error.code == code, (error.code, repr(error))
        for name, value in of.items():
            assert getattr(error, name) == value, (name, repr(error))
        return error
    sys.exit(f"{kind} was not raised")


def completions():
    """In one piece: the answer, the task that it made, the record, the prompt."""
    variables = {"name": "Ada", "language": "French"}
    env = {"GREETING": "made-up-greeting"}
    done = ask("Greet her loudly. {{name}} stays.", jetty={
        "template_variables": variables, "agent_env": env, "odd": 1,
        "secret_params": {"MADE_UP_SECRET": "made-up-secret"}})
    meta = done.model_extra["jetty_metadata"]
    assert done.id == f"chatcmpl-{meta['trajectory_id']}", done
    assert done.object == "chat.completion" and done.model == "claude-sonnet-4-6", done
    assert done.choices[0].message.content == "All done.", done
    assert done.choices[0].finish_reason == "stop", done
    usage = done.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, done
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, done
    assert usage.prompt_tokens_details.cached_tokens == 0, done
    assert meta["workflow_id"] == f"team-greet--{meta['trajectory_id']}", meta
    assert (meta["collection"], meta["task"], meta["status"]) == ("team", "greet", "completed"), meta
    assert meta["storage_path"] == f"team/greet/{meta['trajectory_id']}", meta
    assert any("jetty.odd" in note for note in meta["notes"]), meta
    told = trajectory(meta)
    params = told["init_params"]
    assert params["prompt"] == "Greet her loudly. {{name}} stays.", params
    assert params["vars"] == variables and params["instruction"] == RUNBOOK, params
    assert params["agent_env"] == {"GREETING": "[redacted]"}, params
    assert told["total_steps"] == ["run"] and "made-up" not in json.dumps(told), told
    instruction = get(f"/api/v1/file/{meta['storage_path']}/instruction.md", TEAM, lambda a: a.read().decode())
    assert "Greet Ada in French." in instruction, instruction
    assert instruction.rstrip().endswith("Greet her loudly. {{name}} stays."), instruction
    config = told["step_configs"]["run"]
    assert config["limits"]["memory_bytes"] == 1 << 30, config
    task = get("/api/v1/tasks/team/greet", TEAM)
    assert task["is_chat_flow"] and task["workflow"]["step_configs"]["run"]["memory"] == "8G", task

    # The task's own runbook; the conversation; content in parts; no `/v1`; an admin's token.
    raised(openai.NotFoundError, lambda: ask(runbook=None, jetty={"task": "nothing"}), 404)
    again = client(base="").chat.completions.create(
        model="claude-code", messages=[
            {"role": "system", "content": [{"type": "text", "text": RUNBOOK}]},
            {"role": "user", "content": [{"type": "text", "text": "Greet."}]},
            {"role": "assistant", "content": "Whom?"}, {"role": "user", "content": "Ada."}],
        extra_body={"jetty": {"runbook": True, "task": "greet", "cpus": 0.5}})
    params = trajectory(again.model_extra["jetty_metadata"])["init_params"]
    assert params["prompt"] == "User: Greet.\n\nAssistant: Whom?\n\nUser: Ada.", params
    assert params["agent"] == "claude-code" and "model" not in params, params
    admin = ask(on=client(ADMIN), jetty={"collection": "team"})
    assert admin.choices[0].message.content == "All done.", admin

    # Read again by every id; another collection's token sees nothing.
    for name in [done.id, f"chatcmpl-{meta['workflow_id']}", meta["trajectory_id"], meta["workflow_id"]]:
        read = ai.chat.completions.retrieve(name)
        assert read.id == done.id and read.choices == done.choices and read.usage == usage, read
        raised(openai.NotFoundError, lambda: client(OTHER).chat.completions.retrieve(name), 404)


def stored():
    """A task that was made otherwise runs its own runbook with the prompt, and anybody's with one."""
    workflow = {"init_params": {"instruction": RUNBOOK.replace("Greet", "Stored")},
                "step_configs": {"play": {"activity": "runbook", "cpus": 2, "memory": "1G"}},
                "steps": ["play"]}
    body = json.dumps({"name": "stored", "workflow": workflow}).encode()
    headers = {"Authorization": f"Bearer {TEAM}", "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{URL}/api/v1/tasks/team", body, headers))
    own = ask("Go.", runbook=None, jetty={"task": "stored", "cpus": 0.5})
    meta = own.model_extra["jetty_metadata"]
    told = trajectory(meta)
    assert told["step_configs"]["play"]["limits"]["n_cpus"] == 0.5, told["step_configs"]
    read = lambda answer: answer.read().decode()
    instruction = get(f"/api/v1/file/{meta['storage_path']}/instruction.md", TEAM, read)
    assert "# Stored" in instruction and instruction.rstrip().endswith("Go."), instruction
    others = ask(jetty={"task": "stored"}).model_extra["jetty_metadata"]
    assert trajectory(others)["total_steps"] == ["run"], others
    assert get("/api/v1/tasks/team/stored", TEAM)["workflow"] == workflow


def streams():
    wish = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(ask(**wish))
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert text(chunks) == SAID, text(chunks)
    assert first.choices[0].delta.role == "assistant", first
    meta = first.model_extra["jetty_metadata"]
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{meta['trajectory_id']}"}, chunks
    assert last.choices[0].finish_reason == "stop", last
    assert last.model_extra["jetty_metadata"]["status"] == "completed", last
    assert usage.choices == [] and usage.usage.total_tokens > 0, usage
    assert trajectory(meta)["status"] == "completed"
    with_events = list(ask(jetty={"stream_events": True}, stream=True))
    events = [chunk.model_extra["jetty_event"] for chunk in with_events[1:]]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), events
    assert {"opened", "said", "tool_started", "usage", "finished"} <= {event["kind"] for event in events}
    assert text(with_events) == SAID, text(with_events)
    resumed(first.id)


def lines(path, headers=None):
    request = urllib.request.Request(URL + path, headers={"Authorization": f"Bearer {TEAM}", **(headers or {})})
    number = None
    for line in urllib.request.urlopen(request):
        line = line.decode().rstrip("\n")
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            yield number, line[6:]
        elif not line:
            number = None


def content(frames):
    data = [json.loads(data) for _, data in frames if data != "[DONE]"]
    return "".join(one["choices"][0]["delta"].get("content", "") for one in data if one.get("choices"))


def resumed(name):
    """Taken up again after every chunk: nothing is lost, nothing comes twice."""
    path = f"/v1/chat/completions/{name}/events"
    whole = list(lines(path))
    assert content(whole) == SAID and whole[-1][1] == "[DONE]", whole
    numbers = [number for number, _ in whole if number is not None]
    assert numbers == sorted(set(numbers)) and len(numbers) == 3, numbers
    for number in numbers:
        upto = whole[:1 + [seen for seen, _ in whole].index(number)]
        for rest in [lines(f"{path}?after={number}"), lines(path, {"Last-Event-ID": str(number)})]:
            assert content(upto) + content(list(rest)) == SAID, (number, whole)
    # A stream that is cut while the run goes on.
    half = []
    slow = ask(jetty={"agent_env": {"NAP": "2"}}, stream=True)
    for chunk in slow:
        half.append(chunk.choices[0].delta.content or "")
        if "look around" in half[-1]:
            break
    slow.close()
    meta = get("/api/v1/db/trajectories/team/greet?limit=1", TEAM)["trajectories"][0]
    assert meta["status"] == "running", meta
    path = f"/v1/chat/completions/chatcmpl-{meta['trajectory_id']}/events"
    seen = [number for number, data in lines(path) if "look around" in data]
    rest = content(list(lines(f"{path}?after={seen[0]}")))
    assert "".join(half) + rest == SAID, (half, rest)


def files():
    made = ai.files.create(file=("notes.txt", b"bees"), purpose="user_data")
    assert made.object == "file" and made.bytes == 4 and made.filename == "notes.txt", made
    assert ai.files.retrieve(made.id).id == made.id
    done = ask(jetty={"files": [made.id]})
    run = done.model_extra["jetty_metadata"]["storage_path"]
    seen = get(f"/api/v1/file/{run}/results/seen.txt", TEAM, lambda answer: answer.read().decode())
    assert "notes.txt" in seen.split(), seen
    before = n_runs()
    for jetty, words in [
        ({"file_paths": [made.id]}, "jetty.files"),
        ({"files": ["team/_sandbox_uploads/0/notes.txt"]}, "jetty.file_paths"),
        ({"files": ["file-000000000000"]}, "file-000000000000"),
        ({"file_paths": ["team/_sandbox_uploads/0/notes.txt"]}, "notes.txt"),
        ({"file_paths": ["other-team/_sandbox_uploads/0/notes.txt"]}, "other-team"),
    ]:
        error = raised(openai.BadRequestError, lambda: ask(jetty=jetty), 400)
        assert words in error.message, (jetty, error)
    assert n_runs() == before


def refusals():
    for jetty, param in [
        ({"timeout_sec": "soon"}, "jetty.timeout_sec"), ({"task": None}, "jetty.task"),
        ({"runbook_url": "https://example.org/x"}, "jetty.runbook_url"),
    ]:
        raised(openai.BadRequestError, lambda: ask(jetty=jetty), 400, param=param)
    inside = {"runbook_url": "https://127.0.0.1/RUNBOOK.md"}
    error = raised(openai.BadRequestError, lambda: ask(runbook=None, jetty=inside), 400)
    assert "private address" in error.message, error
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    raised(openai.BadRequestError, lambda: ai.chat.completions.create(
        model="m", messages=image, extra_body={"jetty": {"runbook": True, "task": "greet"}}), 400,
        param="messages[0].content[0]")
    raised(openai.AuthenticationError, lambda: ask(on=client("mlc_" + "0" * 32)), 401)
    raised(openai.PermissionDeniedError, lambda: ask(on=client(OTHER), jetty={"collection": "team"}), 403)
    raised(openai.BadRequestError, lambda: ask(on=client(ADMIN)), 400, param="jetty.collection")
    raised(openai.BadRequestError, lambda: ask(jetty={"agent": "nobody"}), 400)
    assert get("/api/v1/tasks/team", TEAM) and n_runs() > 0


def failures():
    """Runs that do not end well: the client's words for it, and no second run."""
    broken = RUNBOOK.replace("cpus: 1", "cpus: 1\nsetup: exit 3")
    before = n_runs()
    error = raised(openai.BadRequestError, lambda: ask(runbook=broken), 400, code="setup_failed")
    assert error.response.json()["jetty_metadata"]["status"] == "failed", error.response.text
    slow = {"timeout_sec": 1, "agent_env": {"NAP": "30"}}
    error = raised(openai.UnprocessableEntityError, lambda: ask(jetty=slow), 422, code="timeout")
    assert error.response.headers["x-should-retry"] == "false"
    name = error.response.json()["jetty_metadata"]["trajectory_id"]
    raised(openai.UnprocessableEntityError, lambda: ai.chat.completions.retrieve(name), 422, code="timeout")
    assert n_runs() == before + 2
    error = raised(openai.APIError, lambda: text(ask(jetty=slow, stream=True)), code="timeout")
    assert "timeout" in error.message.lower(), error
    assert n_runs() == before + 3


def patience():
    """What a client does that does not want to wait."""
    nap = {"agent_env": {"NAP": "3"}}
    answer = ai.chat.completions.with_raw_response.create(
        model="claude-sonnet-4-6", messages=[{"role": "system", "content": RUNBOOK}],
        extra_body={"jetty": {"runbook": True, "task": "greet", "timeout_hint": 0.2, **nap}})
    assert answer.status_code == 202, answer.text
    opened = answer.parse()
    meta = opened.model_extra["jetty_metadata"]
    assert opened.id == f"chatcmpl-{meta['workflow_id']}" and meta["status"] == "running", opened
    assert opened.choices[0].message.content == "", opened
    assert content(list(lines(f"/v1/chat/completions/{opened.id}/events"))) == SAID
    assert ai.chat.completions.retrieve(opened.id).choices[0].message.content == "All done."

    # One key, one run; another request with it is refused; a client that tries again by itself too.
    before, key = n_runs(), {"Idempotency-Key": "story-1"}
    one, two = (ask(extra_headers=key) for _ in range(2))
    assert one.id == two.id and n_runs() == before + 1
    raised(openai.ConflictError, lambda: ask("Otherwise.", extra_headers=key, on=client(max_retries=0)), 409)
    raised(openai.APITimeoutError, lambda: ask("Slow.", jetty=nap, timeout=1))
    assert n_runs() == before + 2, "the client's own retries are one run"

    # A client that goes away: its run goes on, unless it said otherwise.
    for jetty, status in [({}, "completed"), ({"cancel_on_disconnect": True}, "cancelled")]:
        for is_stream in [False, True]:
            wish = {**nap, **jetty, "task": f"left-{status}"}
            if is_stream:
                stream = ask(jetty=wish, stream=True)
                next(iter(stream))
                stream.close()
            else:
                raised(openai.APITimeoutError, lambda: ask(jetty=wish, timeout=1, on=client(max_retries=0)))
            for _ in range(600):
                run = get(f"/api/v1/db/trajectories/team/left-{status}?limit=1", TEAM)["trajectories"][0]
                if run["status"] not in ("pending", "running"):
                    break
                time.sleep(0.1)
            assert run["status"] == status, (jetty, is_stream, run["status"])


def many():
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        said = list(pool.map(lambda _: text(ask(stream=True)), range(16)))
    assert said == [SAID] * 16, said


STORIES = {"completions": completions, "stored": stored, "streams": streams, "files": files,
           "refusals": refusals, "failures": failures, "patience": patience, "many": many}
for story in sys.argv[1:]:
    STORIES[story]()
