//! Which module of `src` uses what of which others, read from its text.
//!
//! A re-export (`pub use`) is only another name: who imports by it depends on the module that defines what is named. So a
//! `mod.rs` that lists its children depends on none of them until it uses what they define.

use std::collections::{BTreeMap, BTreeSet};

use super::File;

/// The modules of the program, each by its path (`db::claim`), and what each depends on.
pub(super) struct Imports {
    /// Other modules of which an item is named.
    pub(super) modules: BTreeMap<String, BTreeSet<String>>,
    /// Other crates.
    pub(super) crates: BTreeMap<String, BTreeSet<String>>,
}

type Path = Vec<String>;

/// What the text of a module says before any of it is resolved.
#[derive(Default)]
struct Module {
    /// Paths that are imported for the module itself, and the name that each gets there; none for a glob.
    uses: Vec<(Path, Option<String>)>,
    /// The same, for others too.
    exports: BTreeMap<String, Path>,
    /// Every other path.
    mentions: BTreeSet<Path>,
}

impl Imports {
    pub(super) fn of(files: &[File]) -> Imports {
        let modules: BTreeMap<Path, Module> = files
            .iter()
            .filter_map(|file| Some((module_path(&file.path)?, read(&file.code))))
            .collect();
        let program = Program { modules };
        let mut imports = Imports {
            modules: BTreeMap::new(),
            crates: BTreeMap::new(),
        };
        for at in program.modules.keys() {
            let (modules, crates) = program.depends_on(at);
            let modules = modules.iter().map(|path| path.join("::")).collect();
            imports.modules.insert(at.join("::"), modules);
            imports.crates.insert(at.join("::"), crates);
        }
        imports
    }

    /// The same of the modules at the top of the crate.
    pub(super) fn of_parts(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut parts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, others) in &self.modules {
            let others = others.iter().map(|other| part(other).to_owned());
            let of_part = parts.entry(part(module).to_owned()).or_default();
            of_part.extend(others.filter(|other| other != part(module)));
        }
        parts
    }
}

/// The top module that a module is in.
fn part(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// Sets of modules each of which depends on each other of its set, be it by others.
pub(super) fn circles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|from| {
            let mut reached = BTreeSet::new();
            let mut next = vec![from.as_str()];
            while let Some(module) = next.pop() {
                for other in imports.get(module).into_iter().flatten() {
                    if reached.insert(other.as_str()) {
                        next.push(other);
                    }
                }
            }
            (from.as_str(), reached)
        })
        .collect();
    let circles: BTreeSet<BTreeSet<&str>> = reached
        .iter()
        .map(|(module, others)| {
            let back = others
                .iter()
                .copied()
                .filter(|other| reached.get(other).is_some_and(|back| back.contains(module)));
            back.collect::<BTreeSet<&str>>()
        })
        .filter(|circle| !circle.is_empty())
        .collect();
    circles.into_iter().collect()
}

/// `src/db/claim.rs` and `src/db/mod.rs` as `db::claim` and `db`; none for the roots, which only list the modules.
fn module_path(file: &str) -> Option<Path> {
    let name = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let name = name.strip_suffix("/mod").unwrap_or(name);
    let path: Path = name.split('/').map(str::to_owned).collect();
    (!["main", "lib"].contains(&name)).then_some(path)
}

struct Program {
    modules: BTreeMap<Path, Module>,
}

/// What a path leads to.
enum Found {
    /// A module itself.
    Module(Path),
    /// Something in a module.
    Item(Path),
    /// Something of another crate, of the standard library or of the language.
    Foreign(String),
}

impl Program {
    fn depends_on(&self, at: &Path) -> (BTreeSet<Path>, BTreeSet<String>) {
        let (mut modules, mut crates) = (BTreeSet::new(), BTreeSet::new());
        let module = &self.modules[at];
        let mut names: BTreeMap<&str, &Path> = BTreeMap::new();
        for (path, name) in &module.uses {
            let is_glob = name.is_none();
            match self.find(at, path) {
                Found::Module(other) if is_glob => drop(modules.insert(other)),
                Found::Module(_) => {}
                Found::Item(other) => drop(modules.insert(other)),
                Found::Foreign(name) => drop(crates.insert(name)),
            }
            names.extend(name.as_deref().map(|name| (name, path)));
        }
        let exports = module.exports.iter();
        names.extend(exports.map(|(name, path)| (name.as_str(), path)));
        for path in &module.mentions {
            let full: Path = match names.get(path[0].as_str()) {
                Some(named) => named.iter().chain(&path[1..]).cloned().collect(),
                None => path.clone(),
            };
            match self.find(at, &full) {
                Found::Item(other) => drop(modules.insert(other)),
                Found::Module(_) => {}
                Found::Foreign(name) if full.len() > 1 => drop(crates.insert(name)),
                Found::Foreign(_) => {}
            }
        }
        modules.remove(at);
        // What a module within the file has of the file itself.
        modules.remove(&Path::new());
        (modules, crates)
    }

    fn find(&self, at: &Path, path: &Path) -> Found {
        let absolute = match path[0].as_str() {
            "crate" => path[1..].to_vec(),
            "self" => [at, &path[1..]].concat(),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let above = &at[..at.len().saturating_sub(ups)];
                [above, &path[ups..]].concat()
            }
            _ => {
                let below = [at, path.as_slice()].concat();
                if !self.modules.contains_key(&below[..=at.len()]) {
                    return Found::Foreign(path[0].clone());
                }
                below
            }
        };
        self.lead(absolute)
    }

    fn lead(&self, path: Path) -> Found {
        let length = (0..=path.len())
            .rev()
            .find(|length| self.modules.contains_key(&path[..*length]))
            .unwrap_or(0);
        if length == path.len() {
            return Found::Module(path);
        }
        let module = path[..length].to_vec();
        let renamed = self
            .modules
            .get(&module)
            .and_then(|it| it.exports.get(&path[length]));
        match renamed {
            Some(target) => match self.find(&module, target) {
                Found::Module(other) => self.lead(
                    other
                        .into_iter()
                        .chain(path[length + 1..].to_vec())
                        .collect(),
                ),
                Found::Item(other) => Found::Item(other),
                // Of a module that stands in the same file.
                Found::Foreign(_) => Found::Item(module),
            },
            None => Found::Item(module),
        }
    }
}

fn read(code: &str) -> Module {
    let words = words(code);
    let mut module = Module::default();
    let mut at = 0;
    while at < words.len() {
        match words[at].as_str() {
            // The scope of a `pub(in crate::alert)` is no use.
            "pub" if words.get(at + 1).is_some_and(|word| word == "(") => {
                while words[at] != ")" {
                    at += 1;
                }
                at += 1;
                if words[at] == "use" {
                    at = read_use(&words, at + 1, true, &mut module);
                }
            }
            "pub" if words.get(at + 1).is_some_and(|word| word == "use") => {
                at = read_use(&words, at + 2, true, &mut module);
            }
            "use" => at = read_use(&words, at + 1, false, &mut module),
            // A field or a method.
            "." => at += 2,
            word if is_name(word) => {
                let mut path = vec![word.to_owned()];
                at += 1;
                while words.get(at).is_some_and(|word| word == "::")
                    && words.get(at + 1).is_some_and(|word| is_name(word))
                {
                    path.push(words[at + 1].clone());
                    at += 2;
                }
                module.mentions.insert(path);
            }
            _ => at += 1,
        }
    }
    module
}

/// Reads an import up to its semicolon, and returns where the text goes on.
fn read_use(words: &[String], from: usize, is_export: bool, module: &mut Module) -> usize {
    let end = from + words[from..].iter().position(|word| word == ";").unwrap();
    let mut found = Vec::new();
    read_tree(&words[from..end], Path::new(), &mut found);
    for (path, name) in found {
        match name {
            Some(name) if is_export => drop(module.exports.insert(name, path)),
            name => module.uses.push((path, name)),
        }
    }
    end
}

/// Reads `a::{b, c as d}` below a path, and returns how many words it has.
fn read_tree(words: &[String], above: Path, into: &mut Vec<(Path, Option<String>)>) -> usize {
    let mut path = above;
    let mut at = 0;
    while at < words.len() {
        match words[at].as_str() {
            "::" => at += 1,
            "{" => {
                at += 1;
                while words[at] != "}" {
                    at += read_tree(&words[at..], path.clone(), into);
                    at += usize::from(words[at] == ",");
                }
                return at + 1;
            }
            "*" => {
                into.push((path, None));
                return at + 1;
            }
            "as" => {
                into.push((path, Some(words[at + 1].clone())));
                return at + 2;
            }
            "," | "}" => break,
            "self" if !path.is_empty() => at += 1,
            name => {
                path.push(name.to_owned());
                at += 1;
            }
        }
    }
    let name = path.last().cloned();
    into.push((path, name));
    at
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names and signs of a program, without its comments, texts and characters.
fn words(code: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(length) = literal(rest) {
            length
        } else if is_name(rest) {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            words.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    words
}

/// The length of the text, character or lifetime that the code begins with.
fn literal(code: &str) -> Option<usize> {
    let hashes = code.strip_prefix('r').map(|rest| {
        let hashes = rest.chars().take_while(|c| *c == '#').count();
        (hashes, rest[hashes..].starts_with('"'))
    });
    if let Some((hashes, true)) = hashes {
        let end = format!("\"{}", "#".repeat(hashes));
        let begin = 1 + hashes + 1;
        return Some(begin + code[begin..].find(&end)? + end.len());
    }
    let quote = code.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let mut inside = code.char_indices().skip(1);
    let is_lifetime = quote == '\''
        && code[1..].starts_with(|c: char| c.is_alphabetic() || c == '_')
        && code.chars().nth(2) != Some('\'');
    if is_lifetime {
        return Some(1);
    }
    while let Some((at, c)) = inside.next() {
        if c == '\\' {
            inside.next();
        } else if c == quote {
            return Some(at + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, code: &str) -> File {
        File {
            path: path.to_owned(),
            code: code.to_owned(),
        }
    }

    fn of(imports: &BTreeMap<String, BTreeSet<String>>, module: &str) -> Vec<String> {
        imports[module].iter().cloned().collect()
    }

    #[test]
    fn each_way_to_name_another_module_is_an_import() {
        let imports = Imports::of(&[
            file(
                "src/a/mod.rs",
                "mod b; mod c; pub use b::B; pub(crate) use c::{C as D};",
            ),
            file(
                "src/a/b.rs",
                "use super::c::C; pub struct B; fn f() -> &'static str { \"crate::e::E\" }",
            ),
            file(
                "src/a/c.rs",
                "pub struct C; pub(in crate::e) fn f(e: u8) { ' '; '\\''; r#\"crate::e::E\"#; e.d; }",
            ),
            file(
                "src/d.rs",
                "use crate::{a::{self, D}, e as f}; fn g() { f::h::<D>(); a::B::x() } use ::sqlx::{Pool}; fn h() { tokio::spawn() }",
            ),
            file("src/e.rs", "use crate::a::*; // crate::d::X"),
        ]);
        assert_eq!(
            of(&imports.modules, "a"),
            [""; 0],
            "it only lists what is below"
        );
        assert_eq!(of(&imports.modules, "a::b"), ["a::c"]);
        assert_eq!(of(&imports.modules, "a::c"), [""; 0]);
        assert_eq!(of(&imports.modules, "d"), ["a::b", "a::c", "e"]);
        assert_eq!(of(&imports.crates, "d"), ["sqlx", "tokio"]);
        assert_eq!(of(&imports.modules, "e"), ["a"]);
        assert_eq!(of(&imports.of_parts(), "d"), ["a", "e"]);
    }

    #[test]
    fn a_circle_may_lead_over_others() {
        let of = |imports: &[(&str, &[&str])]| -> BTreeMap<String, BTreeSet<String>> {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let imports = imports.iter();
            imports
                .map(|(module, others)| ((*module).to_owned(), owned(others)))
                .collect()
        };
        let straight = of(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
        assert!(circles(&straight).is_empty());
        let round = of(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]);
        assert_eq!(circles(&round), [BTreeSet::from(["a", "b", "c"])]);
    }
}
