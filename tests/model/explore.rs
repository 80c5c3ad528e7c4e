//! Runs the checker and says what it found.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::protocol::{Action, Protocol, State};
use crate::setup::Setup;

/// A run that ends in something that must not be.
type Run = Path<State, Action>;

/// Explores every state and asserts every property; then that every job can still end from wherever
/// it got.
pub(crate) fn holds(name: &str, setup: Setup) {
    let started = Instant::now();
    let checker = Protocol::new(setup).checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states, depth {}, {:.1} s",
        checker.max_depth(),
        started.elapsed().as_secs_f64()
    );
    for property in checker.model().properties() {
        let found = checker.discovery(property.name);
        match (property.expectation.discovery_is_failure(), found) {
            (true, Some(_)) => panic!(
                "{name}: \"{}\" does not hold:\n{}",
                property.name,
                told(&shortest(setup, property.name).expect("it was found before"))
            ),
            (false, None) => panic!("{name}: \"{}\" is never reached", property.name),
            (true, None) | (false, Some(_)) => {}
        }
    }
}

/// Asserts that the property fails, and returns the shortest way in which it does.
pub(crate) fn fails(name: &str, setup: Setup, property: &'static str) -> usize {
    let Some(run) = shortest(setup, property) else {
        panic!("{name}: \"{property}\" holds, so the model does not see what it is there to see");
    };
    let steps = run.clone().into_actions().len();
    println!("{name}: \"{property}\" fails in {steps} steps:\n{}", told(&run));
    steps
}

/// The shortest run that violates a property. The checker tells of a late one among the first that
/// it meets, so it is asked again for shorter ones until there are none.
fn shortest(setup: Setup, property: &'static str) -> Option<Run> {
    let mut best: Option<Run> = None;
    loop {
        let mut builder = Protocol::new(setup)
            .checker()
            .finish_when(HasDiscoveries::AnyOf([property].into()));
        if let Some(run) = &best {
            // Depth counts states, and only states before this depth are looked at.
            builder = builder.target_max_depth(run.clone().into_states().len());
        }
        match builder.spawn_bfs().join().discovery(property) {
            Some(run) => best = Some(run),
            None => return best,
        }
    }
}

/// The run in words.
fn told(run: &Run) -> String {
    let mut text = String::new();
    let steps = run.clone().into_vec();
    for (number, pair) in steps.windows(2).enumerate() {
        let ([(_, Some(action)), (after, _)] | [(_, Some(action)), (after, ..)]) = pair else {
            continue;
        };
        let rows: Vec<String> = after
            .rows
            .iter()
            .map(|row| format!("{:?}", row.status).to_lowercase())
            .collect();
        writeln!(
            text,
            "  {:>2}. {action}  [{}; effects {}]",
            number + 1,
            rows.join(", "),
            after.gateway.objects.len() + usize::from(after.gateway.cancels)
        )
        .expect("a string takes any text");
    }
    text
}

/// Asserts that from every state in reach every job can still end, by steps that happen when
/// nothing goes wrong any more: there is no dead end and no endless round without a way out.
pub(crate) fn ends(name: &str, setup: Setup) {
    let model = Protocol::new(setup);
    let started = Instant::now();
    let mut numbers: HashMap<State, usize> = HashMap::new();
    let mut states: Vec<State> = Vec::new();
    let mut back: Vec<Vec<usize>> = Vec::new();
    for state in model.init_states() {
        numbers.insert(state.clone(), states.len());
        states.push(state);
        back.push(Vec::new());
    }
    let mut at = 0;
    while at < states.len() {
        for (action, next) in model.next_steps(&states[at].clone()) {
            let number = *numbers.entry(next.clone()).or_insert_with(|| {
                states.push(next);
                back.push(Vec::new());
                states.len() - 1
            });
            if action.is_calm() {
                back[number].push(at);
            }
        }
        at += 1;
    }
    let mut can_end: Vec<bool> = states.iter().map(|state| model.is_over(state)).collect();
    let mut open: Vec<usize> = (0..states.len()).filter(|at| can_end[*at]).collect();
    while let Some(at) = open.pop() {
        for before in &back[at] {
            if !can_end[*before] {
                can_end[*before] = true;
                open.push(*before);
            }
        }
    }
    println!(
        "{name}: every job can end from each of {} states, {:.1} s",
        states.len(),
        started.elapsed().as_secs_f64()
    );
    if let Some(stuck) = can_end.iter().position(|can| !can) {
        panic!("{name}: nothing ends from here any more: {:#?}", states[stuck]);
    }
}
