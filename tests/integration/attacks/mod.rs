//! A hostile agent: the real CLI, told by its model what to try. Each attack is a command of its own
//! in one run, and what it printed is compared with what it must print.
//!
//! After each run nothing of it is left on the machine, and the key that the gateway holds is in no
//! file, in no spelling.

mod gateway;
mod network;
mod sandbox;

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use runbookd::plan::Overrides;
use runbookd::provider::scripted::{LedgerEntry, Listen, Script, ScriptedProvider};
use runbookd::run::Network;
use serde_json::{Value, json};

use crate::support::{Scene, Stage, Story, host};

/// The key that the gateway holds. It exists nowhere, and no attack spells it.
const KEY: &str = "sk-ant-api03-made-up-sentinel-7e1d4f9a";

/// One thing that a hostile agent tries.
struct Attack {
    /// Which danger it stands for, and what it tries.
    name: &'static str,
    /// What the agent's shell runs.
    command: &'static str,
    /// What that prints, and its errors.
    prints: &'static str,
}

/// What a run of attacks left.
struct Aftermath {
    scene: Scene,
    /// What the model service was asked.
    asked: Vec<LedgerEntry>,
}

/// Runs all attacks of a table in one sandbox, and fails with all those that did not print what they
/// must.
async fn withstand(
    stage: &Stage,
    attacks: &[Attack],
    change: impl FnOnce(&mut Story),
) -> Aftermath {
    let address = "0.0.0.0:0".parse().unwrap();
    let script = Script::parse(&script(attacks)).unwrap();
    let server = ScriptedProvider::start(script, Listen::Tcp(address)).await.unwrap();
    let Listen::Tcp(address) = server.address() else { panic!("a TCP address") };
    let url = format!("http://{}:{}", host(stage.kind), address.port());
    let mut story = Story {
        provider: Some("anthropic"),
        keys: vec![("ANTHROPIC_API_KEY", KEY), ("ANTHROPIC_BASE_URL", url.leak())],
        overrides: Overrides { network: Some(Network::None), ..Overrides::default() },
        ..Story::scripted("")
    };
    change(&mut story);
    let scene = story.run(stage).await;
    let asked = server.stop().await;
    let mut wrong = String::new();
    for (i, attack) in attacks.iter().enumerate() {
        let printed = std::fs::read_to_string(scene.folder().join(file(i))).unwrap_or_default();
        if printed.trim() != attack.prints {
            writeln!(wrong, "{}\n  must: {}\n  was:  {printed}", attack.name, attack.prints)
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}\n{}", scene.outline());
    assert_eq!(scene.ending(), "completed", "{}", scene.outline());
    for place in [scene.folder(), stage.state.path()] {
        assert_eq!(files_with_the_key(place), Vec::<String>::new());
    }
    Aftermath { scene, asked }
}

fn file(i: usize) -> String {
    format!("results/attack-{i}.txt")
}

/// A turn for each attack, each with a shell of its own.
fn script(attacks: &[Attack]) -> String {
    let turn = |(i, attack): (usize, &Attack)| {
        let command = format!("(\n{}\n) >/app/{} 2>&1 </dev/null; true", attack.command, file(i));
        json!({ "tools": [{ "Bash": { "command": command, "description": attack.name } }] })
    };
    let mut turns: Vec<Value> = attacks.iter().enumerate().map(turn).collect();
    turns.push(json!({ "text": "Done." }));
    json!({ "turns": turns }).to_string()
}

/// The key in the spellings in which it could hide: as it is, in hex, in base64 at each place that
/// it can have in a longer text.
fn spellings() -> Vec<String> {
    let hex = |upper: bool| -> String {
        let digits =
            KEY.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") });
        digits.collect()
    };
    let mut spellings = vec![KEY.to_owned(), hex(false), hex(true)];
    for before in 0..3 {
        let text = format!("{}{KEY}", "x".repeat(before));
        // The first and last digits hold bits of the neighbours.
        let digits = STANDARD_NO_PAD.encode(&text);
        spellings.push(digits[(before * 8).div_ceil(6)..text.len() * 8 / 6].to_owned());
    }
    spellings
}

fn files_with_the_key(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder of the engine may be gone by now.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                if spellings()
                    .iter()
                    .any(|key| memchr::memmem::find(&bytes, key.as_bytes()).is_some())
                {
                    found.push(entry.path().display().to_string());
                }
            }
        }
    }
    found
}

/// The search itself would find the key, however it stands.
#[test]
fn the_search_for_the_key_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let texts = [
        format!("a {KEY} b"),
        format!("a {hex} b"),
        STANDARD_NO_PAD.encode(format!("x{KEY}y")),
        STANDARD_NO_PAD.encode(format!("xy{KEY}z")),
    ];
    for (i, text) in texts.iter().enumerate() {
        std::fs::write(folder.path().join(i.to_string()), text).unwrap();
    }
    std::fs::write(folder.path().join("harmless"), "sk-ant-api03-made-up-other").unwrap();
    assert_eq!(files_with_the_key(folder.path()).len(), texts.len());
}
