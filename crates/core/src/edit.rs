//! Changing one key of the administrator's file: comments, order and everything else stay, and a
//! change that would make the file worse is refused.

use thiserror::Error;
use toml_edit::{Document, DocumentMut, Item, Table, TableLike, Value};

use crate::names::InstanceRef;
use crate::settings::{Problem, Refusal, Settings};

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EditError {
    /// The file is not TOML, or the change causes these problems.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is a value that is not a table where a table is needed.
    #[error("{file}: `{path}` is not a table")]
    NoTable {
        /// The configuration file.
        file: String,
        /// The key that should be a table.
        path: String,
    },
}

/// The content of `file` with `key` set to the text `value` in the table of `reference`, or in
/// `[defaults]` without one. A key with a dot, such as `environment.LANG`, goes into the table
/// before its first dot. The table is added at the end of the file when it is missing.
///
/// # Errors
///
/// [`EditError`] when the file cannot be read as TOML, or when the result has problems that the
/// file did not have before.
pub fn set(
    file: &str,
    content: &str,
    reference: Option<&InstanceRef>,
    key: &str,
    value: &str,
) -> Result<String, EditError> {
    let before = Settings::parse(file, content.as_bytes());
    let Ok(mut document) = content.parse::<DocumentMut>() else {
        return Err(syntax_problem(&before));
    };
    let table_name = reference.map_or_else(|| "defaults".to_owned(), ToString::to_string);
    let no_table = |path: &str| EditError::NoTable {
        file: file.to_owned(),
        path: path.to_owned(),
    };
    let table = document
        .entry(&table_name)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or_else(|| no_table(&table_name))?;
    match key.split_once('.') {
        None => put(table, key, value),
        Some((outer, inner)) => {
            let path = format!("{table_name}.{outer}");
            let nested = table
                .entry(outer)
                .or_insert_with(|| Item::Value(Value::InlineTable(toml_edit::InlineTable::new())))
                .as_table_like_mut()
                .ok_or_else(|| no_table(&path))?;
            put(nested, inner, value);
        }
    }
    let after = document.to_string();
    refuse_new_problems(&before, &Settings::parse(file, after.as_bytes()))?;
    Ok(after)
}

/// The content of `file` without `key`, which is named as for [`set`], with the comment right above it; unchanged where the
/// table does not have the key. A table in braces that is empty afterwards goes as well.
///
/// # Errors
///
/// [`EditError`] as for [`set`].
pub fn unset(
    file: &str,
    content: &str,
    reference: Option<&InstanceRef>,
    key: &str,
) -> Result<String, EditError> {
    let before = Settings::parse(file, content.as_bytes());
    let table = reference.map_or_else(|| "defaults".to_owned(), ToString::to_string);
    let path: Vec<&str> = match key.split_once('.') {
        None => vec![&table, key],
        Some((outer, inner)) => vec![&table, outer, inner],
    };
    let after = without(content, &path).ok_or_else(|| syntax_problem(&before))?;
    refuse_new_problems(&before, &Settings::parse(file, after.as_bytes()))?;
    Ok(after)
}

/// `content` without the key at `path`, or unchanged if there is no such key; an error if it is not TOML.
fn without(content: &str, path: &[&str]) -> Option<String> {
    let document = Document::parse(content).ok()?;
    let (key, parents) = path.split_last()?;
    let parent = parents
        .iter()
        .try_fold(document.as_item(), |item, name| item.get(name));
    let found = parent
        .and_then(Item::as_table_like)
        .and_then(|table| table.get_key_value(key));
    let (Some(parent), Some((found, item))) = (parent, found) else {
        return Some(content.to_owned());
    };
    let is_line = parent.is_table() && item.is_value();
    if let (true, Some(start), Some(end)) = (is_line, found.span(), item.span()) {
        return Some(without_lines(content, start.start, end.end));
    }
    let mut document = document.into_mut();
    let mut parent = document.as_item_mut();
    for name in parents {
        parent = parent.get_mut(name)?;
    }
    parent.as_table_like_mut()?.remove(key);
    let Some(braces) = parent.as_inline_table_mut() else {
        return Some(document.to_string());
    };
    if braces.is_empty() && parents.len() > 1 {
        return without(content, parents);
    }
    braces.fmt();
    Some(document.to_string())
}

/// `content` without the lines that two places are in, and without the comment right above them.
fn without_lines(content: &str, start: usize, end: usize) -> String {
    let line_start = |at: usize| content[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let mut first = line_start(start);
    while first > 0 {
        let above = line_start(first - 1);
        if !content[above..first].trim_start().starts_with('#') {
            break;
        }
        first = above;
    }
    let last = content[end..]
        .find('\n')
        .map_or(content.len(), |newline| end + newline + 1);
    content[..first].to_owned() + &content[last..]
}

fn syntax_problem(settings: &Settings) -> EditError {
    let refusal = settings.check();
    refusal
        .expect_err("text that is no TOML has a syntax problem")
        .into()
}

/// The content of `file` with the table of `reference` from `source`: replaced, added, or removed if `source` does not
/// contain it. Comments are kept, except those directly above a table that is removed.
///
/// # Errors
///
/// [`EditError`] as for [`set`]; both texts must be TOML.
pub fn take_table(
    file: &str,
    content: &str,
    source: &str,
    reference: &InstanceRef,
) -> Result<String, EditError> {
    let before = Settings::parse(file, content.as_bytes());
    let parse = |text: &str| {
        text.parse::<DocumentMut>().map_err(|_| {
            Settings::parse(file, text.as_bytes())
                .check()
                .expect_err("text that is no TOML has a syntax problem")
        })
    };
    let mut document = parse(content)?;
    let name = reference.to_string();
    match parse(source)?.remove(&name) {
        Some(mut table) => {
            let old = document.get(&name).and_then(Item::as_table);
            let position = old.and_then(Table::position);
            if let Some(table) = table.as_table_mut() {
                table.set_position(position);
            }
            document.insert(&name, table);
        }
        None => remove_table(&mut document, &name),
    }
    let after = document.to_string();
    refuse_new_problems(&before, &Settings::parse(file, after.as_bytes()))?;
    Ok(after)
}

/// Removes a table with the comment right above it. Comments that an empty line sets apart from it
/// belong to what is above, and go to what follows.
pub(crate) fn remove_table(document: &mut DocumentMut, name: &str) {
    let Some(item) = document.remove(name) else {
        return;
    };
    let Some(table) = item.as_table() else {
        return;
    };
    let prefix = table.decor().prefix().and_then(|text| text.as_str());
    let above = match prefix.and_then(|text| text.rsplit_once("\n\n")) {
        Some((above, _)) => format!("{above}\n"),
        None => return,
    };
    let position = table.position();
    let next = document
        .as_table_mut()
        .iter_mut()
        .filter_map(|(_, item)| item.as_table_mut())
        .filter(|other| other.position() > position)
        .min_by_key(|other| other.position());
    if let Some(next) = next {
        let own = next.decor().prefix().and_then(|text| text.as_str());
        let joined = format!("{above}{}", own.unwrap_or_default());
        next.decor_mut().set_prefix(joined);
        return;
    }
    let trailing = document.trailing().as_str().unwrap_or_default();
    let joined = format!("{above}{trailing}");
    document.set_trailing(joined);
}

/// Puts a text, keeping the blanks and the comment around key and value when they are there.
fn put(table: &mut dyn TableLike, key: &str, value: &str) {
    let mut new = Value::from(value);
    match table.get_mut(key).and_then(Item::as_value_mut) {
        // Another way to write the same text is the administrator's choice.
        Some(old) if old.as_str() == Some(value) => {}
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            // The space before the `}` of an inline table would end up before the comma.
            if let Some((_, Item::Value(last))) = table.iter_mut().last()
                && last.decor().suffix().and_then(|text| text.as_str()) == Some(" ")
            {
                last.decor_mut().set_suffix("");
            }
            table.insert(key, Item::Value(new));
        }
    }
}

fn refuse_new_problems(before: &Settings, after: &Settings) -> Result<(), EditError> {
    // Places move with an edit; key and reason do not.
    let known = |problem: &Problem| {
        before
            .problems()
            .iter()
            .any(|old| old.key == problem.key && old.reason == problem.reason)
    };
    let problems: Vec<Problem> = after
        .problems()
        .iter()
        .filter(|problem| !known(problem))
        .cloned()
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Refusal::Problems {
        file: after.file().to_owned(),
        problems,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(
        content: &str,
        reference: Option<&str>,
        key: &str,
        value: &str,
    ) -> Result<String, String> {
        let reference = reference.map(|text| text.parse().unwrap());
        set("f", content, reference.as_ref(), key, value).map_err(|error| error.to_string())
    }

    #[test]
    fn comments_order_and_blanks_stay() {
        let content =
            "# top\n[master] # m\n[defaults]\n  conda-root   =  '/a' # why\nuser = \"x\"\n# end\n";
        assert_eq!(
            edit(content, None, "conda-root", "/o\"p't/\\x").unwrap(),
            "# top\n[master] # m\n[defaults]\n  conda-root   =  '''/o\"p't/\\x''' # why\nuser = \"x\"\n# end\n"
        );
    }

    #[test]
    fn a_value_that_is_there_already_keeps_its_spelling() {
        let content = "[defaults]\nconda-root = '/a' # why\n";
        assert_eq!(edit(content, None, "conda-root", "/a").unwrap(), content);
    }

    #[test]
    fn missing_tables_and_keys_are_added() {
        assert_eq!(
            edit("[master]\n", None, "conda-env", "base").unwrap(),
            "[master]\n\n[defaults]\nconda-env = \"base\"\n"
        );
        assert_eq!(
            edit("", Some("worker@gpu"), "directory", "/srv/w").unwrap(),
            "[\"worker@gpu\"]\ndirectory = \"/srv/w\"\n"
        );
        assert_eq!(
            edit("[defaults]\n", None, "environment.TZ", "UTC").unwrap(),
            "[defaults]\nenvironment = { TZ = \"UTC\" }\n"
        );
        let one = "[defaults]\nenvironment = { TZ = \"UTC\" } # x\n";
        assert_eq!(
            edit(one, None, "environment.A", "b").unwrap(),
            "[defaults]\nenvironment = { TZ = \"UTC\", A = \"b\" } # x\n"
        );
    }

    #[test]
    fn what_would_not_validate_is_refused() {
        assert_eq!(
            edit("[defaults]\n", None, "conda-root", "a:b").unwrap_err(),
            "f:2:14: defaults.conda-root: the path is not absolute\n\
             hint: write the full path, starting with `/`"
        );
        assert!(
            edit("", None, "colour", "red")
                .unwrap_err()
                .contains("unknown key")
        );
        assert!(
            edit("[x\n", None, "user", "bb")
                .unwrap_err()
                .contains("syntax error")
        );
        assert!(
            edit("defaults = 1\n", None, "user", "bb")
                .unwrap_err()
                .contains("is not a table")
        );
    }

    #[test]
    fn a_key_goes_with_the_comment_right_above_it() {
        let content = "# top\n[defaults]\n# why\n# because\nuser = \"x\" # really\n\n# of the log\n\nlog = \"both\"\n\
                       environment = { TZ = \"UTC\", A = \"b\" } # c\n\
                       [\"worker@a\"]\ndirectory = \"/a\"\ncredentials.p = \"x\"\n[\"worker@a\".environment]\nA = \"1\"\n";
        let unset = |reference: Option<&str>, key: &str| {
            let reference = reference.map(|text| text.parse().unwrap());
            super::unset("f", content, reference.as_ref(), key).map_err(|error| error.to_string())
        };
        for (reference, key, gone, instead) in [
            (
                None,
                "user",
                "# why\n# because\nuser = \"x\" # really\n",
                "",
            ),
            (None, "log", "log = \"both\"\n", ""),
            (None, "environment.TZ", "TZ = \"UTC\", ", ""),
            (
                None,
                "environment",
                "environment = { TZ = \"UTC\", A = \"b\" } # c\n",
                "",
            ),
            (
                Some("worker@a"),
                "credentials.p",
                "credentials.p = \"x\"\n",
                "",
            ),
            (Some("worker@a"), "environment.A", "A = \"1\"\n", ""),
            (
                Some("worker@a"),
                "environment",
                "[\"worker@a\".environment]\nA = \"1\"\n",
                "",
            ),
            (None, "hardening", "", ""),
            (None, "nothing.at.all", "", ""),
            (Some("master"), "user", "", ""),
        ] {
            let expect = content.replacen(gone, instead, 1);
            assert_eq!(
                unset(reference, key).unwrap(),
                expect,
                "{reference:?} {key}"
            );
        }
        // A named instance needs its directory.
        let refused = unset(Some("worker@a"), "directory").unwrap_err();
        assert!(refused.contains("missing key `directory`"), "{refused}");
        let last = "[master]\nenvironment = { A = \"b\" }";
        let reference = "master".parse().unwrap();
        assert_eq!(
            super::unset("f", last, Some(&reference), "environment.A").unwrap(),
            "[master]\n"
        );
    }

    fn take(content: &str, source: &str, reference: &str) -> String {
        take_table("f", content, source, &reference.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_table_goes_with_its_own_comment_and_no_other() {
        let content = "# top\n\n[master]\ndirectory = \"/m\"\n\n#[master.environment]\n#TZ = \"UTC\"\n\n\
                       # of the worker\n[worker] # w\nuser = \"x\" # why\n\n# end\n[\"worker@a\"]\ndirectory = \"/a\"\n";
        assert_eq!(
            take(content, "", "worker"),
            "# top\n\n[master]\ndirectory = \"/m\"\n\n#[master.environment]\n#TZ = \"UTC\"\n\n\
             # end\n[\"worker@a\"]\ndirectory = \"/a\"\n"
        );
        assert_eq!(
            take(content, "", "worker@a"),
            content.split("\n# end").next().unwrap()
        );
        assert_eq!(take("[master]\n", "", "worker"), "[master]\n");
    }

    #[test]
    fn a_table_comes_back_as_it_was_among_what_others_have_changed() {
        let old = "[master]\n\n# mine\n[worker] # w\nuser = 'x' # why\n";
        let new = "[master]\n\n# mine\n[worker] # w\nuser = 'y' # why\n\n[\"worker@a\"]\ndirectory = \"/a\"\n";
        let edited = new.replace("[master]\n", "[master]\nlog = \"both\"\n");
        assert_eq!(
            take(&take(&edited, old, "worker@a"), old, "worker"),
            old.replace("[master]\n", "[master]\nlog = \"both\"\n")
        );
        assert_eq!(take(&take(old, "", "worker"), old, "worker"), old);
    }

    #[test]
    fn problems_that_were_there_before_do_not_stand_in_the_way() {
        let content = "[defaults]\nusr = \"x\"\n";
        assert!(edit(content, None, "user", "bb").is_ok());
    }
}
