//! What the operator decides for everybody: a runbook, a collection and a request may only narrow it.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::reader::Reader;
use crate::guard::Guardrails;
use crate::run::{DiskShare, ImageRules, ImageSet, ProviderTool, ProviderTools, StallCeilings};

pub(super) fn stall_ceilings(read: &mut Reader<'_>) -> StallCeilings {
    let mut seconds = |name| {
        let seconds: Option<NonZeroU32> = read.at_all(name, "a number of seconds above 0");
        seconds.map(|seconds| Duration::from_secs(seconds.get().into()))
    };
    StallCeilings {
        model: seconds("RUNBOOKD_STALL_MODEL_SECONDS"),
        tool: seconds("RUNBOOKD_STALL_TOOL_SECONDS"),
        silent: seconds("RUNBOOKD_STALL_SILENT_SECONDS"),
        linger: seconds("RUNBOOKD_STALL_LINGER_SECONDS"),
    }
}

pub(super) fn disk_ceiling(read: &mut Reader<'_>) -> DiskShare {
    let mut at_most = |name, what| {
        let ceiling: Option<NonZeroU64> = read.at_all(name, what);
        ceiling.map_or(u64::MAX, NonZeroU64::get)
    };
    DiskShare {
        bytes: at_most("RUNBOOKD_DISK_BYTES", "a number of bytes above 0"),
        n_files: at_most("RUNBOOKD_DISK_FILES", "a number of files above 0"),
    }
}

pub(super) fn image_rules(vars: &BTreeMap<String, String>) -> ImageRules {
    let set = |name: &str| {
        vars.get(name).map(|names| {
            let Ok(set) = names.parse::<ImageSet>();
            set
        })
    };
    let usual = ImageRules::default();
    ImageRules {
        named: set("RUNBOOKD_IMAGES").unwrap_or(usual.named),
        extended: set("RUNBOOKD_PACKAGE_IMAGES").unwrap_or(usual.extended),
    }
}

pub(super) fn provider_tools(
    vars: &BTreeMap<String, String>,
    faults: &mut Vec<String>,
) -> ProviderTools {
    let named = vars.get("RUNBOOKD_PROVIDER_TOOLS").map_or("", String::as_str);
    ProviderTool::list(named).unwrap_or_else(|fault| {
        faults.push(format!("RUNBOOKD_PROVIDER_TOOLS: {fault}"));
        ProviderTools::new()
    })
}

pub(super) fn guardrails(vars: &BTreeMap<String, String>, faults: &mut Vec<String>) -> Guardrails {
    let read = Guardrails::read(|name| vars.get(name).map(String::as_str));
    read.unwrap_or_else(|wrong| {
        faults.extend(wrong.iter().map(ToString::to_string));
        Guardrails::default()
    })
}

pub(super) fn share_keys(vars: &BTreeMap<String, String>, faults: &mut Vec<String>) -> bool {
    match vars.get("RUNBOOKD_SHARE_KEYS").map(String::as_str) {
        None | Some("0") => false,
        Some("1") => true,
        Some(other) => {
            faults.push(format!(
                "RUNBOOKD_SHARE_KEYS is `{other}`: write 1 to let every run use this process's keys, or 0"
            ));
            false
        }
    }
}
