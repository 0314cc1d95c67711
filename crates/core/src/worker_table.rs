//! The table of workers next to a starter `master.cfg`: `workers.toml`, which contains one table for each worker.
//! Workers are added and removed; everything else is kept. The file contains no passwords.

use toml_edit::{Array, DocumentMut, Item, value};

use crate::edit::remove_table;
use crate::starter::{Details, Tag, WorkerName};

/// Such a file.
#[derive(Debug, Clone)]
pub struct WorkerTable<'a> {
    text: &'a str,
    document: DocumentMut,
}

/// Reads a `workers.toml`; none if it is not valid, which its owner has to fix.
pub fn read(text: &str) -> Option<WorkerTable<'_>> {
    let document: DocumentMut = text.parse().ok()?;
    let are_tables = document.iter().all(|(_, item)| item.is_table_like());
    are_tables.then_some(WorkerTable { text, document })
}

impl WorkerTable<'_> {
    /// Whether a worker has a table.
    pub fn contains(&self, name: &str) -> bool {
        self.document.contains_key(name)
    }

    /// The table of the worker whose names would collide with those of a worker with these details.
    pub fn namesake(&self, name: &WorkerName, details: &Details) -> Option<&str> {
        let wanted: Vec<String> = name.slots(details.slots).collect();
        self.document.iter().map(|(other, _)| other).find(|other| {
            let slots = self.details(other).slots;
            let takes_one =
                |there: WorkerName| there.slots(slots).any(|slot| wanted.contains(&slot));
            *other != name.as_str() && other.parse().is_ok_and(takes_one)
        })
    }

    /// The content of a table as far as it is understood; empty if there is none.
    pub fn details(&self, name: &str) -> Details {
        let table = self.document.get(name);
        let slots = table.and_then(|table| table.get("slots")?.as_integer());
        let tags = table.and_then(|table| table.get("tags")?.as_array());
        let tags = tags.into_iter().flatten();
        Details {
            slots: slots.and_then(|slots| slots.try_into().ok()),
            tags: tags.filter_map(|tag| tag.as_str()?.parse().ok()).collect(),
        }
    }

    /// The text with an additional worker at the end, or with other details for an existing one.
    pub fn with(&self, name: &WorkerName, details: &Details) -> String {
        let mut document = self.document.clone();
        if let Some(table) = document.get_mut(name.as_str()) {
            set(
                table,
                "slots",
                details.slots.map(|slots| value(i64::from(slots))),
            );
            let tags: Array = details.tags.iter().map(Tag::as_str).collect();
            set(table, "tags", (!tags.is_empty()).then(|| value(tags)));
            return document.to_string();
        }
        let line = if self.text.is_empty() || self.text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let table = crate::starter::worker_lines(name, details);
        format!("{}{line}{table}", self.text)
    }

    /// The text without a worker; none if it is not listed or is the only one, because Buildbot accepts no builder
    /// without workers.
    pub fn without(&self, name: &str) -> Option<String> {
        if self.document.len() == 1 || !self.contains(name) {
            return None;
        }
        let mut document = self.document.clone();
        remove_table(&mut document, name);
        Some(document.to_string())
    }
}

fn set(table: &mut Item, key: &str, item: Option<Item>) {
    match (item, table.as_table_like_mut()) {
        (Some(item), Some(table)) => drop(table.insert(key, item)),
        (None, Some(table)) => drop(table.remove(key)),
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n\n[worker]\n\n# the fast one\n[gpu]\nslots = 2\n[gpu.properties]\nos = \"linux\"\n";

    #[test]
    fn workers_go_in_and_out_and_the_rest_stays() {
        let table = read(TEXT).unwrap();
        assert!(table.contains("worker") && table.contains("gpu") && !table.contains("new"));
        let more = table.with(&"new".parse().unwrap(), &Details::default());
        assert_eq!(more, format!("{TEXT}[new]\n"));
        assert_eq!(read(&more).unwrap().without("new").unwrap(), TEXT);
        let less = read(&more).unwrap().without("gpu").unwrap();
        assert_eq!(less, "# mine\n\n[worker]\n[new]\n");
        let less = table.without("worker").unwrap();
        assert_eq!(less, TEXT.replace("[worker]\n\n", ""));
        assert_eq!(table.without("new"), None);
    }

    #[test]
    fn the_last_worker_stays_and_an_empty_file_can_be_filled() {
        assert_eq!(read("[a]\n").unwrap().without("a"), None);
        assert_eq!(
            read("").unwrap().with(&"a".parse().unwrap(), &details()),
            "[a]\nslots = 2\ntags = [\"cuda\", \"big\"]\n"
        );
        let text = read("[a]")
            .unwrap()
            .with(&"b".parse().unwrap(), &Details::default());
        assert_eq!(text, "[a]\n[b]\n");
    }

    fn details() -> Details {
        Details {
            slots: Some(2),
            tags: vec!["cuda".parse().unwrap(), "big".parse().unwrap()],
        }
    }

    #[test]
    fn details_are_changed_in_their_place() {
        let table = read(TEXT).unwrap();
        let gpu = "gpu".parse().unwrap();
        let changed = table.with(&gpu, &details());
        assert_eq!(
            changed,
            TEXT.replace("slots = 2\n", "slots = 2\ntags = [\"cuda\", \"big\"]\n")
        );
        assert_eq!(read(&changed).unwrap().details("gpu"), details());
        let none = read(&changed).unwrap().with(&gpu, &Details::default());
        assert_eq!(none, TEXT.replace("slots = 2\n", ""));
        assert_eq!(table.details("new"), Details::default());
    }

    #[test]
    fn the_slots_of_a_worker_are_names_that_no_other_has() {
        let table = read("[gpu]\nslots = 3\n[cpu-2]\n").unwrap();
        let three = Details {
            slots: Some(3),
            tags: Vec::new(),
        };
        let namesake = |name: &str, details: &Details| {
            let name = name.parse().unwrap();
            table.namesake(&name, details).map(str::to_owned)
        };
        assert_eq!(namesake("gpu-3", &Details::default()).unwrap(), "gpu");
        assert_eq!(namesake("gpu-4", &three), None);
        assert_eq!(namesake("cpu", &three).unwrap(), "cpu-2");
        assert_eq!(namesake("cpu", &Details::default()), None);
        assert_eq!(namesake("gpu", &three), None);
    }

    #[test]
    fn what_is_no_table_of_workers_is_not_understood() {
        for text in ["a = 1\n", "[a\n", "WORKERS = [\"a\"]\n", "[[a]]\n"] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn that_of_a_new_master_is_one() {
        let text = crate::starter::worker_table([&"worker".parse().unwrap()]);
        let table = read(&text).unwrap();
        assert!(table.contains("worker") && table.document.len() == 1);
    }
}
