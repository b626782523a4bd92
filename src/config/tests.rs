use std::time::Duration;

use super::*;

fn settings(vars: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::from_vars(vars.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())))
}

#[test]
fn folders_follow_the_xdg_rules_and_can_be_named() {
    let at_home = settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")]).unwrap();
    assert_eq!(at_home.state_dir, Path::new("/h/.local/state/runbookd"));
    assert_eq!(at_home.cache_dir, Path::new("/h/.cache/runbookd"));
    let named =
        settings(&[("RUNBOOKD_STATE", "/s"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/h")]).unwrap();
    assert_eq!(named.state_dir, Path::new("/s"));
    assert_eq!(named.cache_dir, Path::new("/c/runbookd"));
}

#[test]
fn every_fault_is_said_at_once() {
    let error = settings(&[("HOME", ""), ("npm_config_registry", "registry.example.org")]);
    let faults = error.unwrap_err().faults;
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn build_arguments_are_names_with_values_and_hold_no_credentials() {
    let read = |args| {
        settings(&[("HOME", "/h"), ("RUNBOOKD_BUILD_ARGS", args)]).map(|s| s.snapshots.build_args)
    };
    let expected = [("PYTHON", "3.13"), ("URL", "http://m/x?a=b")];
    let expected = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    assert_eq!(read(" PYTHON=3.13  URL=http://m/x?a=b"), Ok(expected).map_err(|e: ConfigError| e));
    for wrong in ["PYTHON", "=x", "A-B=c", "URL=https://me:made-up@mirror/"] {
        let error = read(wrong).unwrap_err().to_string();
        assert!(error.contains("RUNBOOKD_BUILD_ARGS") && !error.contains("made-up"), "{error}");
    }
}

#[test]
fn keys_are_shared_only_when_the_operator_says_so() {
    let shares =
        |value| settings(&[("HOME", "/h"), ("RUNBOOKD_SHARE_KEYS", value)]).map(|s| s.share_keys);
    assert_eq!(["", "0", "1"].map(shares), [Ok(false), Ok(false), Ok(true)]);
    assert!(shares("yes").is_err());
}

#[test]
fn the_server_listens_on_this_machine_alone_unless_it_is_told_otherwise() {
    let server = settings(&[("HOME", "/h")]).unwrap().server;
    assert_eq!(server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(server.results_dir, Path::new("/h/.local/state/runbookd/results"));
    let error = settings(&[
        ("HOME", "/h"),
        ("RUNBOOKD_LISTEN", "localhost"),
        ("RUNBOOKD_SLOTS", "0"),
        ("RUNBOOKD_LOG_FORMAT", "xml"),
    ]);
    assert_eq!(
        error.unwrap_err().faults,
        [
            "RUNBOOKD_LOG_FORMAT is `xml`: write `text` or `json`",
            "RUNBOOKD_LISTEN is `localhost`: write an address such as 127.0.0.1:8000",
            "RUNBOOKD_SLOTS is `0`: write a number of runs",
        ]
    );
}

#[test]
fn what_is_old_goes_after_a_month_unless_the_operator_says_otherwise() {
    let days = |value| {
        let vars = [("HOME", "/h"), ("RUNBOOKD_KEEP_UPLOADS", value)];
        settings(&vars).map(|s| s.server.keep_uploads.map(|kept| kept.as_secs() / 86_400))
    };
    assert_eq!(["", "0", "7"].map(days), [Ok(Some(30)), Ok(None), Ok(Some(7))]);
    assert!(days("a week").is_err());
}

#[test]
fn the_operator_bounds_how_long_a_run_may_do_nothing() {
    let vars = [
        ("HOME", "/h"),
        ("RUNBOOKD_STALL_TOOL_SECONDS", "90"),
        ("RUNBOOKD_STALL_MODEL_SECONDS", ""),
    ];
    let tool = Some(Duration::from_secs(90));
    let expected = StallCeilings { tool, ..StallCeilings::default() };
    assert_eq!(settings(&vars).unwrap().stall, expected);
    let error = settings(&[("HOME", "/h"), ("RUNBOOKD_STALL_LINGER_SECONDS", "0")]);
    let expected =
        "RUNBOOKD_STALL_LINGER_SECONDS is `0`: write a number of seconds above 0".to_owned();
    assert_eq!(error.unwrap_err().faults, [expected]);
}

#[test]
fn the_operator_bounds_how_much_of_the_disk_a_sandbox_may_hold() {
    let disk = |vars: &[(&str, &str)]| settings(vars).map(|settings| settings.disk);
    assert_eq!(disk(&[("HOME", "/h")]), Ok(DiskShare::ALL));
    let bytes = [("HOME", "/h"), ("RUNBOOKD_DISK_BYTES", "5000000")];
    assert_eq!(disk(&bytes), Ok(DiskShare { bytes: 5_000_000, ..DiskShare::ALL }));
    let error = disk(&[("HOME", "/h"), ("RUNBOOKD_DISK_FILES", "many")]);
    let expected = "RUNBOOKD_DISK_FILES is `many`: write a number of files above 0".to_owned();
    assert_eq!(error.unwrap_err().faults, [expected]);
}

#[test]
fn what_sandboxes_may_reach_is_the_operators_to_say() {
    let egress = |vars: &[(&str, &str)]| {
        let vars = vars.iter().chain(&[("HOME", "/h")]).copied().collect::<Vec<_>>();
        settings(&vars).map(|settings| settings.server.egress)
    };
    let usual = egress(&[]).unwrap();
    assert_eq!(usual.networks.to_string(), "none, allowlist, public");
    assert!(usual.private.is_empty() && usual.deny.is_empty());
    let own = egress(&[
        ("RUNBOOKD_NETWORKS", "none,open"),
        ("RUNBOOKD_EGRESS_PRIVATE", "10.1.0.0/16, [fd00::/8]:443"),
        ("RUNBOOKD_EGRESS_DENY", "*.example.org"),
        ("RUNBOOKD_EGRESS_HOSTS", "mirror.example=10.1.2.3"),
    ])
    .unwrap();
    assert_eq!(own.networks.to_string(), "none, open");
    assert_eq!((own.private.len(), own.deny.len()), (2, 1));
    for wrong in [
        ("RUNBOOKD_NETWORKS", "lan"),
        ("RUNBOOKD_EGRESS_PRIVATE", "10.1.0.0/99"),
        ("RUNBOOKD_EGRESS_DENY", "https://example.org"),
        ("RUNBOOKD_EGRESS_HOSTS", "mirror.example"),
    ] {
        let error = egress(&[wrong]).unwrap_err().to_string();
        assert!(error.contains(&format!("{} is `{}`", wrong.0, wrong.1)), "{error}");
    }
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let settings = settings(&[("HOME", "/h"), ("ANTHROPIC_API_KEY", "")]).unwrap();
    assert!(settings.keyring.get("ANTHROPIC_API_KEY").is_none());
}
