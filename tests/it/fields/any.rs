//! Params and arguments of every kind: right ones, ones at the edges, and hostile ones. All of it follows from a seed.

use apipayd::domain::operation::fields::{Field, FieldKind, Fields, Need, Rule};
use serde_json::{Map, Value, json};

use crate::chaos::Dice;

/// Numbers as JSON has them.
const NUMBERS: &str = "0 -0 0.0 -0.0 1 1.0 1.00 99 100 99.0 5000 5001 5000.00 0.01 0.001 0.010 10.5 10.505 -1 -0.01 \
    99999999 99999999.0 99999999.99 99999999.990 99999999.991 100000000 100000000.00 1e3 1E+2 1e-2 1.5e1 150e-1 \
    2147483647 2147483648 3000000000 87001234567 9223372036854775807 9223372036854775808 18446744073709551616 1e19 \
    1e39 1e40 1e41 -1e41 0.000000000000000000000000000000000000000000001 5000.0000000000000000000000000000000000000 \
    123456789012345678901234567890 4999.99999999999999999999999999999999999999 1e-400 1e-16000 1e131071";

/// Texts that are numbers, or nearly so.
const WRITTEN: &[&str] = &[
    "",
    " ",
    "5",
    "5000",
    "5000.00",
    "0005000",
    "00.01",
    "0.010",
    "1.0",
    "-0",
    "-0.0",
    "-1",
    "+5",
    " 5",
    "5 ",
    "5\n",
    "5.",
    ".5",
    "1_000",
    "1,5",
    "1 000",
    "1e3",
    "1E2",
    "0x10",
    "NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "inf",
    "٥",
    "５",
    "१",
    "5٥",
    "½",
    "Ⅴ",
    "²",
    "99999999.99",
    "100000000",
    "9223372036854775807",
    "9223372036854775808",
    "87001234567",
    "--5",
    "5-",
    "5.5.5",
    "\u{a0}5",
    "\u{feff}5",
];

const PHONES: &[&str] = &[
    "87001234567",
    "77001234567",
    "+77001234567",
    "+7 700 123-45-67",
    "8 (700) 123 45 67",
    "(+7) 700 123 45 67",
    "+7-700-123-45-67",
    "8\u{a0}700\u{202f}123\u{2009}45\u{2007}67",
    "8\u{2212}700\u{2212}123\u{2012}45\u{2015}67",
    "\t8.700.123.45.67\r\n",
    "8\u{3000}7001234567",
    "8\u{1680}700\u{2000}1234567",
    "8\u{200a}700\u{2028}123\u{2029}4567",
    "8\u{205f}7001234567\u{b}\u{c}",
];

const NO_PHONES: &[&str] = &[
    "",
    " ",
    "+",
    "8",
    "7001234567",
    "8700123456",
    "870012345678",
    "+87001234567",
    "++77001234567",
    "7+7001234567",
    "97001234567",
    "8700123456a",
    "8700123456٧",
    "８7001234567",
    "8700123456७",
    "8/700/1234567",
    "8\u{200b}7001234567",
    "8\u{85}7001234567",
    "8\u{180e}7001234567",
    "8\u{feff}7001234567",
    "8\u{ad}7001234567",
    "8\u{200f}7001234567",
    "8\u{2043}7001234567",
    "8\u{2010}700\u{2016}1234567",
    "8_7001234567",
    "8~7001234567",
    "8[700]1234567",
    "87001234567;",
    "8700***4567",
    "\u{1}87001234567",
    "8\\u00a07001234567",
    "+7+7001234567",
];

/// What may stand in a text, or must not.
const PIECES: &[&str] = &[
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\u{b}",
    "\u{c}",
    "\u{1}",
    "\u{1f}",
    "\u{7f}",
    "\u{80}",
    "\u{85}",
    "\u{9f}",
    "\u{a0}",
    "\u{ad}",
    "\u{200b}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{fffd}",
    "\u{e000}",
    "\u{10ffff}",
    "\u{1f600}",
    "e\u{301}",
    "\u{2212}",
    "\\u0000",
    "\\0",
    "\\",
    "\"",
    "'",
    "%",
    "$1",
    "{}",
    "--",
    "[apipayd ",
    "[apipayd",
    "[apipayd\t",
    "[apipayd\n15]",
    "[ apipayd ",
    "[APIPAYD ",
    "[apipayd\u{a0}",
    "[apipayd 00000000-0000-0000-0000-000000000007]",
    "$serde_json::private::Number",
    "\"$serde_json::private::Number",
    "87001234567",
];

/// Names that no description has.
const NAMES: &[&str] = &[
    "",
    " ",
    "phone",
    "Amount",
    "amount ",
    "a b",
    "имя",
    "87001234567",
    "1234",
    "12345",
    "_",
    "a-b",
    "a.b",
    "0",
    "a\u{1}b",
    "params",
    "external_order_id_idempotency",
    "$serde_json::private::Number",
];

pub(super) struct Any(Dice);

impl Any {
    pub(super) fn of(seed: u64) -> Any {
        Any(Dice::of(seed))
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.0.below(many) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.0.below(from.len())]
    }

    /// The text of a JSON value that may be the params of a job: mostly an object with such fields.
    pub(super) fn params(&mut self, fields: &Fields) -> String {
        if self.one_in(100) {
            return self.anything();
        }
        self.object(fields)
    }

    fn object(&mut self, fields: &Fields) -> String {
        let mut parts = Vec::new();
        for field in fields.fields {
            let is_left_out = match field.need {
                Need::Optional => !self.one_in(2),
                Need::Required | Need::Unless(_) => self.one_in(12),
            };
            if !is_left_out {
                let value = self.value(field);
                parts.push(format!("{}: {value}", json!(field.name)));
            }
        }
        if self.one_in(15) {
            let reserved: Vec<&str> = fields.reserved.iter().map(|it| it.name).collect();
            let long = "x".repeat(64 + self.0.below(2));
            let name = match self.0.below(8) {
                0 if !reserved.is_empty() => self.pick(&reserved),
                1 => &long,
                _ => self.pick(NAMES),
            };
            let value = self.anything();
            parts.push(format!("{}: {value}", json!(name)));
        }
        if self.one_in(40) {
            // The last of two with one name counts.
            let field = &fields.fields[self.0.below(fields.fields.len())];
            let value = self.value(field);
            parts.push(format!("{}: {value}", json!(field.name)));
        }
        format!("{{{}}}", parts.join(", "))
    }

    fn value(&mut self, field: &Field) -> String {
        match self.0.below(40) {
            0 => "null".to_owned(),
            1 => self.anything(),
            2..=5 => self.edge(&field.kind),
            _ => self.right(&field.kind),
        }
    }

    /// A value that the kind takes.
    fn right(&mut self, kind: &FieldKind) -> String {
        match kind {
            FieldKind::Phone => json!(self.pick(PHONES)).to_string(),
            FieldKind::Id => {
                let id = format!("{}", 1 + self.0.roll() % 1_000_000);
                self.perhaps_written(&id)
            }
            FieldKind::Number { most, decimals, .. } => {
                let number = self.number(most, *decimals);
                self.perhaps_written(&number)
            }
            FieldKind::Text { lines, .. } => json!(self.words(*lines)).to_string(),
            FieldKind::Items(item) => {
                let many = 1 + self.0.below(3);
                self.list(item, many)
            }
        }
    }

    fn number(&mut self, most: &str, decimals: u32) -> String {
        let most: u64 = most.split('.').next().unwrap().parse().unwrap();
        let whole = 1 + self.0.roll() % (most - 1).min(50_000);
        let whole = if most > 1000 && self.one_in(2) {
            100 * (1 + whole / 100)
        } else {
            whole
        };
        match decimals {
            0 => format!("{whole}{}", self.pick(&["", "", "", ".0", ".00"])),
            _ => format!(
                "{whole}{}",
                self.pick(&["", ".5", ".05", ".25", ".10", ".000"])
            ),
        }
    }

    fn perhaps_written(&mut self, number: &str) -> String {
        if self.one_in(3) {
            let zeros = self.pick(&["", "", "0", "000"]);
            json!(format!("{zeros}{number}")).to_string()
        } else {
            number.to_owned()
        }
    }

    fn words(&mut self, lines: bool) -> String {
        let words = ["Заказ 15", "till 2", "a", "ы", "касса", "\u{1f600}", "№ 7"];
        let gaps: &[&str] = if lines {
            &[" ", "\n", "\t", ", "]
        } else {
            &[" "]
        };
        format!(
            "{}{}{}",
            self.pick(&words),
            self.pick(gaps),
            self.pick(&words)
        )
    }

    /// A value at the edge of what the kind takes, or beyond.
    fn edge(&mut self, kind: &FieldKind) -> String {
        match kind {
            FieldKind::Phone => {
                let phones = if self.one_in(4) { PHONES } else { NO_PHONES };
                json!(self.pick(phones)).to_string()
            }
            FieldKind::Id | FieldKind::Number { .. } => self.odd_number(),
            FieldKind::Text { most, .. } => json!(self.odd_text(*most)).to_string(),
            FieldKind::Items(item) => {
                let many = [0, 1, 2, 99, 100, 101][self.0.below(6)];
                if self.one_in(3) {
                    return format!("[{}]", self.anything());
                }
                self.list(item, many)
            }
        }
    }

    fn odd_number(&mut self) -> String {
        match self.0.below(60) {
            0 => format!("\"{}5\"", "0".repeat(60_000)),
            1 => format!("\"5.{}\"", "0".repeat(60_000)),
            2 => format!("\"{}\"", "5".repeat(60_000)),
            3 => "9".repeat(100_000),
            4 => format!("\"{}5\"", "0".repeat(100_000)),
            5..=30 => {
                let numbers: Vec<&str> = NUMBERS.split_whitespace().collect();
                self.pick(&numbers).to_owned()
            }
            _ => json!(self.pick(WRITTEN)).to_string(),
        }
    }

    fn odd_text(&mut self, most: usize) -> String {
        let filler = self.pick(&["ы", "x", "\u{1f600}", " ", "e\u{301}", "\n"]);
        match self.0.below(12) {
            0..=3 => {
                let length = most + 2 - self.0.below(4);
                filler.chars().cycle().take(length).collect()
            }
            4 => filler.repeat(70_000),
            5 => filler.repeat(self.0.below(4)),
            _ => {
                let before = self.words(false);
                let piece = self.pick(PIECES);
                let after = self.pick(&["", "", " b", "]"]);
                match self.0.below(3) {
                    0 => format!("{piece}{after}"),
                    1 => format!("{before}{piece}"),
                    _ => format!("{before}{piece}{after}"),
                }
            }
        }
    }

    fn list(&mut self, item: &Fields, many: usize) -> String {
        // Of very many, few are strange, or none would be right.
        let strange = if self.one_in(3) {
            self.0.below(many.max(1))
        } else {
            many
        };
        let items: Vec<String> = (0..many)
            .map(|place| {
                if place == strange || many < 4 {
                    self.object(item)
                } else {
                    self.right_object(item)
                }
            })
            .collect();
        format!("[{}]", items.join(", "))
    }

    fn right_object(&mut self, fields: &Fields) -> String {
        let chosen = |name| {
            let is_one = |rule: &Rule| matches!(rule, Rule::ExactlyOne(one, _) if *one == name);
            fields.rules.iter().any(is_one)
        };
        let given = fields
            .fields
            .iter()
            .filter(|field| matches!(field.need, Need::Required) || chosen(field.name));
        let parts: Vec<String> = given
            .map(|field| format!("{}: {}", json!(field.name), self.right(&field.kind)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// Any JSON value.
    fn anything(&mut self) -> String {
        match self.0.below(16) {
            0 => "null".to_owned(),
            1 => self.pick(&["true", "false"]).to_owned(),
            2 => self
                .pick(&[
                    "[]",
                    "{}",
                    "[[]]",
                    "[{}]",
                    "[null]",
                    "{\"a\": null}",
                    "{\"a\": {\"b\": [1]}}",
                ])
                .to_owned(),
            3 => {
                let deep = 100 + self.0.below(60);
                format!("{}1{}", "[".repeat(deep), "]".repeat(deep))
            }
            4 => {
                let deep = 120 + self.0.below(12);
                format!("{}{}", "[".repeat(deep), "]".repeat(deep))
            }
            5 => self
                .pick(&["[1e131071]", "{\"a\": -1e50}", "1e131071"])
                .to_owned(),
            6 => "{\"$serde_json::private::Number\": \"5\"}".to_owned(),
            7..=11 => self.odd_number(),
            _ => json!(self.odd_text(20)).to_string(),
        }
    }

    /// Arguments for the typed function of an operation, each as the text that its type reads.
    pub(super) fn arguments(&mut self, fields: &Fields) -> Value {
        let mut arguments = Map::new();
        for field in fields.fields {
            let is_given = match field.need {
                Need::Optional => self.one_in(2),
                Need::Required | Need::Unless(_) => !self.one_in(12),
            };
            if is_given {
                let argument = self.argument(&field.kind);
                arguments.insert(field.name.to_owned(), argument.into());
            }
        }
        arguments.into()
    }

    fn argument(&mut self, kind: &FieldKind) -> String {
        let is_odd = self.one_in(6);
        match kind {
            FieldKind::Phone if is_odd => self.pick(NO_PHONES).to_owned(),
            FieldKind::Phone => self.pick(PHONES).to_owned(),
            FieldKind::Id if is_odd => self
                .pick(&["0", "-1", "9223372036854775807", "-9223372036854775808"])
                .to_owned(),
            FieldKind::Id => format!("{}", 1 + self.0.roll() % 1_000_000),
            FieldKind::Number { .. } if is_odd && self.one_in(4) => {
                let many = "9".repeat(100_000);
                let more = [
                    "NaN",
                    "Infinity",
                    "-Infinity",
                    "1e131071",
                    "1e-16383",
                    &many,
                ];
                self.pick(&more).to_owned()
            }
            FieldKind::Number { .. } if is_odd => {
                let numbers: Vec<&str> = NUMBERS.split_whitespace().collect();
                self.pick(&numbers).to_owned()
            }
            FieldKind::Number { most, decimals, .. } => self.number(most, *decimals),
            FieldKind::Text { most, .. } if is_odd => self.odd_text(*most),
            FieldKind::Text { lines, .. } => self.words(*lines),
            FieldKind::Items(_) if is_odd && self.one_in(3) => self.anything(),
            FieldKind::Items(_) if is_odd => self.edge(kind),
            FieldKind::Items(_) => self.right(kind),
        }
    }
}
