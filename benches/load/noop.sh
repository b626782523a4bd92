#!/bin/bash
# An agent that does nothing: the first line, one reply, the result.
echo '{"type":"system","subtype":"init","cwd":"/app","session_id":"5e551011-0000-4000-8000-000000000000","tools":[],"mcp_servers":[],"model":"claude-sonnet-4-6","claude_code_version":"2.1.126"}'
say() { # say ID TEXT
    echo '{"type":"assistant","message":{"id":"'"$1"'","type":"message","role":"assistant","model":"claude-sonnet-4-6","content":[{"type":"text","text":"'"$2"'"}],"usage":{"input_tokens":1,"output_tokens":1}},"session_id":"5e551011-0000-4000-8000-000000000000"}'
}
work() { say msg_1 'Nothing to do.'; }
