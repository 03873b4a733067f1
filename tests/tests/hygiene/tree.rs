//! The source tree as the rules see it: texts by path, and Rust sources as tokens without their tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, File, Item, Meta};

/// Endings of the files that rules look at.
const TEXTS: &[&str] = &[".rs", ".md", ".toml", ".S", ".ld", ".sh"];

/// Every text of the workspace by its path in it.
#[derive(Clone)]
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// The tree that this test was built from.
    pub(crate) fn read() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned();
        let mut found = BTreeMap::new();
        let mut dirs: Vec<PathBuf> = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                if path.is_dir() {
                    if name != "target" && name != ".git" {
                        dirs.push(path);
                    }
                } else if TEXTS.iter().any(|ending| name.ends_with(ending)) {
                    let relative = path.strip_prefix(&root).expect("below the root");
                    let text = std::fs::read_to_string(&path).expect("text");
                    found.insert(relative.to_string_lossy().into_owned(), text);
                }
            }
        }
        Tree(found)
    }

    /// What rules need to see a violation: the file with `text` at its end, and the table of layers.
    pub(crate) fn planted(&self, path: &str, text: &str) -> Tree {
        const LAYERS: &str = "host/src/lib.rs";
        let mut files = BTreeMap::from([(LAYERS.to_owned(), self.text(LAYERS).to_owned())]);
        files.insert(path.to_owned(), self.text(path).to_owned() + text);
        Tree(files)
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The text of a file, empty if there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Paths and texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Rust sources.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// Sources of `host` by their path in host/src, parsed.
    pub(crate) fn host(&self) -> impl Iterator<Item = (&str, Vec<Word>)> {
        self.sources().filter_map(|(path, text)| {
            let inside = path.strip_prefix("host/src/")?;
            let depth = depth_of(inside);
            Some((inside, words(&parse(path, text), depth)))
        })
    }
}

/// How many modules deep a file of host/src is.
fn depth_of(path: &str) -> usize {
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(stem, "lib" | "main") { 0 } else { stem.split('/').count() }
}

/// Parses a source.
///
/// # Panics
/// If it is no Rust.
pub(crate) fn parse(path: &str, text: &str) -> File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A token outside tests, and how many modules deep it stands.
pub(crate) struct Word {
    /// Identifiers and `::` as they are, groups as their brackets, other tokens one by one.
    pub(crate) text: String,
    /// 0 at the crate's root.
    pub(crate) depth: usize,
}

/// The tokens of a file without its tests.
fn words(file: &File, depth: usize) -> Vec<Word> {
    let mut found = Vec::new();
    for attribute in &file.attrs {
        tokens(attribute.to_token_stream(), depth, &mut found);
    }
    items(&file.items, depth, &mut found);
    found
}

fn items(items: &[Item], depth: usize, found: &mut Vec<Word>) {
    for item in items {
        match item {
            Item::Mod(module) => {
                if is_test(&module.attrs) {
                    continue;
                }
                for attribute in &module.attrs {
                    tokens(attribute.to_token_stream(), depth, found);
                }
                if let Some((_, inner)) = &module.content {
                    self::items(inner, depth + 1, found);
                }
            }
            other => {
                let stream = other.to_token_stream();
                if !starts_with_test(&stream) {
                    tokens(stream, depth, found);
                }
            }
        }
    }
}

/// Whether attributes say that what follows is compiled for tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// The same of an item's tokens.
fn starts_with_test(stream: &TokenStream) -> bool {
    stream.to_string().starts_with("# [cfg (test)]")
}

fn tokens(stream: TokenStream, depth: usize, found: &mut Vec<Word>) {
    let mut stream = stream.into_iter();
    while let Some(token) = stream.next() {
        let text = match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                found.push(Word { text: open.to_owned(), depth });
                tokens(group.stream(), depth, found);
                close.to_owned()
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == Spacing::Joint => {
                stream.next();
                "::".to_owned()
            }
            other => other.to_string(),
        };
        found.push(Word { text, depth });
    }
}
