use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const SEC: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_secs(30);
const LIMITS: StallLimits = StallLimits {
    model: Duration::from_secs(100),
    tool: Duration::from_secs(200),
    silent: Duration::from_secs(60),
};

/// Nothing was asked, called or said.
const NOTHING: Signs = Signs {
    n_signs: 0,
    rate_limit: None,
    asking: Asking::Nothing,
    has_open_call: false,
    has_result: false,
    pulse: None,
};

const IN_FLIGHT: Signs = Signs { asking: Asking::InFlight, ..NOTHING };

/// A tool that was called and does nothing.
const TOOL: Signs = Signs { has_open_call: true, pulse: Some(AT_REST), ..NOTHING };

const AT_REST: Pulse = Pulse { cpu: Duration::from_secs(3), n_processes: 5 };

/// Watches with looks a second apart.
struct Watched {
    watch: StallWatch,
    now: Timestamp,
}

impl Watched {
    fn new() -> Self {
        Self::within(LIMITS)
    }

    fn within(limits: StallLimits) -> Self {
        let now = Timestamp::UNIX_EPOCH;
        Self { watch: StallWatch::new(limits, LINGER, now), now }
    }

    fn look(&mut self, signs: Signs, step: Duration) -> Advice {
        self.now = self.now.checked_add(SignedDuration::try_from(step).unwrap()).unwrap();
        self.watch.look(signs, step, self.now)
    }

    /// The same signs for so many seconds, after a first look. Gives each piece of advice with the
    /// second at which it came.
    fn stays(&mut self, signs: impl Fn(u64) -> Signs, n_seconds: u64) -> Vec<(u64, String)> {
        self.look(signs(0), SEC);
        let mut told = Vec::new();
        for second in 1..=n_seconds {
            match self.look(signs(second), SEC) {
                Advice::Wait => {}
                Advice::Warn(stall) => {
                    told.push((second, format!("warn {}", stall.activity.as_str())));
                }
                Advice::End(stall) => {
                    told.push((second, format!("end {}", stall.activity.as_str())));
                    break;
                }
            }
        }
        told
    }
}

fn told(signs: Signs, n_seconds: u64) -> Vec<(u64, String)> {
    Watched::new().stays(|_| signs, n_seconds)
}

fn both(activity: &str, limit: u64) -> Vec<(u64, String)> {
    vec![(limit / 2, format!("warn {activity}")), (limit, format!("end {activity}"))]
}

#[test]
fn each_kind_of_nothing_has_its_own_limit_and_is_said_at_half_of_it() {
    let unseen = Signs { asking: Asking::Unseen, ..NOTHING };
    for (signs, expected) in [
        (IN_FLIGHT, both("model_stalled", 100)),
        (TOOL, both("tool_stuck", 200)),
        (NOTHING, both("silent", 60)),
        // Without a gateway the bytes of an answer are not seen.
        (unseen, both("model_stalled", 200)),
        (Signs { has_open_call: true, pulse: Some(AT_REST), ..unseen }, both("tool_stuck", 200)),
        (Signs { has_result: true, ..TOOL }, vec![(30, "end finished_not_exited".to_owned())]),
        // A sub-agent that waits for its model: its call is open.
        (Signs { asking: Asking::InFlight, ..TOOL }, both("model_stalled", 100)),
        // Where processes are not seen, a tool may be at work.
        (Signs { pulse: None, ..TOOL }, vec![]),
        (Signs { pulse: None, asking: Asking::InFlight, ..TOOL }, vec![]),
    ] {
        assert_eq!(told(signs, 10_000), expected, "{signs:?}");
    }
}

#[test]
fn a_limit_of_few_looks_is_warned_of_before_its_end_too() {
    let mut watched = Watched::within(StallLimits { model: 4 * SEC, ..LIMITS });
    let told = [0, 1_999, 2_300, 100].map(|ms| watched.look(IN_FLIGHT, Duration::from_millis(ms)));
    assert_eq!(told[..2], [Advice::Wait; 2]);
    assert!(matches!(told[2], Advice::Warn(stall) if stall.quiet > stall.limit), "{told:?}");
    assert!(matches!(told[3], Advice::End(_)), "{told:?}");
}

#[test]
fn the_state_says_what_the_run_waits_for() {
    let limited = Signs { rate_limit: Some(1), ..NOTHING };
    for (signs, seconds, expected) in [
        (IN_FLIGHT, 1, Activity::WaitingOnModel),
        (IN_FLIGHT, 50, Activity::ModelStalled),
        (Signs { asking: Asking::Unseen, ..NOTHING }, 1, Activity::WaitingOnModel),
        (TOOL, 1, Activity::ToolRunning),
        (TOOL, 100, Activity::ToolStuck),
        (NOTHING, 1, Activity::Idle),
        (NOTHING, 30, Activity::Silent),
        (limited, 100, Activity::RateLimited),
        (Signs { has_open_call: true, ..limited }, 100, Activity::RateLimited),
        (Signs { asking: Asking::InFlight, ..limited }, 1, Activity::WaitingOnModel),
        (Signs { has_result: true, ..limited }, 1, Activity::FinishedNotExited),
    ] {
        let mut watched = Watched::new();
        watched.stays(|_| signs, seconds);
        assert_eq!(watched.watch.activity().state, expected, "{signs:?} for {seconds} s");
    }
}

#[test]
fn a_stall_says_since_when_and_is_over_with_the_first_sign() {
    let mut watched = Watched::new();
    let lived = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1);
    watched.stays(|_| IN_FLIGHT, 98);
    assert_eq!(watched.watch.activity().state, Activity::ModelStalled);
    assert_eq!(watched.look(Signs { n_signs: 1, ..IN_FLIGHT }, SEC), Advice::Wait);
    let since = lived + SignedDuration::from_secs(99);
    assert_eq!(watched.watch.activity(), ActivityNow { state: Activity::WaitingOnModel, since });
    let told = watched.stays(|_| Signs { n_signs: 1, ..IN_FLIGHT }, 48);
    assert_eq!(told, vec![]);
    let quiet = Duration::from_secs(50);
    let stall = Stall { activity: Activity::ModelStalled, since, quiet, limit: LIMITS.model };
    assert_eq!(watched.look(Signs { n_signs: 1, ..IN_FLIGHT }, SEC), Advice::Warn(stall));
}

#[test]
fn requests_that_fail_one_after_the_other_are_one_time_of_nothing() {
    let told =
        Watched::new().stays(|second| if second % 10 < 8 { IN_FLIGHT } else { NOTHING }, 500);
    // 80 of 100 seconds were spent waiting for the model, and 20 between two requests.
    let last = told.last().unwrap();
    assert_eq!((last.0 / 10, last.1.as_str()), (12, "end model_stalled"));
}

#[test]
fn a_limited_rate_counts_as_long_as_it_is_said_again_and_not_for_ever() {
    let again = |second: u64| Signs { rate_limit: Some(second / 60), ..NOTHING };
    assert_eq!(Watched::new().stays(again, 5_000), vec![]);
    let once = told(Signs { rate_limit: Some(1), ..NOTHING }, 1_000);
    let expected = vec![(150 + 29, "warn silent".to_owned()), (150 + 59, "end silent".to_owned())];
    assert_eq!(once, expected);
    // Each answer that limits the rate is an answer: the next request has its whole time.
    let asking = |second: u64| Signs { rate_limit: Some(second / 90), ..IN_FLIGHT };
    let told = Watched::new().stays(asking, 5_000);
    assert!(told.iter().all(|(_, told)| told == "warn model_stalled"), "{told:?}");
}

#[test]
fn a_result_that_is_taken_back_starts_its_time_anew() {
    let mut watched = Watched::new();
    let done = Signs { has_result: true, ..NOTHING };
    assert_eq!(watched.stays(|_| done, 29), vec![]);
    assert_eq!(watched.look(Signs { n_signs: 1, ..NOTHING }, SEC), Advice::Wait);
    // Words after the result do not keep the process alive for ever.
    let chatty = |second| Signs { n_signs: second + 2, ..done };
    assert_eq!(watched.stays(chatty, 100), [(30, "end finished_not_exited".to_owned())]);
}

#[test]
fn a_machine_that_slept_has_watched_nothing() {
    let hours = Duration::from_secs(8 * 3600);
    for signs in [IN_FLIGHT, TOOL, NOTHING, Signs { has_result: true, ..NOTHING }] {
        let mut watched = Watched::new();
        for _ in 0..6 {
            assert_eq!(watched.look(signs, hours), Advice::Wait, "{signs:?}");
        }
    }
}

fn signs() -> impl Strategy<Value = Signs> {
    let asking = prop_oneof![Just(Asking::Unseen), Just(Asking::Nothing), Just(Asking::InFlight)];
    let pulse = prop::option::of((0..4_u64, 0..3_u64).prop_map(|(cpu, n_processes)| Pulse {
        cpu: Duration::from_millis(cpu * 30),
        n_processes,
    }));
    let rate_limit = prop::option::of(0..3_u64);
    (0..3_u64, rate_limit, asking, any::<bool>(), prop::bool::weighted(0.1), pulse).prop_map(
        |(n_signs, rate_limit, asking, has_open_call, has_result, pulse)| Signs {
            n_signs,
            rate_limit,
            asking,
            has_open_call,
            has_result,
            pulse,
        },
    )
}

/// Some signs, each of which stays for a while.
fn course() -> impl Strategy<Value = Vec<(Signs, Duration)>> {
    let stretch = (signs(), 1..80_usize, 1..20_000_u64);
    prop::collection::vec(stretch, 1..12).prop_map(|stretches| {
        let looks = stretches.into_iter().flat_map(|(signs, n, step_ms)| {
            std::iter::repeat_n((signs, Duration::from_millis(step_ms)), n)
        });
        looks.collect()
    })
}

proptest! {
    /// Nothing is ended that was not watched for its whole limit since its last sign of life, and
    /// nothing is ended unwarned.
    #[test]
    fn an_end_is_earned(course in course()) {
        let mut watched = Watched::new();
        let (mut unseen, mut n_signs, mut warned) = (Duration::ZERO, None, false);
        for (signs, step) in course {
            if n_signs.replace(signs.n_signs) == Some(signs.n_signs) {
                unseen += step.min(MAX_STEP);
            } else {
                (unseen, warned) = (Duration::ZERO, false);
            }
            match watched.look(signs, step) {
                Advice::Wait => {}
                Advice::Warn(stall) => {
                    prop_assert!(stall.quiet <= unseen && stall.quiet >= stall.limit / 2);
                    prop_assert!(stall.activity.is_stalled());
                    warned = true;
                }
                Advice::End(stall) if stall.activity == Activity::FinishedNotExited => {
                    prop_assert!(signs.has_result && stall.quiet >= LINGER);
                }
                Advice::End(stall) => {
                    prop_assert!(stall.quiet <= unseen && stall.quiet >= stall.limit);
                    prop_assert!(stall.activity.is_stalled() && !signs.has_result);
                    prop_assert!(warned);
                }
            }
        }
    }

    /// A tool that works is left alone, however long it takes and whatever else there is.
    #[test]
    fn a_tool_that_works_is_left_alone(course in course(), share in 2..200_u32) {
        let mut watched = Watched::new();
        let mut cpu = Duration::ZERO;
        for (signs, step) in course {
            cpu += step * share / 100 + Duration::from_micros(1);
            let pulse = Some(Pulse { cpu, n_processes: 3 });
            let signs = Signs { has_open_call: true, has_result: false, pulse, ..signs };
            prop_assert_eq!(watched.look(signs, step), Advice::Wait);
            prop_assert!(!watched.watch.activity().state.is_stalled());
        }
    }

    /// Whatever came before: when nothing is seen any more, the run comes to its end.
    #[test]
    fn a_run_in_which_nothing_is_seen_is_ended(course in course(), last in signs()) {
        let pulse = Some(AT_REST);
        let last = Signs { pulse, ..last };
        let mut watched = Watched::new();
        for (signs, step) in course {
            watched.look(signs, step);
        }
        let n_looks = (1..2_000).find(|_| matches!(watched.look(last, SEC), Advice::End(_)));
        prop_assert!(n_looks.is_some(), "{:?}", watched.watch);
    }
}
