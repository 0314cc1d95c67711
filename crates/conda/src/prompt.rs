//! `CONDA_PROMPT_MODIFIER`: condarc's `env_prompt` filled in, as far as `str.format` is used there.

/// The values of the fields of `env_prompt`.
pub(crate) struct Fields<'a> {
    pub(crate) default_env: &'a [u8],
    pub(crate) prefix: &'a [u8],
    pub(crate) name: &'a [u8],
}

/// Fills in `{default_env}`, `{stacked_env}`, `{prefix}` and `{name}`; `{{` and `}}` are braces. Nothing is stacked in
/// a fresh process, so the second field equals the first. `None` for any other field, for a format specification, and
/// for a brace alone: Python would raise an error or do something that no prompt needs.
pub(crate) fn fill_in(template: &str, fields: &Fields<'_>) -> Option<Vec<u8>> {
    let mut filled = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        filled.extend(rest[..at].bytes());
        let brace = &rest[at..];
        if let Some(after) = brace
            .strip_prefix("{{")
            .or_else(|| brace.strip_prefix("}}"))
        {
            filled.push(brace.as_bytes()[0]);
            rest = after;
            continue;
        }
        let (field, after) = brace.strip_prefix('{')?.split_once('}')?;
        filled.extend(match field {
            "default_env" | "stacked_env" => fields.default_env,
            "prefix" => fields.prefix,
            "name" => fields.name,
            _ => return None,
        });
        rest = after;
    }
    filled.extend(rest.bytes());
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_doubled_braces_are_filled_in() {
        let fields = Fields {
            default_env: b"d",
            prefix: b"/p",
            name: b"n",
        };
        for (template, expected) in [
            ("({default_env}) ", Some("(d) ")),
            (
                "[{default_env}|{name}|{prefix}|{stacked_env}] ",
                Some("[d|n|/p|d] "),
            ),
            ("{{{name}}}", Some("{n}")),
            ("}}{{", Some("}{")),
            ("", Some("")),
            ("é{name}", Some("én")),
            ("{", None),
            ("}", None),
            ("{}", None),
            ("{name", None),
            ("{name!r}", None),
            ("{name:>9}", None),
            ("{other}", None),
        ] {
            let filled = fill_in(template, &fields)
                .map(|bytes| String::from_utf8(bytes).expect("all UTF-8"));
            assert_eq!(filled.as_deref(), expected, "{template}");
        }
    }
}
