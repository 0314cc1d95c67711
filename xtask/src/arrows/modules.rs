//! The modules of one crate, and the names of others that each of them uses, as far as the syntax shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

use super::{Arrow, FACES};

/// Names from the crate's root, or as they are written in a module.
type Words = Vec<String>;

/// Re-exports that lead to each other end somewhere.
const DEEPEST: usize = 32;

/// The modules of a library or a program, by their names from its root.
pub(super) struct Crate {
    modules: BTreeMap<Words, Module>,
}

/// One module: a file, or a part of one.
#[derive(Default)]
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    /// Its definitions except modules.
    items: BTreeSet<String>,
    /// The meaning of an imported name, and whether others can use it from here.
    imports: BTreeMap<String, (Words, bool)>,
    /// Modules of which it passes everything on.
    globs: Vec<Words>,
    /// Everything of more than one word, and all imports.
    uses: BTreeSet<Words>,
}

impl Crate {
    /// The crate with this root, and every file that belongs to it.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is not Rust.
    pub(super) fn read(
        root: &Path,
        text: &dyn Fn(&Path) -> Result<String>,
        is_there: &dyn Fn(&Path) -> bool,
    ) -> Result<Self> {
        let mut code = Self {
            modules: BTreeMap::new(),
        };
        let mut waiting = vec![(Words::new(), root.to_owned())];
        while let Some((name, path)) = waiting.pop() {
            let parsed = syn::parse_file(&text(&path)?)
                .with_context(|| format!("parse `{}`", path.display()))?;
            for child in code.add(&name, &path, &parsed.items) {
                let word = child.last().cloned().unwrap_or_default();
                let candidates = files_of(&path, &name, &child, &word);
                if let Some(file) = candidates.into_iter().find(|file| is_there(file)) {
                    waiting.push((child, file));
                }
            }
        }
        Ok(code)
    }

    /// Adds a module with its content; returns the modules that are separate files.
    fn add(&mut self, name: &[String], file: &Path, items: &[Item]) -> Vec<Words> {
        let mut reader = Reader::default();
        for item in items {
            reader.visit_item(item);
        }
        let mut files = Vec::new();
        for child in reader.modules {
            let mut inner = name.to_vec();
            inner.push(child.ident.to_string());
            reader.module.children.insert(child.ident.to_string());
            match &child.content {
                Some((_, items)) => files.extend(self.add(&inner, file, items)),
                None => files.push(inner),
            }
        }
        file.clone_into(&mut reader.module.file);
        self.modules.insert(name.to_vec(), reader.module);
        files
    }

    /// Every arrow to another file.
    pub(super) fn arrows(&self) -> BTreeSet<Arrow> {
        let mut arrows = BTreeSet::new();
        for (name, module) in &self.modules {
            for words in &module.uses {
                let target = self
                    .absolute(name, words)
                    .and_then(|words| self.file_of(&words, DEEPEST));
                if let Some(to) = target.filter(|to| **to != module.file) {
                    arrows.insert(Arrow {
                        from: module.file.clone(),
                        to: to.to_owned(),
                        name: words.join("::"),
                    });
                }
            }
        }
        arrows
    }

    /// The absolute meaning of a path in a module; none if it leads out of the crate, or to an item of the module
    /// itself.
    fn absolute(&self, module: &[String], words: &[String]) -> Option<Words> {
        let (first, rest) = words.split_first()?;
        let mut base = module.to_vec();
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => {}
            "super" => {
                base.pop()?;
                let mut rest = rest;
                while let Some((_, behind)) =
                    rest.split_first().filter(|(word, _)| *word == "super")
                {
                    base.pop()?;
                    rest = behind;
                }
                base.extend(rest.iter().cloned());
                return Some(base);
            }
            _ => {
                let known = self.modules.get(module)?;
                let is_child = known.children.contains(first);
                let import = known.imports.get(first).map(|(target, _)| target);
                let is_of_itself = import.is_some_and(|target| target.first() == Some(first));
                // An import with the same name, such as `use std::env` next to `env::vars`, leads out of the crate;
                // from a module with that name, it leads into it: `use invite::run as invite`.
                if is_of_itself && !is_child {
                    return None;
                }
                if let Some(target) = import.filter(|_| is_of_itself && rest.is_empty()) {
                    base.extend(target.iter().cloned());
                    return Some(base);
                }
                if let Some(target) = import.filter(|_| !is_of_itself) {
                    let mut words = self.absolute(module, target)?;
                    words.extend(rest.iter().cloned());
                    return Some(words);
                }
                if !is_child {
                    return None;
                }
                base.push(first.clone());
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The file that defines what the words name; none for a module as such.
    fn file_of(&self, words: &[String], depth: usize) -> Option<&PathBuf> {
        if depth == 0 {
            return None;
        }
        let mut here = Words::new();
        for (index, word) in words.iter().enumerate() {
            let module = self.modules.get(&here)?;
            if module.children.contains(word) {
                here.push(word.clone());
                continue;
            }
            if module.items.contains(word) {
                return Some(&module.file);
            }
            let passed_on = module.imports.get(word).filter(|(_, is_seen)| *is_seen);
            if let Some((target, _)) = passed_on {
                let mut target = self.absolute(&here, target)?;
                target.extend(words[index + 1..].iter().cloned());
                return self.file_of(&target, depth - 1);
            }
            let in_globs = module.globs.iter().find_map(|glob| {
                let mut target = self.absolute(&here, glob)?;
                target.extend(words[index..].iter().cloned());
                self.file_of(&target, depth - 1)
            });
            return in_globs;
        }
        None
    }
}

/// Where the file of a module may be that the module `parent` in `file` declares.
fn files_of(file: &Path, parent: &[String], child: &[String], word: &str) -> [PathBuf; 2] {
    let directory = file.parent().unwrap_or(Path::new(""));
    let is_face = FACES.iter().any(|name| file.ends_with(name));
    let mut directory = if is_face {
        directory.to_owned()
    } else {
        file.with_extension("")
    };
    // Modules inside of the file that are between.
    for inline in &child[parent.len()..child.len() - 1] {
        directory.push(inline);
    }
    [
        directory.join(format!("{word}.rs")),
        directory.join(word).join("mod.rs"),
    ]
}

/// Reads the items of one module.
#[derive(Default)]
struct Reader<'ast> {
    module: Module,
    modules: Vec<&'ast ItemMod>,
}

impl<'ast> Visit<'ast> for Reader<'ast> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(item) {
            return;
        }
        if let Some(name) = name_of(item) {
            self.module.items.insert(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.modules.push(module);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_seen = !matches!(item.vis, Visibility::Inherited);
        self.import(&Words::new(), &item.tree, is_seen);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Words = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if words.len() > 1 {
            self.module.uses.insert(words);
        }
        visit::visit_path(self, path);
    }

    /// The input of a macro is not parsed: names with `::` in it are found anyway.
    fn visit_macro(&mut self, called: &'ast Macro) {
        self.visit_path(&called.path);
        let tokens = called.tokens.to_string();
        let text = tokens.replace(" :: ", "::").replace(":: ", "::");
        let is_part = |character: char| character.is_alphanumeric() || "_:".contains(character);
        for found in text.split(|character| !is_part(character)) {
            let words: Words = found.split("::").map(str::to_owned).collect();
            if words.len() > 1 && words.iter().all(|word| !word.is_empty()) {
                self.module.uses.insert(words);
            }
        }
    }
}

impl Reader<'_> {
    fn import(&mut self, before: &[String], tree: &UseTree, is_seen: bool) {
        let with = |word: &syn::Ident| {
            let mut words = before.to_vec();
            // `use a::{self}` is `use a`.
            if word != "self" || before.is_empty() {
                words.push(word.to_string());
            }
            words
        };
        let (words, name) = match tree {
            UseTree::Path(path) => return self.import(&with(&path.ident), &path.tree, is_seen),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(before, tree, is_seen);
                }
                return;
            }
            UseTree::Glob(_) => {
                if is_seen {
                    self.module.globs.push(before.to_vec());
                }
                return;
            }
            UseTree::Name(name) => {
                let words = with(&name.ident);
                let name = words.last().cloned();
                (words, name)
            }
            UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
        };
        // Re-exported names are used by those who import them.
        if !is_seen {
            self.module.uses.insert(words.clone());
        }
        if let Some(name) = name.filter(|name| name != "_") {
            self.module.imports.insert(name, (words, is_seen));
        }
    }
}

/// Whether it is compiled for tests alone.
fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Fn(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    })
}

/// Its name for others.
fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.to_string())
}
