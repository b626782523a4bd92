# The calls of Jetty's shell client: curl -sf piped into jq, which prints nothing for an error.
# Needs JETTY_API_URL and JETTY_API_TOKEN.
set -euo pipefail

api() { curl -sf --max-time 100 -H "Authorization: Bearer $JETTY_API_TOKEN" "$@"; }
url=$JETTY_API_URL/api/v1
json='Content-Type: application/json'

same() { # same WHAT FOUND WANTED
    [ "$2" = "$3" ] || { echo "$1: found '$2', wanted '$3'" >&2; exit 1; }
}

curl -sf "$url/health" >/dev/null
same collections "$(api "$url/collections/" | jq -r '.[] | "\(.name) \(.description)"')" "team null"
same collection "$(api "$url/collections/team" | jq -r .name)" team
same environment "$(api "$url/collections/team/environment" | jq -r '.environment_variables | keys | join(",")')" \
    ANTHROPIC_API_KEY,ANTHROPIC_BASE_URL

workflow='{"init_params": {"instruction": "# A story\n\nDo it.\n", "prompt": "", "model": "claude-sonnet-4-6",
    "model_provider": "anthropic"}, "steps": ["run"], "step_configs": {"run": {"activity": "runbook",
    "agent": "claude-code", "instruction_path": "init_params.instruction"}}}'
body=$(jq -n --argjson workflow "$workflow" '{name: "story", description: "Told", workflow: $workflow}')
same made "$(api -X POST -H "$json" -d "$body" "$url/tasks/team" | jq -r .name)" story
same tasks "$(api "$url/tasks/team/" | jq -r '.[] | "\(.name) \(.description)"')" "story Told"
same workflow "$(api "$url/tasks/team/story" | jq -c '.workflow.steps')" '["run"]'
same changed "$(api -X PUT -H "$json" -d '{"description": "Better"}' "$url/tasks/team/story" | jq -r .description)" Better
same templates "$(curl -sf "$url/step-templates" | jq -r '.templates[] | select(.name == "runbook") | .activity_name')" runbook
same template "$(curl -sf "$url/step-templates/runbook" | jq -r .name)" runbook
same models "$(api "$url/models/team/" | jq -c '[.[] | .name]')" '[]'
same datasets "$(api "$url/datasets/team" | jq -c '[.[] | .name]')" '[]'

# The shell client's default, "${3:-{}}", puts one brace too many behind what it was given.
with_slip() { local params="${1:-{}}"; printf '%s' "$params"; }
same slip "$(with_slip '{"prompt":"Hello"}')" '{"prompt":"Hello"}}'
same "the slip of nothing" "$(with_slip)" '{}'
started=$(api -X POST -F "init_params=$(with_slip '{"prompt":"Hello"}')" "$url/run/team/story")
id=$(jq -r .workflow_id <<<"$started"); id=${id##*--}
same prompt "$(api "$url/db/trajectory/team/story/$id" | jq -r .init_params.prompt)" Hello
until [ "$(api "$url/db/trajectory/team/story/$id" | jq -r .status)" != pending ]; do :; done
while [ "$(api "$url/db/trajectory/team/story/$id" | jq -r .status)" = running ]; do :; done
same status "$(api "$url/trajectory/team/story/$id" | jq -r .status)" completed

# A chat: the last step's outputs, at the top of the answer.
synced=$(api -X POST -F "init_params=$(with_slip)" "$url/run-sync/team/story")
same outputs "$(jq -r '.steps | to_entries | last | .value.outputs.success' <<<"$synced")" true
same text "$(jq -r '.steps | to_entries | last | .value.outputs | .text // .content // "none"' <<<"$synced")" "All done."
# With a file, as a shell sends it.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
file=$folder/case.json; echo '{"case": 1}' >"$file"
filed=$(api -X POST -F 'init_params={"prompt":"x"}' -F "files=@$file" "$url/run-sync/team/story")
same paths "$(jq '.init_params.file_paths | length' <<<"$filed")" 1

listed=$(api "$url/db/trajectories/team/story?limit=10")
same listed "$(jq -r '.trajectories[] | "\(.trajectory_id) \(.status)"' <<<"$listed" | tail -1)" "$id completed"
same created "$(jq -r '.trajectories[0].created | type' <<<"$listed")" string
last=$(jq -r '.trajectories[0].trajectory_id' <<<"$listed")
output=$(api "$url/db/trajectory/team/story/$last" | jq -c '.steps | to_entries | last | .value.outputs')
key=$(jq -r '.results_files[].path | select(endswith("seen.json"))' <<<"$output")
same file "$(api "$url/file/$key")" '{"case": 1}'
api -o "$file" "$url/trajectory/team/story/$last/download"
same zip "$(head -c 2 "$file")" PK
same stats "$(api "$url/db/stats/team/story" | jq -r type)" object
same label "$(api -X POST -H "$json" -d '{"key":"a","value":"b","author":"c"}' \
    "$url/trajectory/team/story/$last/labels" | jq -r type)" object
same statuses "$(api -X POST -H "$json" -d "{\"$last\": \"archived\"}" "$url/trajectory/team/story/statuses" | jq -r type)" object
same archived "$(api "$url/db/trajectory/team/story/$last" | jq -r .status)" archived
same logs "$(api "$url/workflows-logs/team-story--$id" | jq -r '.events | type')" array
same trial "$(api "$url/trial/team" | jq -r .active)" false
same upload "$(api -X POST -F "files=@$file" "$url/sandbox/upload?collection=team" | jq -r .count)" 1
same removed "$(api -X DELETE "$url/tasks/team/story" | jq -r type)" object

# What -f hides says what was wrong.
same refusal "$(curl -s -H "Authorization: Bearer $JETTY_API_TOKEN" "$url/tasks/team/story" | jq -r '.detail | type')" string
if api "$url/tasks/team/story"; then echo "a task that is gone was found" >&2; exit 1; fi
