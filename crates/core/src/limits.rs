//! Limits of an instance's resources: the keys of the configuration, the directives of systemd.resource-control(5) and
//! systemd.exec(5) that they become, and the values that every systemd from 247 on accepts for each.

use crate::values::ValueError;

/// One limit.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The key of the configuration.
    pub key: &'static str,
    /// The directive of `[Service]`.
    pub directive: &'static str,
    /// The value for systemd; none if systemd would ignore it with a warning that nobody reads.
    parse: fn(&str) -> Option<String>,
    /// What can be written.
    hint: &'static str,
}

/// The values of an instance as they are written to the drop-in, each at the index of its limit in [`LIMITS`]. This is
/// an array instead of a map, whose code would be duplicated in the launcher for this type of entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Limits([Option<String>; LIMITS.len()]);

const SIZE: &str =
    "write a size such as `4G` or `512M`, a share of the memory such as `50%`, or `infinity`";
const WEIGHT: &str = "write a number from 1 to 10000; the default is 100";

/// All of them, by key.
pub const LIMITS: [Limit; 6] = [
    limit("cpu-weight", "CPUWeight", weight, WEIGHT),
    limit("io-weight", "IOWeight", weight, WEIGHT),
    limit("memory-high", "MemoryHigh", memory, SIZE),
    limit("memory-max", "MemoryMax", memory, SIZE),
    limit(
        "nice",
        "Nice",
        nice,
        "write a number from -20 (highest priority) to 19",
    ),
    limit(
        "tasks-max",
        "TasksMax",
        tasks,
        "write a number such as `4096`, a share of what the system allows such as `50%`, or `infinity`",
    ),
];

const fn limit(
    key: &'static str,
    directive: &'static str,
    parse: fn(&str) -> Option<String>,
    hint: &'static str,
) -> Limit {
    Limit {
        key,
        directive,
        parse,
        hint,
    }
}

impl Limits {
    /// The limit of a key, and the place of its value.
    pub(crate) fn find(&mut self, key: &str) -> Option<(&'static Limit, &mut Option<String>)> {
        let mut all = LIMITS.iter().zip(&mut self.0);
        all.find(|(limit, _)| limit.key == key)
    }

    /// Those that have a value, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Limit, &str)> {
        let all = LIMITS.iter().zip(&self.0);
        all.filter_map(|(limit, value)| Some((limit, value.as_deref()?)))
    }

    /// These, with those of `below` where these have none.
    pub(crate) fn over(&self, below: &Self) -> Self {
        let mut all = self.clone();
        for (value, below) in all.0.iter_mut().zip(&below.0) {
            if value.is_none() {
                value.clone_from(below);
            }
        }
        all
    }
}

impl Limit {
    pub(crate) fn value(&self, text: &str) -> Result<String, ValueError> {
        (self.parse)(text).ok_or_else(|| ValueError {
            reason: format!(
                "systemd does not accept `{}` as `{}=`",
                text.escape_debug(),
                self.directive
            ),
            hint: Some(self.hint.to_owned()),
        })
    }
}

/// systemd reads a number with a leading zero as an octal one, so that none is handed over.
fn whole(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn weight(text: &str) -> Option<String> {
    let weight = whole(text).filter(|weight| (1..=10000).contains(weight))?;
    Some(weight.to_string())
}

fn nice(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let nice = i64::try_from(whole(digits)?).ok()? * sign;
    (-20..=19).contains(&nice).then(|| nice.to_string())
}

fn tasks(text: &str) -> Option<String> {
    let number = || {
        whole(text)
            .filter(|tasks| (1..u64::MAX).contains(tasks))
            .map(|tasks| tasks.to_string())
    };
    infinity(text).or_else(|| share(text)).or_else(number)
}

fn memory(text: &str) -> Option<String> {
    infinity(text)
        .or_else(|| share(text))
        .or_else(|| size(text))
}

fn infinity(text: &str) -> Option<String> {
    (text == "infinity").then(|| text.to_owned())
}

/// A percentage above 0, with one digit behind the point as before systemd 250.
fn share(text: &str) -> Option<String> {
    let number = text.strip_suffix('%')?;
    let (before, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let before = whole(before)?;
    let tenths = whole(tenths).filter(|_| tenths.len() == 1)?;
    let permille = before.checked_mul(10)?.checked_add(tenths)?;
    (1..=1000).contains(&permille).then(|| match tenths {
        0 => format!("{before}%"),
        _ => format!("{before}.{tenths}%"),
    })
}

/// Bytes, or a number to the base 1024 with a unit; only the latter can have a fraction.
fn size(text: &str) -> Option<String> {
    let unit = text
        .chars()
        .next_back()
        .filter(|last| "KMGT".contains(*last));
    let number = unit.map_or(text, |_| &text[..text.len() - 1]);
    let power = unit
        .and_then(|unit| "KMGT".find(unit))
        .map_or(0, |at| at + 1);
    let (before, fraction) = match number.split_once('.') {
        Some((before, fraction)) if unit.is_some() && (1..=9).contains(&fraction.len()) => {
            (before, fraction)
        }
        Some(_) => return None,
        None => (number, "0"),
    };
    let (before, fraction) = (whole(before)?, whole(fraction)?);
    let bytes = before.checked_mul(1024_u64.checked_pow(u32::try_from(power).ok()?)?)?;
    let is_some = bytes > 0 || fraction > 0 && power > 0;
    (is_some && bytes < u64::MAX).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(key: &str) -> &'static Limit {
        Limits::default().find(key).unwrap().0
    }

    #[test]
    fn values_are_those_that_systemd_takes() {
        let table: [(&str, &[&str], &[&str]); 4] = [
            (
                "memory-max",
                &[
                    "4G",
                    "512M",
                    "1.5G",
                    "4294967296",
                    "16T",
                    "50%",
                    "12.5%",
                    "0.5K",
                    "infinity",
                ],
                &[
                    "",
                    "0",
                    "0K",
                    "0%",
                    "101%",
                    "12.55%",
                    "4g",
                    "4GB",
                    "4 G",
                    "-1G",
                    "+1G",
                    "1.5",
                    ".5G",
                    "1.G",
                    "1e9",
                    "0x10",
                    "20000000T",
                    "18446744073709551615",
                    "99999999999999999999",
                    "Infinity",
                    "%",
                    "G",
                    "4\u{0665}G",
                    "1.2.3G",
                ],
            ),
            (
                "cpu-weight",
                &["1", "100", "10000"],
                &[
                    "", "0", "10001", "-1", "1.5", "idle", "50%", "infinity", "1 ",
                ],
            ),
            (
                "tasks-max",
                &["1", "4096", "10%", "infinity"],
                &["", "0", "0%", "-1", "4K", "18446744073709551615"],
            ),
            (
                "nice",
                &["-20", "-1", "0", "19"],
                &[
                    "",
                    "-",
                    "-21",
                    "20",
                    "+5",
                    "--1",
                    "1.0",
                    "99999999999999999999",
                ],
            ),
        ];
        for (key, good, bad) in table {
            let limit = find(key);
            for text in good {
                assert_eq!(limit.value(text).as_deref(), Ok(*text), "{key}");
            }
            for text in bad {
                assert!(limit.value(text).is_err(), "{key} took {text:?}");
            }
        }
    }

    #[test]
    fn numbers_are_decimal_whatever_systemd_makes_of_a_leading_zero() {
        for (key, text, expect) in [
            ("nice", "-010", "-10"),
            ("cpu-weight", "0100", "100"),
            ("tasks-max", "0777", "777"),
            ("memory-max", "012.0%", "12%"),
        ] {
            let value = find(key).value(text);
            assert_eq!(value.as_deref(), Ok(expect), "{key}");
        }
    }

    #[test]
    fn limits_are_keys_of_the_configuration() {
        for limit in LIMITS {
            let key = crate::settings::Key::find(limit.key).unwrap();
            assert_eq!(key.name, limit.key);
        }
        assert!(LIMITS.is_sorted_by_key(|limit| limit.key));
    }
}
