work
echo '{"type":"result","subtype":"success","is_error":false,"num_turns":1,"result":"Done.","stop_reason":"end_turn","session_id":"5e551011-0000-4000-8000-000000000000","total_cost_usd":0.0,"usage":{},"modelUsage":{"claude-sonnet-4-6":{"inputTokens":1,"outputTokens":1,"cacheReadInputTokens":0,"cacheCreationInputTokens":0,"webSearchRequests":0,"costUSD":0.0}},"terminal_reason":"completed"}'
