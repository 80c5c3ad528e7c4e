//! Runs the checker and says what it found.

use std::collections::HashMap;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::protocol::{Action, Protocol, State};
use crate::setup::Setup;
use crate::table::Row;

/// A run that ends in something that must not be.
type Run = Path<State, Action>;

/// Explores every state and asserts every property: what must always hold does, and what must be
/// reached is.
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

/// Asserts that the property fails, and in how many steps at least.
pub(crate) fn fails(name: &str, setup: Setup, property: &'static str, steps: usize) {
    let Some(run) = shortest(setup, property) else {
        panic!("{name}: \"{property}\" holds, so the model does not see what it is there to see");
    };
    let found = run.clone().into_actions().len();
    println!(
        "{name}: \"{property}\" fails in {found} steps:\n{}",
        told(&run)
    );
    assert_eq!(found, steps, "{name}: the shortest way to fail has changed");
}

/// The shortest run that violates a property. The checker tells of a late one among the first that
/// it meets, so it is asked again for shorter ones until there are none.
fn shortest(setup: Setup, property: &'static str) -> Option<Run> {
    let mut best: Option<Run> = None;
    loop {
        let mut builder = Protocol::with_names(setup)
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
    let steps = run.clone().into_vec();
    let lines = steps.windows(2).zip(1..).filter_map(|(pair, number)| {
        let [(_, action), (after, _)] = pair else {
            return None;
        };
        let words = |row: &Row| format!("{:?}", row.status).to_lowercase();
        let rows: Vec<String> = after.rows.iter().map(words).collect();
        let effects = after.gateway.objects.len() + usize::from(after.gateway.cancels);
        let (action, rows) = (action.as_ref()?, rows.join(", "));
        Some(format!(
            "{number:>4}. {action}  [{rows}; {effects} effects]\n"
        ))
    });
    lines.collect()
}

/// Asserts that from every state in reach every job can still end, by steps that happen when
/// nothing goes wrong any more: there is no dead end and no endless round without a way out.
pub(crate) fn ends(name: &str, setup: Setup) {
    let started = Instant::now();
    let model = Protocol::new(setup);
    let mut reached = Reached::default();
    for state in model.init_states() {
        reached.number(state);
    }
    let mut actions = Vec::new();
    let mut at = 0;
    while let Some(state) = reached.states.get(at).cloned() {
        model.actions(&state, &mut actions);
        for action in actions.drain(..) {
            let calm = action.is_calm();
            if let Some(next) = model.next_state(&state, action) {
                let number = reached.number(next);
                if calm {
                    reached.before[number].push(at);
                }
            }
        }
        at += 1;
    }
    let stuck = reached.without_way_to(|state| model.is_over(state));
    println!(
        "{name}: every job can end from each of {} states, {:.1} s",
        reached.states.len(),
        started.elapsed().as_secs_f64()
    );
    if let Some(stuck) = stuck {
        panic!("{name}: nothing ends from here any more: {stuck:#?}");
    }
}

/// The states in reach, and which calm steps lead to them.
#[derive(Default)]
struct Reached {
    numbers: HashMap<State, usize>,
    states: Vec<State>,
    before: Vec<Vec<usize>>,
}

impl Reached {
    fn number(&mut self, state: State) -> usize {
        if let Some(number) = self.numbers.get(&state) {
            return *number;
        }
        let number = self.states.len();
        self.numbers.insert(state.clone(), number);
        self.states.push(state);
        self.before.push(Vec::new());
        number
    }

    /// The first state from which no calm steps lead to one that is over.
    fn without_way_to(&self, is_over: impl Fn(&State) -> bool) -> Option<&State> {
        let mut leads: Vec<bool> = self.states.iter().map(is_over).collect();
        let mut open: Vec<usize> = (0..leads.len()).filter(|at| leads[*at]).collect();
        while let Some(at) = open.pop() {
            for before in &self.before[at] {
                if !leads[*before] {
                    leads[*before] = true;
                    open.push(*before);
                }
            }
        }
        let stuck = leads.iter().position(|leads| !leads)?;
        Some(&self.states[stuck])
    }
}
