//! `runbookd gateway`: the process between one run's sandbox and its model service.

use tokio::runtime::{Builder, Runtime};

use super::args::GatewayArguments;
use super::complain;
use super::exit::ExitCode;
use super::parts::now;
use crate::gateway::{Place, ProcessError, Serving, answer, receive, withdraw};
use crate::run::error_chain;
use crate::telemetry::{self, FOR_A_PERSON, LogFormat, LogSettings};

/// Threads for what blocks: the names of model services are looked up there.
const N_BLOCKING: usize = 4;

/// Serves until it is told to end. One thread is enough for one agent.
pub(super) fn gateway(arguments: GatewayArguments) -> ExitCode {
    let runtime =
        Builder::new_current_thread().max_blocking_threads(N_BLOCKING).enable_all().build();
    let runtime: Runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => {
            complain(&format!("the threads of this process cannot be started: {e}"));
            return ExitCode::Unavailable;
        }
    };
    let code = runtime.block_on(serve(Place::new(arguments.folder)));
    // A name that is still looked up is nobody's any more.
    runtime.shutdown_background();
    code
}

async fn serve(place: Place) -> ExitCode {
    let served = begin(place).await;
    answer(&served);
    match served {
        Ok(serving) => match serving.to_its_end().await {
            Ok(()) => ExitCode::Success,
            Err(e) => failed(&e),
        },
        Err(e) => failed(&e),
    }
}

async fn begin(place: Place) -> Result<Serving, ProcessError> {
    withdraw()?;
    let order = receive().await?;
    telemetry::start(&LogSettings {
        filter: order.log_filter.as_deref(),
        default_filter: FOR_A_PERSON,
        format: LogFormat::Text,
        no_color: true,
    });
    Serving::begin(order, place, now)
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    complain(&error_chain(error));
    ExitCode::Unavailable
}
