//! Seeds, and how they are mutated.

use std::path::Path;

use bolero::generator::ValueGenerator;
use bolero::produce;

/// More than any limit of ours, so that what lies beyond is reached too.
const LONGEST: usize = 1 << 20;

/// Parts that parsers of ours have rules about.
const WORDS: &[&str] = &[
    "null",
    "true",
    "-1",
    "0",
    "0.5",
    "1e400",
    "1e1000000",
    "99999999999999999999",
    "\"\"",
    "\"15\"",
    "[]",
    "{}",
    "[[[[",
    "{\"id\":",
    "\\u0000",
    "\\ud800",
    "ы",
    "\u{202e}",
    "\0",
    ",",
    ":",
    "\"",
    "\n",
    "\"id\":15,",
    "\"status\":\"paid\",",
    "\"amount\":\"1000.50\",",
    "\"error_code\":\"x\",",
    "\"message\":\"x\",",
    "\"errors\":{},",
    "\"invoice_id\":15,",
    "[apipayd ",
    "+7",
    "8700",
    "= \"\"",
    "\"1ms\"",
    "\"400d\"",
    "[accounts.x]",
    "https://",
    "http://",
    "localhost",
    "@",
    "#",
];

pub(crate) struct Seeds(Vec<Vec<u8>>);

impl Seeds {
    /// The files of a folder beside this one.
    pub(crate) fn of(theme: &str) -> Seeds {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/seeds")
            .join(theme);
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        Seeds(
            paths
                .iter()
                .map(|path| std::fs::read(path).unwrap())
                .collect(),
        )
    }

    /// Each seed as it is, behind choices that are all the first one.
    pub(crate) fn each(&self, check: impl Fn(&mut Tape<'_>, &[u8])) {
        for seed in &self.0 {
            // As many as the most that a target chooses from.
            for choice in 0..32 {
                check(&mut Tape(&[choice; 64]), seed);
            }
        }
    }

    /// A seed, changed as the tape says; or the tape itself.
    pub(crate) fn mutated(&self, tape: &mut Tape<'_>) -> Vec<u8> {
        // Few changes leave most of it readable.
        let changes = match tape.below(16) {
            0 => return tape.rest().to_vec(),
            1..8 => 1,
            8..14 => 2,
            _ => 8,
        };
        let mut bytes = self.0[tape.below(self.0.len())].clone();
        for _ in 0..changes {
            self.change(&mut bytes, tape);
        }
        bytes.truncate(LONGEST);
        bytes
    }

    fn change(&self, bytes: &mut Vec<u8>, tape: &mut Tape<'_>) {
        let at = tape.below(bytes.len() + 1);
        let end = (at + tape.below(24)).min(bytes.len());
        match tape.below(16) {
            0 => bytes.truncate(at),
            1 | 2 => drop(bytes.drain(at..end)),
            3 | 4 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = tape.byte();
                }
            }
            5 => {
                let again = bytes[at..end].repeat(1 << tape.below(14));
                bytes.splice(at..at, again);
            }
            6 | 7 => {
                // A text that is longer than anybody thought.
                let quote = bytes[at..].iter().position(|byte| *byte == b'"');
                let inside = quote.map_or(at, |quote| at + quote + 1);
                let filling = vec![b'x'; 1 << tape.below(19)];
                bytes.splice(inside..inside, filling);
            }
            8 => {
                let other = &self.0[tape.below(self.0.len())];
                let from = tape.below(other.len() + 1);
                let part = other[from..].iter().copied().take(40);
                bytes.splice(at..at, part);
            }
            9..13 => {
                let word = WORDS[tape.below(WORDS.len())];
                bytes.splice(at..end, word.bytes());
            }
            _ => {
                let word = WORDS[tape.below(WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
}

/// Long enough for all choices of a target, and for an input of its own.
pub(crate) fn tapes() -> impl ValueGenerator<Output = Vec<u8>> {
    produce::<Vec<u8>>().with().len(40..=400_usize)
}

/// Choices, from the bytes of the fuzzer; all zero once these are used up.
pub(crate) struct Tape<'a>(pub(crate) &'a [u8]);

impl<'a> Tape<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn number(&mut self) -> u32 {
        u32::from_le_bytes([(); 4].map(|()| self.byte()))
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, which is at least 1; of one byte where that is enough.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = match end {
            ..=256 => usize::from(self.byte()),
            _ => usize::from(self.byte()) << 8 | usize::from(self.byte()),
        };
        number % end
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
