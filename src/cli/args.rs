//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use url::Url;

use super::remote::{
    CollectionCommand, EnvCommand, HealthArguments, LogsArguments, RunsCommand, TaskCommand,
    UsageArguments,
};
use crate::run::{
    Credentials, HostRule, Network, NetworkMode, ProviderTool, ProviderTools, RunRef, Slug,
    UnknownMode, Usd,
};
use crate::sandbox::EngineChoice;
use crate::telemetry::{FOR_A_PERSON, FOR_AN_OPERATOR};

/// Where the results go when nobody says otherwise.
const DEFAULT_RESULTS: &str = "results";

/// Runs agent runbooks in sandboxes, keeps what happened, and counts every token.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a runbook and waits for its end.
    Run(Box<RunArguments>),
    /// Runs a real agent on a scripted model: no account, no key, no cost.
    Demo(DemoArguments),
    /// Checks everything that a run needs on this machine, and names what mends it. Runs nothing.
    Doctor(DoctorArguments),
    /// Checks runbooks as a run would, and tells everything that was found. Runs nothing.
    Validate(ValidateArguments),
    /// The images that sandboxes start from.
    Snapshot {
        #[command(subcommand)]
        what: SnapshotCommand,
    },
    /// Tells what the code of a finding means.
    Explain {
        /// The code, such as `wrong-slug`.
        code: String,
    },
    /// Serves the HTTP API and runs what is submitted to it, until it is told to stop.
    Serve(ServeArguments),
    /// Makes, lists and revokes the tokens of the API.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Lists, shows, stops and downloads the runs of a server.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Shows what happened in a run on a server.
    Logs(LogsArguments),
    /// Looks after the tasks of a server.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Looks after the variables of a collection: keys and secrets for its runs.
    #[command(subcommand)]
    Env(EnvCommand),
    /// Shows what a collection of a server used, by day and model.
    Usage(UsageArguments),
    /// Lists and makes the collections of a server.
    #[command(subcommand)]
    Collection(CollectionCommand),
    /// Prints the smallest network policy that lets a run do what it did.
    SuggestPolicy(SuggestArguments),
    /// Asks whether a server lives.
    Health(HealthArguments),
    /// Joins a port of a sandbox to the socket of its proxy.
    #[command(hide = true)]
    Relay(RelayArguments),
    /// Stands between one run's sandbox and its model service. A server starts it.
    #[command(hide = true)]
    Gateway(GatewayArguments),
}

impl Command {
    /// What is logged when nobody says anything else.
    pub(super) fn default_log_filter(&self) -> &'static str {
        match self {
            Self::Serve(_) => FOR_AN_OPERATOR,
            Self::Run(_)
            | Self::Demo(_)
            | Self::Doctor(_)
            | Self::Snapshot { .. }
            | Self::Validate(_)
            | Self::Explain { .. }
            | Self::Token(_)
            | Self::Runs(_)
            | Self::Logs(_)
            | Self::Task(_)
            | Self::Env(_)
            | Self::Usage(_)
            | Self::Collection(_)
            | Self::SuggestPolicy(_)
            | Self::Health(_)
            | Self::Relay(_)
            | Self::Gateway(_) => FOR_A_PERSON,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct SuggestArguments {
    /// The run: its id, or COLLECTION/TASK/ID.
    #[arg(value_name = "RUN")]
    pub(super) run: String,
    /// The server that has the run, instead of this machine's results.
    #[arg(long, value_name = "URL", value_parser = super::remote::server)]
    pub(super) server: Option<Url>,
    /// Where the results are [default: results].
    #[arg(long, value_name = "FOLDER", conflicts_with = "server")]
    results: Option<PathBuf>,
}

impl SuggestArguments {
    /// Where the results are.
    pub(super) fn results(&self) -> &Path {
        self.results.as_deref().unwrap_or(Path::new(DEFAULT_RESULTS))
    }
}

#[derive(Debug, Args)]
pub(super) struct RelayArguments {
    /// Where to listen.
    pub(super) listen: SocketAddr,
    /// The proxy's socket.
    pub(super) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct GatewayArguments {
    /// The run's folder for its model service.
    pub(super) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// The address to listen on [default: RUNBOOKD_LISTEN, or 127.0.0.1:8000].
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// The results directory [default: RUNBOOKD_RESULTS, or `results` in the state folder].
    #[arg(long, value_name = "FOLDER")]
    pub(super) results: Option<PathBuf>,
    /// How many runs go on at the same time [default: RUNBOOKD_SLOTS, or what the machine bears].
    #[arg(long, value_name = "N")]
    pub(super) slots: Option<NonZeroUsize>,
    /// Where sandboxes are made: `auto`, `docker` or `bubblewrap` [default: RUNBOOKD_ENGINE, or
    /// auto].
    #[arg(long, value_name = "ENGINE")]
    pub(super) engine: Option<EngineChoice>,
    /// Lets other machines reach the API though no token was ever made. The first one is printed.
    #[arg(long)]
    pub(super) allow_remote: bool,
    /// An agent CLI of your own instead of the pinned one, for every run. It must report the pinned
    /// version.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub(super) agent_cli: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Makes a token and shows it once.
    Create {
        /// What the token is called, such as the person or the machine that uses it.
        #[arg(value_name = "NAME")]
        name: String,
        /// The collection that the token opens; it is made if it is not there.
        #[arg(
            long,
            value_name = "COLLECTION",
            conflicts_with = "admin",
            required_unless_present = "admin"
        )]
        collection: Option<String>,
        /// Makes a token that opens everything.
        #[arg(long)]
        admin: bool,
    },
    /// Lists the tokens, without their secret part.
    List,
    /// Makes a token useless, at once.
    Revoke {
        /// The token's number, as `list` shows it.
        #[arg(value_name = "ID")]
        id: u64,
    },
}

/// What is done with snapshots.
#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Lists those that can be built here, and whether they are.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Builds some now, so that no run waits for them.
    Build {
        /// Their names.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Removes the images of old recipes that no container uses.
    Prune,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// The engine that a run would ask for: `auto`, `docker` or `bubblewrap`
    /// [default: RUNBOOKD_ENGINE, or auto].
    #[arg(long, value_name = "ENGINE")]
    pub(super) engine: Option<EngineChoice>,
    /// The container image that a run would start from. Docker only.
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// Where the results would go.
    #[arg(long, value_name = "FOLDER", default_value = "results")]
    pub(super) results: PathBuf,
    /// Shows the checks as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArguments {
    /// The runbooks.
    #[arg(value_name = "FILE", required = true)]
    pub(super) runbooks: Vec<PathBuf>,
    /// How the findings are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) format: Format,
}

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A line each, as compilers write it.
    Text,
    /// One JSON object.
    Json,
    /// GitHub's workflow commands.
    Github,
}

/// What `run` and `demo` share.
#[derive(Debug, Args)]
pub(super) struct CommonArguments {
    /// Where sandboxes are made: `auto`, `docker` or `bubblewrap`. `auto` takes Docker if it answers
    /// [default: RUNBOOKD_ENGINE, or auto].
    #[arg(long, value_name = "ENGINE")]
    pub(super) engine: Option<EngineChoice>,
    /// The container image to start from, instead of the runbook's. Docker only.
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,
    /// The snapshot to start from, instead of the runbook's: `runbookd snapshot list` shows them.
    #[arg(long, value_name = "NAME", conflicts_with = "image")]
    pub(super) snapshot: Option<String>,
    /// Where the results go [default: results].
    #[arg(long, value_name = "FOLDER")]
    pub(super) results: Option<PathBuf>,
    /// Shows the run as JSON lines.
    #[arg(long)]
    pub(super) json: bool,
    /// Installs Bubblewrap through the system's package manager if there is no engine. Asks first.
    #[arg(long)]
    pub(super) setup: bool,
    /// Lets `--setup` install without asking.
    #[arg(long, requires = "setup")]
    pub(super) yes: bool,
}

impl CommonArguments {
    /// Where the results go.
    pub(super) fn results(&self) -> &Path {
        self.results.as_deref().unwrap_or(Path::new(DEFAULT_RESULTS))
    }
}

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The runbook, a Markdown file. It may be left out with `--resume`: then the former run's own
    /// runbook is carried out, with its variables and in its task; and with `--server` and
    /// `--task`: then the task runs as it is there.
    #[arg(value_name = "FILE", required_unless_present_any = ["resume", "server"])]
    pub(super) runbook: Option<PathBuf>,
    /// Runs it on this server instead of this machine, and follows it. The token comes from
    /// JETTY_API_TOKEN or ~/.config/jetty/token.
    #[arg(long, value_name = "URL", value_parser = super::remote::server, conflicts_with = "resume")]
    pub(super) server: Option<Url>,
    /// A variable of this process that the run gets as a secret. Can be given several times. (A run
    /// on this machine takes those that its runbook declares.)
    #[arg(long = "secret", value_name = "NAME", requires = "server", value_parser = super::remote::variable)]
    pub(super) secrets: Vec<String>,
    /// Does not wait for the end of a run on a server, and says only what it is called.
    #[arg(long, requires = "server")]
    pub(super) no_wait: bool,
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// Goes on with the conversation of a run that has ended, in a run of its own: with its session
    /// and with its files in /app/results and /app/assets. RUN is an id or collection/task/id.
    #[arg(long, value_name = "RUN")]
    pub(super) resume: Option<RunRef>,
    /// A value for a template variable of the runbook. Can be given several times.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub(super) variables: Vec<Variable>,
    /// A file for /app/assets. Can be given several times.
    #[arg(long = "file", value_name = "PATH")]
    pub(super) files: Vec<PathBuf>,
    /// A Debian package to install on top, instead of the runbook's. Can be given several times.
    #[arg(long = "apt-package", value_name = "PACKAGE")]
    pub(super) apt_packages: Vec<String>,
    /// The agent CLI, instead of the runbook's.
    #[arg(long)]
    pub(super) agent: Option<String>,
    /// The model, instead of the runbook's.
    #[arg(long)]
    pub(super) model: Option<String>,
    /// The model service, instead of the runbook's: `anthropic`, `bedrock`, `openrouter`, `vertex`
    /// or `scripted`.
    #[arg(long, value_name = "PROVIDER")]
    pub(super) model_provider: Option<String>,
    /// Where the model service's credential is: `gateway`, outside the sandbox, or `direct`, in it,
    /// where the agent can read it.
    #[arg(long, value_name = "PLACE", value_parser = credentials)]
    pub(super) credentials: Option<Credentials>,
    /// What the runbook may have the model service do itself: `web_search`, `web_fetch`,
    /// `code_execution`, `remote_mcp`, `url_media`, with commas between them [default:
    /// RUNBOOKD_PROVIDER_TOOLS, or nothing].
    #[arg(long, value_name = "TOOLS", value_parser = ProviderTool::list)]
    pub(super) provider_tools: Option<ProviderTools>,
    /// What the scripted model answers, a YAML file. Chooses the scripted provider.
    #[arg(long, value_name = "FILE")]
    pub(super) script: Option<PathBuf>,
    /// What the agent may do unasked, instead of the runbook's: `plan`, `acceptEdits`, `default` or
    /// `bypassPermissions`. Nobody is asked; what is not allowed is denied.
    #[arg(long, value_name = "MODE")]
    pub(super) permission_mode: Option<String>,
    /// What it may do beside that, instead of the runbook's list, such as `Read` or `Bash(git *)`.
    /// Can be given several times.
    #[arg(long = "allowed-tool", value_name = "RULE")]
    pub(super) allowed_tools: Vec<String>,
    /// What it may not do, beside the runbook's list. Can be given several times.
    #[arg(long = "disallowed-tool", value_name = "RULE")]
    pub(super) disallowed_tools: Vec<String>,
    /// What the sandbox reaches, instead of the runbook's: `none`, `allowlist` (what `--allow`
    /// names), `public` (public hosts, ports 80 and 443) or `open` (what this machine reaches).
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: Option<NetworkMode>,
    /// A host for `--network allowlist`, such as `pypi.org`, `*.example.org` or `example.org:8443`.
    /// Can be given several times.
    #[arg(long = "allow", value_name = "HOST")]
    allowed: Vec<HostRule>,
    /// The longest that the agent may work, in seconds.
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// The most turns of the agent's main loop.
    #[arg(long, value_name = "N")]
    pub(super) max_turns: Option<u32>,
    /// The most that the run may cost, in dollars, such as `2.50`.
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub(super) max_cost_usd: Option<Usd>,
    /// The most tokens that it may use, of every kind.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_tokens: Option<u64>,
    /// The most requests that it may make to a model.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_requests: Option<u64>,
    /// How often a failing request to the model is tried again.
    #[arg(long, value_name = "N")]
    pub(super) model_retries: Option<u32>,
    /// The sandbox's memory, such as `4G` or `512M`.
    #[arg(long, value_parser = size)]
    pub(super) memory: Option<u64>,
    /// How much of the disk the sandbox may hold, such as `16G`.
    #[arg(long, value_parser = size)]
    pub(super) disk: Option<u64>,
    /// The sandbox's processors, such as `2` or `0.5`.
    #[arg(long, value_name = "N")]
    pub(super) cpus: Option<f64>,
    /// The collection that the run belongs to, a folder of the results [default: local; on a server
    /// the one that the token opens].
    #[arg(long, value_parser = slug)]
    pub(super) collection: Option<Slug>,
    /// The task that the run belongs to, a folder of the collection [default: the file's name].
    #[arg(long, value_parser = slug)]
    pub(super) task: Option<Slug>,
    /// An agent CLI of your own instead of the pinned one. It must report the pinned version.
    #[arg(long, value_name = "PATH", hide_short_help = true)]
    pub(super) agent_cli: Option<PathBuf>,
}

fn credentials(word: &str) -> Result<Credentials, String> {
    Credentials::from_word(word).ok_or_else(|| "write `gateway` or `direct`".to_owned())
}

/// `NAME=VALUE`.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err("write NAME=VALUE".to_owned()),
        }
    }
}

impl RunArguments {
    /// What the sandbox reaches, where the command line says so.
    pub(super) fn network(&self) -> Result<Option<Network>, String> {
        let mode = match (self.network, self.allowed.as_slice()) {
            (None, []) => return Ok(None),
            (None, _) => NetworkMode::Allowlist,
            (Some(mode), _) => mode,
        };
        let network = mode.with(self.allowed.clone());
        network.map(Some).ok_or_else(|| {
            "`--network allowlist` needs 1 to 200 `--allow HOST`, and no other network has a use for \
             them"
                .to_owned()
        })
    }
}

fn network(text: &str) -> Result<NetworkMode, String> {
    NetworkMode::from_word(text).ok_or_else(|| UnknownMode.to_string())
}

fn slug(text: &str) -> Result<Slug, String> {
    Slug::new(text).map_err(|e| e.to_string())
}

fn usd(text: &str) -> Result<Usd, String> {
    let amount = text.parse().ok().and_then(Usd::new).filter(|usd| usd.micros() > 0);
    amount.ok_or_else(|| "write a number of dollars above 0, such as 2.50".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    crate::runbook::parse_size(text).ok_or_else(|| "write a size such as 4G or 512M".to_owned())
}
