//! `docs/providers.md`, made from the same data as the code. The test holds the two together; with
//! `UPDATE_EXPECT=1` it writes the file anew.

use std::fmt::Write as _;

use expect_test::expect_file;

use super::access::credentials;
use super::models::{
    BROKEN, CACHE_READ, CACHE_WRITE_1H, CACHE_WRITE_5M, MODELS, PRICE_SOURCE, WEB_SEARCH,
};
use super::selection::choose_model;
use crate::run::{ProviderName, RuntimeName};

#[test]
fn the_documented_providers_are_those_of_the_code() {
    expect_file!["../../docs/providers.md"].assert_eq(&document());
}

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str(CREDENTIALS);
    for provider in ProviderName::ALL {
        let variables: Vec<String> =
            credentials(provider).iter().map(|variable| format!("`{variable}`")).collect();
        let variables = if variables.is_empty() { "none".to_owned() } else { variables.join(", ") };
        let model = choose_model(None, RuntimeName::ClaudeCode, provider).name;
        writeln!(text, "| `{}` | {variables} | `{model}` |", provider.as_str()).unwrap();
    }
    text.push_str(SPECIALS);
    text.push_str(SPELLINGS);
    for model in MODELS {
        writeln!(
            text,
            "| `{}` | `{}` | `{}` | `{}` |",
            model.name, model.openrouter, model.bedrock, model.vertex
        )
        .unwrap();
    }
    text.push_str(NOT_WORKING);
    for broken in BROKEN {
        let provider = broken.provider.map_or("any", ProviderName::as_str);
        writeln!(
            text,
            "| `{}…` | {provider} | {} | {} |",
            broken.holds, broken.why, broken.instead
        )
        .unwrap();
    }
    write!(text, "{PRICES}").unwrap();
    for model in MODELS {
        writeln!(text, "| `{}` | {} | {} |", model.name, model.price.input, model.price.output)
            .unwrap();
    }
    writeln!(
        text,
        "\nReading from the cache costs {CACHE_READ} times the input, writing to it \
         {CACHE_WRITE_5M} times for five minutes and {CACHE_WRITE_1H} times for an hour. A \
         search that the service makes itself costs {WEB_SEARCH} US dollars. Source: \
         {PRICE_SOURCE}."
    )
    .unwrap();
    text
}

const INTRODUCTION: &str = "\
<!-- Made by src/provider/table.rs from the data that the program uses. -->

# Providers and models

`model_provider:` in the runbook or `--model-provider` names a provider; explicit always wins.
Without it, a script chooses `scripted`, `OPENROUTER_API_KEY` chooses `openrouter`,
`AWS_BEARER_TOKEN_BEDROCK` chooses `bedrock`, and otherwise it is `anthropic`. Without `agent:`, a
model whose name begins with `claude-` or `anthropic/` means claude-code.

A run whose credential is missing, malformed or in conflict with another one is refused before it
starts, and so is a model that is spelled for another service: the right spelling is offered.
";

const CREDENTIALS: &str = "
## Credentials and default models

| provider | credential, one of | default model |
|----------|--------------------|---------------|
";

const SPECIALS: &str = "
* **anthropic**: `CLAUDE_CODE_OAUTH_TOKEN` is a subscription's token from `claude setup-token`.
  `ANTHROPIC_AUTH_TOKEN` with `ANTHROPIC_BASE_URL` is a gateway that speaks Anthropic's API; together
  with `ANTHROPIC_API_KEY` it is refused.
* **bedrock**: `AWS_REGION` is `us-east-1` unless it is set. The bearer token wins over
  `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, with which the gateway signs
  requests. The machine's own role is never asked for. `ANTHROPIC_BEDROCK_BASE_URL` is passed on.
* **openrouter**: the key is sent as a bearer token and never as an Anthropic key.
  `OPENROUTER_BASE_URL` may end with `/v1` or `/`. Side calls and sub-agents get OpenRouter's names.
* **vertex**: `ANTHROPIC_VERTEX_PROJECT_ID` or `GOOGLE_CLOUD_PROJECT` is needed; `CLOUD_ML_REGION` is
  `us-east5` unless it is set. The service account's key is read from the file that
  `GOOGLE_APPLICATION_CREDENTIALS` names, or from the variable above; the gateway makes access tokens
  from it, and asks that project and region alone.
  `CLAUDE_CODE_SKIP_VERTEX_AUTH` is for a gateway at `ANTHROPIC_VERTEX_BASE_URL` that signs.
* **scripted**: the model in this program; see [scripted-provider.md](scripted-provider.md).
";

const SPELLINGS: &str = "
## How each service spells a model

`[1m]` behind a name asks Claude Code for a window of a million tokens. Other names are accepted with
a note that they were not tried.

| anthropic | openrouter | bedrock | vertex |
|-----------|------------|---------|--------|
";

const NOT_WORKING: &str = "
## What does not work with claude-code

| name begins with | provider | why | use instead |
|------------------|----------|-----|-------------|
";

const PRICES: &str = "
## Prices

US dollars for a million tokens. A cost is marked `reported` where the agent reported one that agrees
with this table, `estimated` where it comes from this table, and `unknown` where the table does not
have the model: it is never taken as free.

| model | input | output |
|-------|-------|--------|
";
