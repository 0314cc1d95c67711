//! The variables that an environment brings along: JSON objects to names and values, as Python reads and prints them.
//! Which file is which, and what becomes of the variables, is left to `prefix` and `activation`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::python;

/// Names and values in the order of the file; `None` is JSON's `null`. If a name is repeated, the last value is used at
/// the first place.
pub(crate) type Variables = Vec<(String, Option<String>)>;

/// A JSON object in its own order, values not yet looked at: numbers are printed from their literals.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut pairs: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = access.next_entry::<String, &'de RawValue>()? {
                    match pairs.iter_mut().find(|(known, _)| *known == name) {
                        Some(pair) => pair.1 = value,
                        None => pairs.push((name, value)),
                    }
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// What is wrong with the text of a file of variables.
#[derive(Debug)]
pub(crate) enum Problem {
    Json(serde_json::Error),
    NotAnObject,
    EnvVarsNotAnObject,
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

/// Reads a file of `etc/conda/env_vars.d`: one object of variables.
pub(crate) fn package_variables(text: &str) -> Result<Variables, Problem> {
    variables(serde_json::from_str(text)?)?.ok_or(Problem::NotAnObject)
}

/// Reads `conda-meta/state`: an object whose optional `env_vars` is an object of variables.
pub(crate) fn state_variables(text: &str) -> Result<Variables, Problem> {
    let state: &RawValue = serde_json::from_str(text)?;
    if !state.get().starts_with('{') {
        return Err(Problem::NotAnObject);
    }
    let Object(pairs) = serde_json::from_str(state.get())?;
    match pairs.iter().find(|(name, _)| name == "env_vars") {
        Some((_, value)) => variables(value)?.ok_or(Problem::EnvVarsNotAnObject),
        None => Ok(Variables::new()),
    }
}

/// The variables of an object; `None` if the value is not an object.
fn variables(value: &RawValue) -> Result<Option<Variables>, Problem> {
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    let Object(pairs) = serde_json::from_str(value.get())?;
    let mut variables = Variables::with_capacity(pairs.len());
    for (name, value) in pairs {
        let text = if value.get() == "null" {
            None
        } else {
            Some(printed(value)?)
        };
        variables.push((name, text));
    }
    Ok(Some(variables))
}

/// The value as it appears in the environment: as Python prints it. Inside lists and objects, Python quotes strings and
/// the shell removes the quotes again, so they are omitted at once.
fn printed(value: &RawValue) -> Result<String, serde_json::Error> {
    let literal = value.get();
    Ok(match literal.as_bytes().first() {
        Some(b'"') => serde_json::from_str(literal)?,
        Some(b't') => "True".to_owned(),
        Some(b'f') => "False".to_owned(),
        Some(b'n') => "None".to_owned(),
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(literal)?;
            let elements: Vec<String> = elements
                .into_iter()
                .map(printed)
                .collect::<Result<_, _>>()?;
            format!("[{}]", elements.join(", "))
        }
        Some(b'{') => {
            let Object(pairs) = serde_json::from_str(literal)?;
            let mut members = Vec::with_capacity(pairs.len());
            for (name, value) in pairs {
                members.push(format!("{name}: {}", printed(value)?));
            }
            format!("{{{}}}", members.join(", "))
        }
        _ => python::number(literal),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let expected: Variables = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect();
        assert_eq!(package_variables(text).expect(text), expected);
        assert_eq!(
            state_variables(&format!("{{\"env_vars\": {text}}}")).expect(text),
            expected
        );
    }

    #[test]
    fn values_that_are_no_strings_read_as_python_prints_them() {
        check(
            r#"{"N": 5, "T": true, "O": false, "F": 1.5, "G": 1e100, "NUL": null, "L": [1, "a", null, {"k": [true]}]}"#,
            &[
                ("N", Some("5")),
                ("T", Some("True")),
                ("O", Some("False")),
                ("F", Some("1.5")),
                ("G", Some("1e+100")),
                ("NUL", None),
                ("L", Some("[1, a, None, {k: [True]}]")),
            ],
        );
    }

    #[test]
    fn strings_keep_every_character() {
        check(
            r#"{"A": "it's \"$HOME\" `x` \\ \n", "B": "\u00e9\ud83d\ude00", "": "named by nothing"}"#,
            &[
                ("A", Some("it's \"$HOME\" `x` \\ \n")),
                ("B", Some("é😀")),
                ("", Some("named by nothing")),
            ],
        );
    }

    #[test]
    fn of_a_repeated_name_the_last_value_counts_at_the_first_place() {
        check(
            r#"{"A": "1", "B": "2", "A": "3"}"#,
            &[("A", Some("3")), ("B", Some("2"))],
        );
        assert!(
            state_variables(r#"{"env_vars": {"A": "1"}, "env_vars": {}}"#)
                .expect("valid")
                .is_empty()
        );
    }

    #[test]
    fn a_state_without_variables_has_none() {
        for text in ["{}", r#"{"version": 1}"#, r#" {"env_vars": {}} "#] {
            assert!(state_variables(text).expect(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "1", "null", "\"A\"", "true"] {
            assert!(
                matches!(package_variables(text), Err(Problem::NotAnObject)),
                "{text}"
            );
            assert!(
                matches!(state_variables(text), Err(Problem::NotAnObject)),
                "{text}"
            );
            let state = format!("{{\"env_vars\": {text}}}");
            assert!(
                matches!(state_variables(&state), Err(Problem::EnvVarsNotAnObject)),
                "{text}"
            );
        }
    }

    #[test]
    fn text_that_is_no_json_is_refused() {
        let nested = "[".repeat(100_000);
        for text in [
            "",
            "{nope",
            "\u{feff}{}",
            "{} {}",
            "{\"A\": NaN}",
            "{'A': 1}",
            &nested,
        ] {
            assert!(
                matches!(state_variables(text), Err(Problem::Json(_))),
                "{text:.20}"
            );
            assert!(
                matches!(package_variables(text), Err(Problem::Json(_))),
                "{text:.20}"
            );
        }
        let buried = "{\"env_vars\": {\"A\": \"\\ud800\"}}";
        assert!(matches!(state_variables(buried), Err(Problem::Json(_))));
    }
}
